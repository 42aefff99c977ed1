"""status, logs and cancel as a user meets them, on runs in this process and in another."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from unprivileged import forbid_writing, nobody

from orchestrator import api
from orchestrator.cli import cli, watching
from orchestrator.errors import LedgerUnavailable, TrialsFailed, UserError
from orchestrator.overview import Failure, Overview


def longrange(*words: object, raises: type[Exception] | None = None) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)
    if done.exception is not None and not (raises and isinstance(done.exception, raises)):
        raise done.exception
    assert (done.exception is not None) == (raises is not None)
    return done.stdout


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two trials finished, two failed."""
    workload = {"name": "scripted:Scripted", "script": "bug", "seeds": [1]}
    axes = {"grid": {"block": ["nl"]}}
    sweep = api.Sweep(name="w[b]", base={"workload": workload, "insertion": {"res3": [0]}}, axes=axes, seeds=(0, 1))
    api.run(sweep, out=tmp_path / "run", executor="inline", mlflow="off")
    return tmp_path / "run"


def test_status_tells_arms_failures_and_cost(run: Path) -> None:
    told = longrange("status", run)
    assert "w[b]: 2 failed, 2 finished" in told
    assert "cpu-seconds" in told
    assert "scripted bug" in told
    values = json.loads(longrange("status", run, "--json"))
    assert values["arms"] == {"none": {"finished": 1, "failed": 1}, "nl": {"finished": 1, "failed": 1}}
    assert [failure["cause"] for failure in values["failures"]] == ["bug", "bug"]
    assert values["device_seconds"]["cpu"] > 0


def all_told(run: Path, archive: Path) -> list[str]:
    failed = api.status(run).failures[0].trial_id
    told = [longrange("status", run), longrange("show", run), longrange("logs", run, failed), longrange("table", run)]
    assert json.loads(longrange("export", run, "-o", archive, "--json"))["trials"] == 4
    return told


def test_a_run_in_an_archive_that_cannot_be_written_can_be_read(run: Path, tmp_path: Path) -> None:
    expected = all_told(run, tmp_path / "e.tar")  # by this user, who can read all modules of Python too
    with tempfile.TemporaryDirectory() as home:
        archive = Path(home) / "archive"
        shutil.copytree(run, archive)
        Path(home).chmod(0o777)
        forbid_writing(archive)
        before = sorted(archive.iterdir())
        with nobody():
            assert all_told(archive, Path(home) / "e.tar") == expected
        assert sorted(archive.iterdir()) == before


def test_show_lists_every_trial_and_one_in_full(run: Path) -> None:
    listed = json.loads(longrange("show", run, "--json"))
    states = {(one["arm"], one["seed"]): one["state"] for one in listed}
    ends = {0: "finished", 1: "failed"}
    assert states == {(arm, seed): end for arm in ("none", "nl") for seed, end in ends.items()}
    (chosen,) = [one["trial_id"] for one in listed if (one["arm"], one["seed"]) == ("nl", 0)]
    assert chosen in longrange("show", run)
    told = longrange("show", run, chosen[:8])
    assert "\n  block: {name: nl," in told
    assert f"ended_at: {time.strftime('%Y')}-" in told
    assert "longrange show FOLDER" in str(_refused("show", run, "zz"))


def _refused(*words: object) -> BaseException | None:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False).exception


def test_watching_ends_with_the_sweep_and_says_whether_it_failed(run: Path) -> None:
    assert "2 failed, 2 finished" in longrange("status", run, "--watch", raises=TrialsFailed)


def test_logs_show_every_attempt_with_its_traceback(run: Path) -> None:
    failed = api.status(run).failures[0].trial_id
    told = longrange("logs", run, failed[:10])
    assert f"trial {failed}: failed, 1 attempts" in told
    assert "bug: 'scripted bug'" in told
    assert "  | KeyError: 'scripted bug'" in told
    values = json.loads(longrange("logs", run, failed, "--json"))
    assert values["attempts"][0]["traceback"].startswith("Traceback")
    with pytest.raises(UserError, match="no trials begin with 'zz'"):
        longrange("logs", run, "zz")


def seen(**changes: Any) -> Overview:
    values: dict[str, Any] = {
        "states": {"running": 1, "finished": 1},
        "arms": {"[a]": {"running": 1, "finished": 1}},
        "failures": (),
        "drivers": 1,
        "trials_per_hour": 12.0,
        "seconds_left": 300.0,
        "device_seconds": {"cuda": 7200.0},
    }
    return Overview("s", **{**values, **changes})


def test_a_watch_follows_changes_through_a_ledger_that_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers: list[Overview | Exception] = [
        seen(),
        LedgerUnavailable("the server restarts"),
        seen(states={"finished": 2}, drivers=0, seconds_left=None, trials_per_hour=None),
    ]

    def look() -> Overview:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.0)
    assert watching.follow(look, seen(), draw=True).is_over
    assert capsys.readouterr().out.splitlines() == [
        "s: 1 finished, 1 running · 12 trials/h · about 5 min left · 7,200 cuda-seconds",
        "s: 2 finished · 7,200 cuda-seconds",
    ]


def test_a_driver_that_died_ends_the_watch(capsys: pytest.CaptureFixture[str]) -> None:
    left = seen(drivers=0, states={"finished": 1, "planned": 1}, seconds_left=None, trials_per_hour=None)
    assert watching.follow(lambda: left, left, draw=True) == left
    assert "nothing is running" in capsys.readouterr().out


def test_a_picture_shows_labels_as_they_are_and_a_bounded_list() -> None:
    from rich.console import Console

    failures = tuple(Failure(f"{number:016x}", "[red]x", number, "bug", "[bold]m") for number in range(30))
    written = StringIO()
    Console(width=150, file=written).print(watching.picture(seen(failures=failures)))
    text = written.getvalue()
    assert "[a]" in text
    assert "[red]x" in text
    assert "[bold]m" in text
    assert "and 10 more" in text


SWEEP = """
name: slow
base: {workload: {name: "scripted:Scripted", epoch_seconds: 0.5}, insertion: {res3: [0]}}
axes: {grid: {block: [nl]}}
seeds: 20
"""


def wait_for(reached: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, f"not reached in {seconds} s"
        time.sleep(0.2)


def test_cancel_stops_a_driver_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    out = tmp_path / "run"
    words = ["run", tmp_path / "sweep.yaml", "--executor", "inline", "--out", out, "--mlflow", "off", "--json"]
    command = [sys.executable, "-m", "orchestrator.cli", *map(str, words)]
    errors = tmp_path / "errors"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as driver,
    ):

        def one_finished() -> bool:
            assert driver.poll() is None, errors.read_text()
            try:
                return api.status(out).states.get("finished", 0) > 0
            except UserError:
                return False  # no run, no ledger or no sweep yet

        try:
            wait_for(one_finished)
            assert "stopped; " in longrange("cancel", out, "--wait", 60)
            told, _ = driver.communicate(timeout=120)
        finally:
            driver.kill()
    assert driver.returncode == 0, errors.read_text()
    outcome = json.loads(told)
    assert outcome["stopped_by"] == "longrange cancel"
    assert outcome["left"] > 0
    assert longrange("cancel", out, "--wait", 5) == "nothing is running\n"
    assert "nothing is running" in longrange("status", out, "--watch")
