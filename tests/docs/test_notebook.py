"""The notebook runs from top to bottom, as it is in the repository: without stored outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "examples" / "quickstart.ipynb"
# In a process of its own: the kernel's sockets are closed when that ends, which in this one would be a warning.
RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, "ran.ipynb")
"""


def test_it_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    own = {"LONGRANGE_CACHE": "cache", "IPYTHONDIR": "ipython", "JUPYTER_CONFIG_DIR": "jupyter", "TMPDIR": "."}
    settings = {**os.environ, **{name: str(tmp_path / path) for name, path in own.items()}, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(NOTEBOOK)]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ran = json.loads((tmp_path / "ran.ipynb").read_text(encoding="utf-8"))["cells"]
    shown = [output for cell in ran if cell["cell_type"] == "code" for output in cell["outputs"]]
    printed = "".join("".join(output["text"]) for output in shown if output["output_type"] == "stream")
    assert "rejected: pnl" in printed
    assert "not divisible by n=3" in printed
    assert "report.html" in printed
    results = [output["data"] for output in shown if "data" in output]
    assert any("'finished': 6" in "".join(data["text/plain"]) for data in results)
    assert sum("application/vnd.plotly.v1+json" in data for data in results) == 2
    assert any("verdict" in "".join(data.get("text/html", "")) for data in results)
