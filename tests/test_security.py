"""What SECURITY.md promises, line by line."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from orchestrator.documents import read_yaml
from orchestrator.errors import UserError
from orchestrator.paths import slug
from orchestrator.sweep import parse_sweep

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for name in ("blocks", "workloads", "orchestrator", "dashboards") for path in (ROOT / name).rglob("*.py")
)


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of our sources, with its file."""
    trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
    return [(file, node) for file, tree in trees.items() for node in ast.walk(tree)]


@cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in our sources: file, dotted name of what is called, the call."""
    return [(file, ast.unparse(node.func), node) for file, node in nodes() if isinstance(node, ast.Call)]


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(item.value) for item in call.keywords if item.arg == name), None)


@cache
def imported() -> set[tuple[str, str]]:
    """Every top-level package that our sources import: file, package."""
    found = set()
    for file, node in nodes():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {(file, name.partition(".")[0]) for name in names}
    return found


def imports(module: str) -> set[str]:
    """Files that import a module, or names from it."""
    return {file for file, name in imported() if name == module}


def test_pickle_stays_between_our_own_processes() -> None:
    # weights.py names pickle's exception, to catch it; it loads nothing with it.
    assert imports("pickle") == {"orchestrator/execution/ray_tune.py", "workloads/backbones/weights.py"}
    loads = {
        file for file, name, _ in calls() if re.fullmatch(r"(pickle|cloudpickle|dill|joblib|marshal)\.loads?", name)
    }
    assert loads == {"orchestrator/execution/ray_tune.py"}
    assert not imports("cloudpickle") | imports("dill") | imports("joblib") | imports("shelve") | imports("marshal")


def test_torch_loads_weights_only() -> None:
    found = [(file, keyword(call, "weights_only")) for file, name, call in calls() if name == "torch.load"]
    assert found
    assert [file for file, only in found if only != "True"] == []


def test_numpy_loads_without_pickle() -> None:
    found = [keyword(call, "allow_pickle") for _, name, call in calls() if name in ("np.load", "numpy.load")]
    assert [value for value in found if value not in (None, "False")] == []


def test_yaml_by_the_safe_loader() -> None:
    found = [(file, name, call) for file, name, call in calls() if re.fullmatch(r"yaml\.\w*load\w*", name)]
    assert found
    for file, name, call in found:
        if name == "yaml.load":
            loader = keyword(call, "Loader") or ast.unparse(call.args[1])
            assert issubclass(_class_in(file, loader), yaml.SafeLoader), file
        else:
            assert name in ("yaml.safe_load", "yaml.safe_load_all"), file


def _class_in(file: str, name: str) -> type:
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    found = getattr(module, name)
    assert isinstance(found, type)
    return found


def test_no_shell_and_no_eval() -> None:
    assert [file for file, _, call in calls() if keyword(call, "shell") not in (None, "False")] == []
    assert [(file, name) for file, name, _ in calls() if name in ("eval", "exec", "os.system", "os.popen")] == []


def test_sql_is_never_pasted_together() -> None:
    """`text(...)` gets a constant: values are bound, names come from the schema."""
    texts = [(file, call.args[0]) for file, name, call in calls() if name in ("text", "sqlalchemy.text", "sa.text")]
    assert texts
    pasted = [
        (file, ast.unparse(given))
        for file, given in texts
        if file.startswith("orchestrator/records") and not isinstance(given, ast.Constant)
    ]
    assert pasted == []


def test_no_statement_is_made_of_strings() -> None:
    """Neither through SQLAlchemy nor past it, in the ledger as in the dashboards. The one exception holds a number."""
    runs = {"execute", "executemany", "executescript", "exec_driver_sql", "text", "literal_column", "read_sql"}
    made = {
        (file, ast.unparse(call.args[0]))
        for file, name, call in calls()
        if name.rpartition(".")[2] in runs and call.args and _is_pasted(call.args[0])
    }
    assert made == {("orchestrator/records/engine.py", "f'PRAGMA busy_timeout = {int(busy_seconds * 1000)}'")}


def _is_pasted(given: ast.expr) -> bool:
    parts = [part.value for part in ast.walk(given) if isinstance(part, ast.Constant)]
    return isinstance(given, ast.JoinedStr | ast.BinOp) and any(isinstance(part, str) for part in parts)


def test_a_sweep_file_cannot_make_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("name: !!python/object/apply:os.system ['touch hacked']")
    with pytest.raises(UserError, match="not valid YAML"):
        read_yaml(file)
    assert [path.name for path in tmp_path.iterdir()] == ["evil.yaml"]


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../../b", "C:\\x", "a\x00b", "-rf", "~root", "é" * 300],
)
def test_names_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    made = (tmp_path / slug(name)).resolve()
    assert made.parent == tmp_path.resolve()
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}", slug(name))


@pytest.mark.parametrize("name", ["/etc/passwd", "a//b", "a\\b", "a\nb", ""])
def test_a_sweep_name_cannot_be_a_path(name: str) -> None:
    with pytest.raises(UserError, match="name"):
        parse_sweep({"name": name, "base": {"workload": "digits"}})


def test_templates_escape() -> None:
    environments = [(file, keyword(call, "autoescape")) for file, name, call in calls() if name.endswith("Environment")]
    assert environments
    assert [file for file, escaped in environments if escaped is None or escaped == "False"] == []
    templates = ROOT / "dashboards" / "templates"
    safe = {
        match for path in templates.glob("*.html") for match in re.findall(r"\{\{([^}]*\|\s*safe)", path.read_text())
    }
    assert safe == set()


def test_a_local_ray_listens_on_loopback() -> None:
    pytest.importorskip("ray")
    import sys

    from orchestrator.execution import ray_address

    if sys.platform != "linux":
        pytest.skip("only Linux has a loopback net without set-up")
    assert ray_address.loopback() == {"_node_ip_address": "127.0.0.11"}
    (file,) = {file for file, name, _ in calls() if name == "ray.init"}
    local = [call for _, name, call in calls() if name == "ray.init" and keyword(call, "address") is None]
    assert file == "orchestrator/execution/ray_tune.py"
    assert all("loopback()" in ast.unparse(call) and keyword(call, "include_dashboard") == "False" for call in local)


def test_passwords_are_not_shown() -> None:
    from orchestrator.records.engine import locate, shown

    assert "secret" not in shown(locate("postgresql://ledger:secret@host/ledger?password=secret"))


def test_every_test_that_is_promised_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    here = Path(__file__).read_text()
    promised = set(re.findall(r"`(test_\w+)`", text))
    assert len(promised) >= 10
    assert [name for name in promised if f"def {name}(" not in here] == []
    assert all(
        (ROOT / path).exists()
        for path in re.findall(r"`((?:tests|docker|orchestrator|workloads|dashboards)/[\w/.]+)`", text)
    )


def test_our_own_yaml_is_plain() -> None:
    for path in [*ROOT.glob("orchestrator/**/*.yaml"), *ROOT.glob("docker/*.yaml")]:
        assert list(yaml.safe_load_all(path.read_text()))
