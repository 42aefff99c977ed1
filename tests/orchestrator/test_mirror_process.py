"""The mirror's own process: it copies, says what is wrong, and is replaced when it dies."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestrator.errors import MirrorError
from orchestrator.execution.inline import InlineExecutor
from orchestrator.mirror_process import MirrorProcess
from orchestrator.plan import make_plan
from orchestrator.records.ledger import Ledger
from orchestrator.run import run_plan
from orchestrator.sweep import parse_sweep


class Blind:
    """An observer that looks away."""

    def planned(self, *_: object) -> None: ...

    def event(self, *_: object) -> None: ...


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    base = {"workload": {"name": "scripted:Scripted"}, "insertion": {"res3": [0]}, "block": "nl"}
    plan = make_plan(parse_sweep({"name": "t", "base": base, "seeds": 1}))
    where = {"checkpoints": tmp_path / "checkpoints", "cache": tmp_path / "cache"}
    with Ledger.open(tmp_path / "ledger.db") as opened, InlineExecutor() as executor:
        run_plan(plan, ledger=opened, executor=executor, observer=Blind(), **where)
    return tmp_path / "ledger.db"


@pytest.mark.slow
def test_it_copies_and_comes_back_after_its_death(tmp_path: Path, ledger: Path) -> None:
    store = tmp_path / "mlflow.db"
    with MirrorProcess(f"sqlite:///{store}", ledger) as mirror:
        mirror.catch_up()
        assert _runs(store) == 2
        assert mirror._process is not None
        mirror._process.kill()
        mirror._process.wait()
        mirror.catch_up()
        assert _runs(store) == 2
        process = mirror._process
    assert process.poll() is not None


def test_it_runs_what_this_process_runs_wherever_one_stands(
    tmp_path: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "orchestrator").mkdir(parents=True)
    (tmp_path / "here" / "orchestrator" / "__init__.py").write_text("raise ImportError('another checkout')")
    monkeypatch.chdir(tmp_path / "here")
    with MirrorProcess(f"sqlite:///{tmp_path}/mlflow.db", ledger) as mirror:
        mirror.catch_up()
    assert _runs(tmp_path / "mlflow.db") == 2


@pytest.mark.slow
def test_what_is_wrong_with_the_store_is_told(tmp_path: Path, ledger: Path) -> None:
    (tmp_path / "folder").mkdir()
    with MirrorProcess(f"sqlite:///{tmp_path}/folder", ledger) as mirror, pytest.raises(MirrorError, match="folder"):
        mirror.catch_up()


def _runs(store: Path) -> int:
    query = "select count(*) from tags where key = 'longrange.trial_id'"
    with sqlite3.connect(store) as connection:
        return int(connection.execute(query).fetchone()[0])
