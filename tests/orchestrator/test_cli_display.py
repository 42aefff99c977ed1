"""The progress line: what has ended, under its own name."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from scripted import Scripted
from scripted_runs import plan_of

from orchestrator.cli import cli, common, running
from orchestrator.cli.display import Progress
from orchestrator.errors import UserError
from orchestrator.events import Ended, Started
from orchestrator.failures import Cause
from orchestrator.price import Price
from workloads.progress import Finished


@pytest.mark.parametrize(
    ("state", "cause", "said"),
    [
        ("failed", Cause.BUG, "0 running · 4 failed"),
        ("infeasible", Cause.OUT_OF_MEMORY, "0 running · 4 failed"),
        ("diverged", Cause.DIVERGED, "0 running · 0 failed · 4 diverged"),
        ("cancelled", Cause.STOPPED, "0 running · 0 failed · 4 cancelled"),
        ("cancelled", Cause.STOPPED_EARLY, "0 running · 0 failed · 4 stopped early"),
        ("finished", None, "0 running · 0 failed"),
    ],
)
def test_only_faults_are_failures(state: str, cause: Cause | None, said: str) -> None:
    plan = plan_of()
    told = io.StringIO()
    with Progress(Console(file=told)) as progress:
        progress.planned(plan, todo=4, reused=0)
        for _, trial in plan.ordered():
            progress.event(Started(trial.trial_id, 1, 0.0, "here", "cpu"))
            progress.event(Ended(trial.trial_id, 1, 1.0, state, None, cause))
    assert told.getvalue().strip() == f"4/4 trials · {said}"


def test_the_best_so_far_is_of_the_controls_data() -> None:
    other = {"grid": {"workload": ["scripted:Scripted", "digits"], "block": ["none", "nl"]}}
    plan = plan_of(axes=other, control={"block": "none"})
    told = io.StringIO()
    with Progress(Console(file=told, width=200)) as progress:
        progress.planned(plan, todo=8, reused=0)
        for arm, trial in plan.ordered():
            gain = 90.0 if arm.spec.workload.name == "digits" else 10.0
            value = gain + (arm.spec.model.block.name == "nl")
            finished = Finished({"top1_percent": value})
            progress.event(Ended(trial.trial_id, 1, 1.0, "finished", finished))
    assert "digits" in {arm.spec.workload.name for arm in plan.arms}
    assert "best so far nl" in told.getvalue()
    assert ": 11.0 % (n=2, control 10.0)" in told.getvalue()


def test_a_table_of_thousands_of_rows_says_what_a_short_one_says(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["漢 [b]", None], *(["a", number] for number in range(common.MANY))]
    common.echo_table(["arm", "trials"], rows, title="[all]")
    long = capsys.readouterr().out.splitlines()
    common.echo_table(["arm", "trials"], rows[:3], title="[all]")
    short = capsys.readouterr().out.splitlines()
    assert [line.split() for line in long[:5]] == [line.split() for line in short]
    assert len(long) == len(rows) + 2
    assert long[2] == "漢 [b]  –"
    assert long[3] == "a       0"


def test_a_plan_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    words = ["plan", "quickstart", "--no-profile", "--out", str(tmp_path / "file")]
    done = CliRunner().invoke(cli, words, standalone_mode=False)
    assert isinstance(done.exception, UserError)
    assert "is a file: give the folder of a run with --out" in str(done.exception)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.001, "less than 0.0001 device-hours (x)"), (None, "unknown (x)"), (36.0, "0.04 cpu-hours (x)")],
)
def test_an_estimate_that_rounds_to_nothing_is_known(
    seconds: float | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made = plan_of()
    arms = tuple(replace(arm, price=Price(seconds, None, "x")) for arm in made.arms)
    running.show_plan(replace(made, arms=arms), None)
    assert f"estimate: {said}" in capsys.readouterr().out


def test_workloads_of_others_may_hold_what_cannot_be_hashed() -> None:
    class Listed(Scripted):
        files: list[str]

    plan = plan_of()
    for arm in plan.arms:
        object.__setattr__(arm.spec, "workload", Listed(files=["a"]))
    with pytest.raises(TypeError, match="unhashable"):
        hash(plan.control.spec.workload)
    with Progress(Console(file=io.StringIO())) as progress:
        progress.planned(plan, todo=4, reused=0)
