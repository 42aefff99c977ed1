"""The Python API does what the command line does, in the same folders, and shows nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.errors import LongrangeError, UserError
from orchestrator.launch import DEFAULTS, Settings, remembered, start
from orchestrator.paths import RunFolder

HOOK = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"


def sweep(script: str = "finish", **changes: Any) -> api.Sweep:
    workload = {"name": "scripted:Scripted", "script": script, "seeds": [1]}
    base = {"workload": workload, "insertion": {"res3": [0]}}
    return api.Sweep(name="from python", base=base, axes={"grid": {"block": ["nl"]}}, **{"seeds": (0, 1), **changes})


def test_plan_run_status_and_resume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert api.plan(sweep(), profiled=False).estimate()["trials"] == 4
    out = tmp_path / "run"
    outcome = api.run(sweep("bug"), out=out, executor="inline", mlflow="off", only=["block.name=nl"])
    assert (outcome.ran, outcome.failed) == ({"finished": 2, "failed": 2}, 2)
    seen = api.status(out)
    assert (seen.states, seen.is_over) == ({"finished": 2, "failed": 2}, True)
    assert {failure.cause for failure in seen.failures} == {"bug"}
    assert api.resume(out).reused == 2
    assert api.resume(out, retry_failed=True).ran == {"failed": 2}
    assert remembered(RunFolder.find(out))["only"] == ["block.name=nl"]
    more = api.run(sweep("bug", seeds=(0, 1, 2)), out=out, executor="inline", mlflow="off")
    assert (more.reused, more.ran) == (2, {"finished": 2})
    assert capfd.readouterr() == ("", "")


def test_notices_are_sent_and_their_address_is_kept_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "run", tmp_path / "hidden-word"
    hook = f'"{sys.executable}" -c "{HOOK}" "{file}"'
    api.run(sweep("bug"), out=out, executor="inline", mlflow="off", notify=hook)
    notices = [json.loads(line) for line in file.read_text().splitlines()]
    assert [notice["event"] for notice in notices] == ["failure", "finished"]
    assert notices[-1]["ran"] == {"finished": 2, "failed": 2}
    for path in out.rglob("*"):
        assert not path.is_file() or b"hidden-word" not in path.read_bytes(), path
    api.resume(out)
    assert "give --notify again" in capfd.readouterr().err
    assert len(file.read_text().splitlines()) == 2


def test_a_driver_that_cannot_go_on_says_so(tmp_path: Path) -> None:
    file = tmp_path / "notices"
    hook = f'"{sys.executable}" -c "{HOOK}" "{file}"'
    folder = RunFolder.make(tmp_path / "run")
    (tmp_path / "bad.db").write_text("no database at all")
    settings: Settings = {**DEFAULTS, "ledger": str(tmp_path / "bad.db"), "notify": hook}
    with pytest.raises(LongrangeError, match="database"):
        start(api.plan(sweep(), profiled=False), folder, settings, observer=api.Quiet())
    (notice,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert (notice["event"], "database" in notice["message"]) == ("error", True)


def test_a_ledger_elsewhere_is_made_where_there_is_none(tmp_path: Path) -> None:
    place = tmp_path / "shared" / "l.db"
    once = api.run(sweep(), out=tmp_path / "run", executor="inline", mlflow="off", ledger=str(place))
    assert once.ran == {"finished": 4}
    assert api.status(tmp_path / "run").states == {"finished": 4}
    assert not (tmp_path / "run" / "ledger.db").exists()


def test_mistakes_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model_copy"):
        api.run(sweep(), set=["seeds=1"], out=tmp_path)
    with pytest.raises(UserError, match="there is no run in"):
        api.status(tmp_path / "nothing")
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        api.plan("quikstart")


def test_it_needs_neither_click_nor_dashboards_nor_torch() -> None:
    heavy = ("click", "dashboards", "torch", "ray", "mlflow")
    program = f"import sys, orchestrator.api; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_one_trial_is_told_whole(tmp_path: Path) -> None:
    api.run(sweep("bug"), out=tmp_path / "run", executor="inline", mlflow="off")
    failure = api.status(tmp_path / "run").failures[0]
    told = api.trial(tmp_path / "run", failure.trial_id[:10])
    assert (told["trial_id"], told["state"]) == (failure.trial_id, "failed")
    (attempt,) = told["attempts"]
    assert attempt["cause"] == "bug"
    assert "KeyError" in attempt["traceback"]
    with pytest.raises(UserError, match="no trials begin with 'x'"):
        api.trial(tmp_path / "run", "x")


def test_a_request_to_stop_is_heard_by_the_driver(tmp_path: Path) -> None:
    class Stopping(api.Quiet):
        def event(self, event: Any) -> None:
            api.cancel(tmp_path / "run")

    workload = {"name": "scripted:Scripted", "epoch_seconds": 0.5}
    slow = sweep().model_copy(update={"base": {"workload": workload, "insertion": {"res3": [0]}}})
    outcome = api.run(slow, out=tmp_path / "run", executor="inline", mlflow="off", observer=Stopping())
    assert outcome.stopped_by == "longrange cancel"
    assert api.resume(tmp_path / "run").left == 0


@pytest.mark.slow
def test_mlflow_is_filled_from_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    api.run(sweep(), out=out, executor="inline", mlflow="off")
    assert api.mirror(out).runs == 4
    assert api.mirror(out).runs == 0
    assert api.mirror(out, rebuild=True).runs == 4
    assert api.mirror(out, mlflow=f"sqlite:///{tmp_path}/other.db").runs == 4
