"""export and import as a user meets them: a run goes on in another folder as if it had been there all the time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.errors import UserError

SWEEP = """
name: scripted/moved
question: Does the block pay?
base:
  workload: {name: "scripted:Scripted"}
  insertion: {res3: [0]}
axes:
  grid: {block: [{name: nl}]}
seeds: 2
"""


QUIET = ("--executor", "inline", "--mlflow", "off", "--quiet", "--json")


def longrange(*words: object) -> Any:
    done = CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    out = tmp_path / "here"
    assert longrange("run", tmp_path / "sweep.yaml", "--out", out, *QUIET)["ran"] == {"finished": 4}
    return out


def test_a_moved_run_can_be_looked_at_and_goes_on(run: Path, tmp_path: Path) -> None:
    archive, there = tmp_path / "a.longrange.tar", tmp_path / "there"
    told = longrange("export", run, "-o", archive, "--json")
    assert (told["sweep"], told["trials"], told["archive"]) == ("scripted/moved", 4, str(archive))
    done = longrange("import", archive, "--out", there, "--sha256", told["sha256"], "--json")
    assert (done["added"], done["kept_files"]) == (4, [])
    assert (there / "report.html").read_bytes() == (run / "report.html").read_bytes()
    assert longrange("status", there, "--json")["states"] == {"finished": 4}
    more = longrange("run", tmp_path / "sweep.yaml", "--set", "seeds=3", "--out", there, *QUIET)
    assert (more["reused"], more["ran"]) == (4, {"finished": 2}), "only the new seed"
    again = longrange("import", archive, "--out", there, "--json")
    assert (again["added"], again["unchanged"]) == (0, 4)
    assert there / "report.html" in map(Path, again["kept_files"]), "this run wrote a newer one"


def test_a_shared_ledger_takes_rows_only(run: Path, tmp_path: Path) -> None:
    archive = tmp_path / "a.longrange.tar"
    longrange("export", run, "-o", archive, "--json")
    shared = tmp_path / "shared.db"
    assert longrange("import", archive, "--ledger", shared, "--json")["folder"] is None
    both = longrange("import", archive, "--ledger", shared, "--out", tmp_path / "view", "--json")
    assert both["unchanged"] == 4
    assert longrange("status", tmp_path / "view", "--json")["states"] == {"finished": 4}
    assert not (tmp_path / "view" / "ledger.db").exists()
    longrange("export", shared, "-o", tmp_path / "b.longrange.tar", "--json")
    with pytest.raises(UserError, match="give another folder with --out"):
        longrange("import", archive, "--out", tmp_path / "view", "--json")
