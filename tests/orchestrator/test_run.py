"""The driver: checkpoints go only when results are safe, requests to stop are heard, budgets end a run."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from scripted_runs import Driver, plan_of

from orchestrator.events import AttemptFailed, Ended, Event, Progressed, Started
from orchestrator.execution.base import Attempt, Further, nothing_further
from orchestrator.execution.inline import InlineExecutor
from orchestrator.failures import Cause
from orchestrator.paths import CancelFile
from orchestrator.planned import planned_sweep
from orchestrator.records.ledger import Ledger
from orchestrator.run import fingerprints


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        yield Driver(tmp_path, ledger)


def test_checkpoints_stay_only_with_trials_that_may_need_them(driver: Driver) -> None:
    outcome = driver.run(plan_of("bug", seeds=[1]))
    assert outcome.ran == {"finished": 2, "failed": 2}
    failed = {event.trial_id for event in driver.watch.events if isinstance(event, Ended) and event.state == "failed"}
    assert driver.folders() == failed


def test_a_block_that_needs_two_clips_at_once_is_infeasible_before_it_gets_one(driver: Driver) -> None:
    plan = plan_of("oom", axes={"grid": {"block": ["se_rnl"], "recipe.batch": [4]}})
    ours = {trial.trial_id for trial in plan.arms[1].trials()}
    assert driver.run(plan).ran == {"infeasible": 4}
    starts = [event for event in driver.watch.events if isinstance(event, Started) and event.trial_id in ours]
    assert {event.micro_batch for event in starts} == {None, 2}


def test_nor_does_it_get_one_when_the_driver_died_before_it_knew(driver: Driver) -> None:
    plan = plan_of("oom", axes={"grid": {"block": ["se_rnl"], "recipe.batch": [4]}})
    trial_id = plan.arms[1].trials()[0].trial_id
    driver.ledger.record_plan(planned_sweep(plan, fingerprints(plan)), 0.0)
    driver.ledger.claim([trial_id], "dead", 60.0, now=0.0)
    failed = AttemptFailed(trial_id, 1, 2.0, Cause.OUT_OF_MEMORY, "too much", retried=True)
    driver.ledger.apply([Started(trial_id, 1, 1.0, "here", "cpu", 2), failed], "dead")
    assert driver.run(plan).ran == {"infeasible": 4}
    starts = [event for event in driver.watch.events if isinstance(event, Started) and event.trial_id == trial_id]
    assert [event.micro_batch for event in starts] == [2]


def test_checkpoints_are_kept_if_asked_for_and_cleared_by_a_later_run(driver: Driver) -> None:
    plan = plan_of()
    driver.run(plan, keep_checkpoints=True)
    assert len(driver.folders()) == 4
    assert driver.run(plan, keep_checkpoints=True).reused == 4
    assert len(driver.folders()) == 4
    (driver.checkpoints / "not-a-trial").mkdir()
    assert driver.run(plan).reused == 4
    assert driver.folders() == {"not-a-trial"}


class Strict(Ledger):
    """Sees to it that checkpoints outlive the transaction, and can say that another driver has the trials."""

    checkpoints: Path
    lost = False

    def apply(self, events: Sequence[Event], owner: str) -> frozenset[str]:
        for event in events:
            assert (self.checkpoints / event.trial_id).exists() or not isinstance(event, Ended | Progressed)
        refused = super().apply(events, owner)
        for event in events:
            assert (self.checkpoints / event.trial_id).exists() or not isinstance(event, Ended)
        return frozenset(event.trial_id for event in events) if self.lost else refused


@pytest.mark.parametrize("lost", [False, True])
def test_no_checkpoint_goes_before_the_ledger_has_the_result(driver: Driver, tmp_path: Path, *, lost: bool) -> None:
    with Strict.open(tmp_path / "ledger.db") as strict:
        assert isinstance(strict, Strict)
        strict.checkpoints, strict.lost = driver.checkpoints, lost
        driver.run(plan_of(), ledger=strict)
    assert len(driver.folders()) == (4 if lost else 0), "a trial that another driver has is not ours to clear up"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import orchestrator.driver
    from scripted_runs import Driver, plan_of
    from orchestrator.records.ledger import Ledger
    orchestrator.driver.discard = lambda folder, ids: list(ids) and os.kill(os.getpid(), signal.SIGKILL)
    root = Path({root!r})
    Driver(root, Ledger.open(root / "ledger.db")).run(plan_of())
"""


def test_a_kill_between_result_and_clearing_up_loses_nothing(driver: Driver, tmp_path: Path) -> None:
    program = textwrap.dedent(KILLED.format(root=str(tmp_path)))
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    finished = sum(trial.state == "finished" for trial in driver.ledger.trials_of("t"))
    assert finished >= 1
    assert len(driver.folders()) >= finished, "killed before anything was deleted"
    outcome = driver.run(plan_of())
    assert (outcome.reused, outcome.ran) == (finished, {"finished": 4 - finished} if finished < 4 else {})
    assert driver.folders() == set()


def test_a_request_to_stop_is_heard_and_an_old_one_is_not(driver: Driver, tmp_path: Path) -> None:
    plan = plan_of(epoch_seconds=0.4)
    CancelFile(tmp_path / "cancel").ask()
    driver.watch.then = lambda event: isinstance(event, Ended) and CancelFile(tmp_path / "cancel").ask()
    outcome = driver.run(plan, asked_to_stop=CancelFile(tmp_path / "cancel"))
    assert outcome.stopped_by == "longrange cancel"
    assert outcome.left >= 1
    assert outcome.ran["finished"] >= 1
    driver.watch.then = lambda event: None
    rest = driver.run(plan, asked_to_stop=CancelFile(tmp_path / "cancel"))
    assert (rest.stopped_by, rest.reused) == (None, outcome.ran["finished"])
    assert sum(trial.state == "finished" for trial in driver.ledger.trials_of("t")) == 4


def test_a_spent_budget_ends_the_run_and_says_which(driver: Driver) -> None:
    outcome = driver.run(plan_of("bug", budget={"max_failures": 0}))
    assert outcome.ran == {"failed": 1}
    assert outcome.left == 3
    assert outcome.stopped_by == "budget max_failures: 1 of 0"


class Silent(InlineExecutor):
    """Its trial tells that it has started, and nothing more until it is asked to stop."""

    def run(self, attempts: Sequence[Attempt], further: Further = nothing_further) -> Iterator[Event]:
        (first, *_) = attempts
        yield Started(first.trial_id, first.number, time.time(), "host", "cpu")
        end = time.monotonic() + 20
        while not self._cancelled and time.monotonic() < end:
            time.sleep(0.01)
        yield Ended(first.trial_id, first.number, time.time(), "cancelled")


@pytest.mark.parametrize("limit", ["wall_hours", "cpu_hours"])
def test_a_budget_is_spent_by_a_trial_that_tells_nothing_for_long(driver: Driver, limit: str) -> None:
    outcome = driver.run(plan_of(budget={limit: 0.5 / 3600}), executor=Silent())
    assert outcome.stopped_by is not None
    assert outcome.stopped_by.startswith(f"budget {limit}")
    assert outcome.seconds < 15
