"""The run verbs as a user meets them, on a ledger on disk, with scripted trials.

Every verb runs in a process of its own somewhere here; where a test calls one again, `here` spares it the start.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cli

SWEEP = """
name: scripted
question: Does the block pay?
base:
  workload: {name: "scripted:Scripted", script: %(script)s, seeds: %(seeds)s, epoch_seconds: %(epoch_seconds)s}
  insertion: {res3: [0]}
axes:
  any_of:
    - grid: {block: [{name: nl}], insertion: [{res3: [0]}, {res4: [0]}]}
    - grid: {block: [{name: pnl}], block.n: [1, 3]}
seeds: 3
"""


@pytest.fixture
def write_sweep(tmp_path: Path) -> Any:
    def write(*, script: str = "finish", seeds: str = "[]", epoch_seconds: float = 0.0) -> Path:
        path = tmp_path / "sweep.yaml"
        path.write_text(SWEEP % {"script": script, "seeds": seeds, "epoch_seconds": epoch_seconds})
        return path

    return write


def longrange(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def here(*words: object) -> subprocess.CompletedProcess[str]:
    """As `longrange`, in this process, which has imported everything already."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(StringIO()) as out,
        redirect_stderr(StringIO()) as complaints,
    ):
        patch.setattr(sys, "argv", ["longrange", *map(str, words)])
        patch.setattr(sys, "path", list(sys.path))  # the command adds the present folder
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), complaints.getvalue())


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(folder / "ledger.db") as connection:
        return connection.execute(query).fetchall()


def results(folder: Path) -> list[tuple[Any, ...]]:
    return rows(folder, "select trial_id, name, value from results where name not like '%seconds' order by 1, 2")


