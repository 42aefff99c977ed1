"""What surrounds a run breaks: drivers are killed at every stage, servers go away, disks fill, clocks are set.

Workers and nodes that die are in `execution/test_executors.py` and `test_chaos.py`.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow_server import MlflowServer
from postgres import PostgreSQL
from scripted_runs import Driver, assert_complete, plan_of, rows

from orchestrator.events import Ended, Event, Started
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Copied, Mirror

driver_module = importlib.import_module("orchestrator.driver")


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield Driver(tmp_path, ledger)


# A driver that kills itself: `{before}` or `{after}` the n-th call of a method, or at the n-th event of a kind.
KILLED = """
    import os, signal, sys
    from pathlib import Path
    from scripted_runs import Driver, plan_of
    from orchestrator.launch import make_executor
    from orchestrator.records.ledger import Ledger
    from workloads.progress import CheckpointWritten, EpochDone

    stage, left = {stage!r}, {count}

    def die(*_):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(name, *, after, only=lambda *_: True):
        real = getattr(Ledger, name)
        def call(self, *values, **named):
            if not after and only(*values):
                die()
            result = real(self, *values, **named)
            if after and only(*values):
                die()
            return result
        setattr(Ledger, name, call)

    def has_end(events, *_):
        return any(type(event).__name__ == "Ended" for event in events)

    if stage == "planned": around("record_plan", after=True)
    if stage == "claimed": around("claim", after=True)
    if stage == "before-writing": around("apply", after=False, only=has_end)
    if stage == "in-transaction": around("_write_results", after=True, only=lambda _, fold: bool(fold.results))
    if stage == "written": around("apply", after=True, only=has_end)
    if stage == "released": around("release", after=True)

    def at(event):
        kind = type(getattr(event, "progress", event)).__name__
        if kind == dict(started="Started", epoch="EpochDone", checkpoint="CheckpointWritten", ended="Ended").get(stage):
            die()

    if __name__ == "__main__":
        root = Path({root!r})
        driver = Driver(root, Ledger.open(root / "ledger.db"))
        driver.watch.then = at
        executor = make_executor(dict(executor={executor!r}, address=None, workers=2))
        driver.run(plan_of(epoch_seconds={epoch_seconds}), executor=executor)
"""
STAGES = {
    "planned": 1,
    "claimed": 1,
    "started": 2,
    "epoch": 5,
    "checkpoint": 5,
    "ended": 2,
    "before-writing": 1,
    "in-transaction": 1,
    "written": 1,
    "released": 1,
}


def killed(root: Path, stage: str, executor: str, epoch_seconds: float) -> None:
    """Run a driver that dies at this stage."""
    program = textwrap.dedent(
        KILLED.format(stage=stage, count=STAGES[stage], root=str(root), executor=executor, epoch_seconds=epoch_seconds)
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize(
    "stage",  # two in `make check`, all of them in CI
    [
        pytest.param(stage, marks=() if stage in ("checkpoint", "in-transaction") else pytest.mark.slow)
        for stage in STAGES
    ],
)
def test_a_driver_killed_at_any_stage_is_followed_without_loss(driver: Driver, tmp_path: Path, stage: str) -> None:
    killed(tmp_path, stage, "inline", 0.15)
    finished = {trial.trial_id for trial in driver.ledger.trials_of("t") if trial.state == "finished"}
    outcome = driver.run(plan_of(epoch_seconds=0.15))
    assert (outcome.reused, outcome.elsewhere, outcome.left) == (len(finished), 0, 0)
    assert finished.isdisjoint(event.trial_id for event in driver.watch.events), "what is finished does not run again"
    assert_complete(driver.ledger)
    assert driver.folders() == set()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("stage", ["started", "checkpoint", "ended", "in-transaction"])
def test_workers_of_a_killed_driver_do_not_disturb_the_next(driver: Driver, tmp_path: Path, stage: str) -> None:
    killed(tmp_path, stage, "ray", 0.4)
    assert driver.run(plan_of(epoch_seconds=0.4)).left == 0
    assert_complete(driver.ledger)


@pytest.mark.slow
def test_two_drivers_on_one_sweep_share_it(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: t\nbase: {workload: {name: 'scripted:Scripted', epoch_seconds: 0.2}, insertion: {res3: [0]}}\n"
        "axes: {grid: {block: [nl, rnl]}}\nseeds: 4\n"
    )
    run = [sys.executable, "-m", "orchestrator.cli", "run", "sweep.yaml", "--out", "run", "--mlflow", "off", "--quiet"]
    both = [
        subprocess.Popen([*run, "--executor", "inline"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [one.communicate(timeout=120) for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    with Ledger.open(tmp_path / "run" / "ledger.db") as ledger:
        assert_complete(ledger)
    assert rows(tmp_path / "run", "select count(*) from attempts") == [(12,)], "nothing ran twice"


def test_a_driver_that_lost_its_trials_stops_and_spoils_nothing(driver: Driver) -> None:
    """As after a laptop's sleep: its lease ended, and another driver took what it runs."""
    plan = plan_of(epoch_seconds=0.3)
    ids = [trial.trial_id for _, trial in plan.ordered()]
    taken: list[str] = []

    def take(event: Event) -> None:
        if isinstance(event, Started) and not taken:
            claims = driver.ledger.claim(ids, "another", 1e6, time.time() + 3600)
            taken.extend(claim.trial_id for claim in claims)

    driver.watch.then = take
    outcome = driver.run(plan)
    assert len(taken) == 4
    assert outcome.stopped_by is not None
    assert "another driver has taken over" in outcome.stopped_by
    assert {trial.owner for trial in driver.ledger.trials_of("t")} == {"another"}


