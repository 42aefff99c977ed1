from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dashboards

FOLDER = Path(dashboards.__file__).parent
OURS = {"blocks", "workloads", "orchestrator"}
ALLOWED = {
    "orchestrator.errors",
    "orchestrator.judged",
    "orchestrator.records.read_only",
    "orchestrator.records.schema",
    "orchestrator.trial",
}
HEAVY = ("torch", "ray", "mlflow", "dash")


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: str(file.relative_to(FOLDER)))
def test_only_the_ledgers_schema_is_imported(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {
        node.module if node.module in ALLOWED else f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name for name in names if name and name.split(".")[0] in OURS} <= ALLOWED


def test_importing_dashboards_loads_nothing_heavy() -> None:
    code = f"import dashboards, sys; print([name for name in {HEAVY} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