@pytest.mark.slow
def test_a_sweep_runs_once_and_a_second_run_runs_nothing(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = longrange("run", write_sweep(), "--executor", "inline", "--out", out, "--mlflow", "off", "--json")
    assert first.returncode == 0, first.stderr
    outcome = json.loads(first.stdout)
    assert outcome["ran"] == {"finished": 12}
    assert (out / "report.html").stat().st_size > 10_000
    again = json.loads(
        longrange("run", write_sweep(), "--executor", "inline", "--out", out, "--mlflow", "off", "--json").stdout
    )
    assert (again["ran"], again["reused"]) == ({}, 12)
    more = longrange(
        "run", write_sweep(), "--set", "seeds=4", "--executor", "inline", "--out", out, "--mlflow", "off", "--json"
    )
    assert json.loads(more.stdout)["ran"] == {"finished": 4}, "only the new seed of four arms"
    assert Counter(state for (state,) in rows(out, "select state from trials")) == {"finished": 16}


def test_only_restricts_what_runs_not_what_is_shown(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--executor", "inline", "--out", out, "--mlflow", "off", "--json", "--set", "seeds=1")
    command = ("run", write_sweep(), *options, "--only")
    ran = [json.loads(here(*command, f"block={block}").stdout)["ran"] for block in ("nl", "pnl")]
    assert ran == [{"finished": 3}, {"finished": 1}]
    arms = {"none", "nl @res3", "nl @res4", "pnl n=1 @res3"}
    assert set(json.loads(here("status", out, "--json").stdout)["arms"]) == arms
    assert arms < set(longrange("table", out, "--format", "csv", "--columns", "arm").stdout.splitlines())


def test_arms_that_a_changed_sweep_drops_are_told_and_come_back(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--out", out, "--set", "seeds=1")
    runs = ("--executor", "inline", "--mlflow", "off", "--json", *options)
    whole = write_sweep()
    assert json.loads(here("run", whole, *runs).stdout)["ran"] == {"finished": 4}
    less = tmp_path / "less.yaml"
    less.write_text(whole.read_text().replace("    - grid: {block: [{name: pnl}], block.n: [1, 3]}\n", ""))
    told = "no longer in the sweep: pnl n=1 @res3 (1 trial); tables and reports leave them out, their results stay"
    planned = here("plan", less, *options, "--no-profile").stdout
    assert told in planned
    assert told in here("run", less, *runs).stderr
    again = here("run", whole, *runs)
    assert json.loads(again.stdout)["reused"] == 4
    assert "no longer" not in again.stderr


def test_the_end_of_a_run_says_what_was_rejected_and_where_to_look(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = longrange("run", write_sweep(), "--executor", "inline", "--out", out, "--mlflow", "off")
    assert done.returncode == 0, done.stderr
    assert "32 channels are not divisible by n=3" in done.stdout
    for hint in ("report.html", "ledger.db", "longrange ui"):
        assert hint in done.stdout
    assert "Warning" not in done.stderr + done.stdout


@pytest.mark.slow
def test_mlflow_shows_plan_report_and_figures_of_the_sweep(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = longrange("run", write_sweep(), "--executor", "inline", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    with sqlite3.connect(out / "mlflow.db") as store:
        (place,) = store.execute(
            "select artifact_uri from runs join tags using (run_uuid) "
            "where key = 'longrange.kind' and tags.value = 'sweep'"
        ).fetchone()
    shown = {path.name: path.stat().st_size for path in Path(place.removeprefix("file://")).iterdir()}
    assert set(shown) == {"plan.json", "report.html", "frontier.png", "curves.png"}
    assert min(shown.values()) > 1_000


def test_failed_trials_are_told_exit_with_1_and_can_be_retried(write_sweep: Any, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    command = ("run", write_sweep(script="bug", seeds="[1]"), "--executor", "inline", "--out", out, "--mlflow", "off")
    failed = longrange(*command)
    assert failed.returncode == 1
    assert "4 trials failed" in failed.stderr
    assert f"longrange resume --retry-failed '{out}'" in failed.stderr, "to be pasted"
    assert f"4 trials failed before: longrange resume --retry-failed '{out}'" in here(*command).stdout
    assert "Traceback" not in failed.stderr
    told = json.loads(here("status", out, "--json").stdout)
    assert told["states"] == {"finished": 8, "failed": 4}
    assert {item["cause"] for item in told["failures"]} == {"bug"}
    retried = longrange("resume", out, "--retry-failed", "--json")
    assert json.loads(retried.stdout)["ran"] == {"failed": 4}


@pytest.mark.slow(seconds=60)
@pytest.mark.ray
def test_ray_and_inline_give_the_same_bits(write_sweep: Any, tmp_path: Path) -> None:
    sweep = write_sweep()
    for executor in ("inline", "ray"):
        done = longrange("run", sweep, "--executor", executor, "--out", tmp_path / executor, "--mlflow", "off")
        assert done.returncode == 0, done.stderr
    assert results(tmp_path / "inline") == results(tmp_path / "ray")
    query = "select trial_id, scores from predictions order by 1"
    assert rows(tmp_path / "inline", query) == rows(tmp_path / "ray", query)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint_and_a_second_one_at_once(
    write_sweep: Any, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(write_sweep(epoch_seconds=2.0)), "--out", str(out)]
    driver = subprocess.Popen([*command, "--executor", "inline"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _wait_for(out, "select count(*) from epoch_metrics", least=1)
    driver.send_signal(number)
    if times == 2:
        time.sleep(0.5)
        driver.send_signal(number)
    said, complained = (text.decode() for text in driver.communicate(timeout=120))
    assert driver.returncode == 130, complained
    assert "running trials write a checkpoint" in complained
    assert complained.rstrip().endswith("interrupted")
    status = longrange("status", out).stdout
    if times == 1:
        assert f"12 trials left ({number.name}): longrange resume {out}" in said
        assert "1 cancelled, 11 planned · nothing is running" in status
    else:
        assert said == ""
        assert "1 interrupted, 11 planned · nothing is running" in status


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow(seconds=60)])]
)
def test_a_killed_driver_loses_nothing_and_repeats_nothing(write_sweep: Any, tmp_path: Path, executor: str) -> None:
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "orchestrator.cli",
        "run",
        str(write_sweep(epoch_seconds=0.4)),
        "--executor",
        executor,
        "--out",
        str(out),
    ]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    _wait_for(out, "select count(*) from trials where state = 'finished'", least=2)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = rows(out, "select trial_id from trials where state = 'finished'")
    resumed = longrange("resume", out, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["ran"] == {"finished": 12 - len(before)}, "finished trials did not run again"
    assert Counter(state for (state,) in rows(out, "select state from trials")) == {"finished": 12}
    series = rows(
        out,
        "select trial_id, group_concat(epoch) from (select * from epoch_metrics "
        "where name = 'train_loss' order by trial_id, epoch) group by trial_id",
    )
    assert {epochs for _, epochs in series} == {"0,1,2"}, "no series has a gap"
    _same_in_mlflow(out)


def _wait_for(out: Path, query: str, *, least: int, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if rows(out, query)[0][0] >= least:
                return
        except sqlite3.OperationalError:
            pass  # the ledger is not there yet
        time.sleep(0.1)
    raise AssertionError(f"not reached in {seconds} s: {query}")


def _same_in_mlflow(out: Path) -> None:
    with sqlite3.connect(out / "mlflow.db") as store:
        tags = store.execute(
            "select value from tags join runs using (run_uuid) "
            "where key = 'longrange.trial_id' and lifecycle_stage = 'active'"
        ).fetchall()
    assert sorted(tags) == sorted(rows(out, "select trial_id from trials"))


def test_the_installed_command_finds_a_block_in_the_present_folder(tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "docs/examples/my_block/my_block/__init__.py"
    (tmp_path / "block_of_mine.py").write_text(
        source.read_text().replace('name = "mean"', 'name = "block_of_mine:MeanBlock"')
    )
    command = [str(Path(sys.executable).with_name("longrange")), "run", "every-block", "--executor", "inline", "--json"]
    command += ["--set", "block=block_of_mine:MeanBlock", "--only", "block.name=block_of_mine:MeanBlock", "--quiet"]
    command += ["--set", "seeds=1", "--set", "recipe.epochs=1", "--set", "workload.train_clips=64", "--mlflow", "off"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ran"] == {"finished": 2}