def later(seconds: float, action: Callable[[], object]) -> Callable[[], None]:
    """Do something in a thread; the answer waits for it."""
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread.join


@pytest.mark.parametrize("at", ["first", pytest.param("last", marks=pytest.mark.slow)])
def test_a_restart_of_the_ledgers_server_is_outlived(postgresql: PostgreSQL, tmp_path: Path, at: str) -> None:
    waits: list[Callable[[], None]] = []
    with Ledger.open(postgresql.emptied()) as ledger:
        driver = Driver(tmp_path, ledger)

        def restart(event: Event) -> None:
            ended = sum(isinstance(one, Ended) for one in driver.watch.events)
            if isinstance(event, Ended) and ended == {"first": 1, "last": 4}[at]:
                postgresql.stop()
                waits.append(later(2.0, postgresql.start))

        driver.watch.then = restart
        try:
            outcome = driver.run(plan_of(epoch_seconds=0.2))
        finally:
            for wait in waits:
                wait()
        assert outcome.ran == {"finished": 4}
        assert_complete(ledger)
        assert driver.folders() == set()


@pytest.mark.slow
def test_runs_go_on_while_mlflow_is_away(driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "MIRROR_SECONDS", 0.2)
    for name, value in {"MAX_RETRIES": "0", "TIMEOUT": "5"}.items():
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    with MlflowServer(f"sqlite:///{tmp_path}/mlflow.db", tmp_path) as server:
        mirror = Mirror(server.address, driver.ledger)
        away: list[float] = []

        def go(event: Event) -> None:
            ended = sum(isinstance(one, Ended) for one in driver.watch.events)
            if isinstance(event, Ended) and ended == 1:
                server.stop()
                away.append(time.monotonic())

        driver.watch.then = go
        plan = plan_of(epoch_seconds=0.3, seeds=(), axes={"grid": {"block": ["nl", "rnl"]}})
        outcome = driver.run(plan, mirror=mirror)
        assert outcome.ran == {"finished": 6}, "nothing waited for MLflow"
        assert outcome.mirror_error is not None
        assert "catches up" in outcome.mirror_error
        server.start()
        copied = mirror.catch_up()
        assert 5 <= copied.runs <= 6
        assert mirror.catch_up() == Copied(runs=0)
        (experiment,) = [one for one in mirror._client.search_experiments() if one.name != "Default"]
        found = mirror._client.search_runs([experiment.experiment_id], "tags.`longrange.kind` = 'trial'")
        assert sorted(run.data.tags["longrange.trial_id"] for run in found) == sorted(
            trial.trial_id for trial in driver.ledger.trials_of("t")
        )


class Clock:
    """The module `time`, with a wall clock that can be set."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@pytest.mark.parametrize(
    "jump", [pytest.param(7200.0, id="forward", marks=pytest.mark.slow), pytest.param(-7200.0, id="backward")]
)
def test_a_clock_that_is_set_while_trials_run_changes_nothing(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Budgets and pauses are measured by a clock nobody sets; leases are renewed under the new time."""
    clock = Clock()
    for module in ("orchestrator.driver", "orchestrator.run", "orchestrator.execution.worker"):
        monkeypatch.setattr(f"{module}.time", clock)
    for module in ("orchestrator.driver", "orchestrator.run"):
        monkeypatch.setattr(f"{module}.LEASE_SECONDS", 2.0)
    ids = [trial.trial_id for _, trial in plan_of(epoch_seconds=0.4).ordered()]
    stolen: list[Any] = []

    def set_clock(event: Event) -> None:
        ended = sum(isinstance(one, Ended) for one in driver.watch.events)
        if isinstance(event, Started) and ended == 1:
            clock.offset = jump
        if isinstance(event, Started) and ended == 3:  # renewed since
            stolen.extend(driver.ledger.claim(ids, "another", 60.0, clock.time()))

    driver.watch.then = set_clock
    outcome = driver.run(plan_of(epoch_seconds=0.4, budget={"cpu_hours": 0.5, "wall_hours": 0.5}))
    assert (outcome.stopped_by, outcome.ran, stolen) == (None, {"finished": 4}, [])
    assert_complete(driver.ledger)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_fails_the_trial_and_the_next_run_goes_on_from_its_checkpoint(
    driver: Driver, tmp_path: Path, small_disk: Path
) -> None:
    """Real training: the checkpoint that does not fit names the disk, older ones stay, and the result is the same."""
    from orchestrator.plan import make_plan
    from orchestrator.sweep import parse_sweep

    base = {"workload": "digits", "insertion": {"res3": [0]}, "recipe": {"epochs": 2}}
    plan = make_plan(parse_sweep({"name": "t", "base": base, "seeds": 1}))
    driver.checkpoints = small_disk
    assert driver.run(plan).ran == {"failed": 1}
    (trial,) = driver.ledger.trials_of("t")
    assert "No space left on device" in str(trial.message)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert driver.run(plan, retry_failed=True).ran == {"finished": 1}
    with Ledger.open(tmp_path / "other.db") as other:
        undisturbed = Driver(tmp_path / "other", other)
        undisturbed.run(plan)
        found, expected = (
            {row["name"]: row["value"] for row in ledger.trial(trial.trial_id)["results"]}
            for ledger in (driver.ledger, other)
        )
        assert "top1_percent" in found
        measured = ("seconds", "peak_memory")
        for name in expected:
            assert found[name] == expected[name] or any(word in name for word in measured), name
