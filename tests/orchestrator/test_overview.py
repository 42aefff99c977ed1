"""How far a sweep is: counted by hand on trials of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.events import AttemptFailed, Ended, Started
from orchestrator.failures import Cause
from orchestrator.overview import overview
from orchestrator.records.ledger import Ledger
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial
from workloads.progress import Finished

BASE = {"workload": {"name": "digits"}, "backbone": {"name": "resnet_tiny"}, "recipe": {"epochs": 1, "batch": 32}}
TWO_CPUS = {"when": {"block.name": "nl"}, "cpus": 2.0, "gpus": 1.0, "workers": 3}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Arm a: two trials of 100 s estimated; arm b: two of 300 s, on two CPUs in each of three workers."""
    arms = [
        PlannedArm(name * 16, f"arm {name}", {**BASE, "block": {"name": block}}, is_control=name == "a")
        for name, block in (("a", "none"), ("b", "nl"))
    ]
    trials = [
        PlannedTrial(f"{arm.arm_id[:15]}{seed}", arm.arm_id, seed, estimated_seconds=100.0 if arm.is_control else 300.0)
        for arm in arms
        for seed in range(2)
    ]
    with Ledger.open(tmp_path / "ledger.db") as opened:
        opened.record_plan(PlannedSweep("s", "?", {"resources": [TWO_CPUS]}, arms, trials), now=0.0)
        yield opened


def trial_id(arm: str, seed: int) -> str:
    return f"{arm * 15}{seed}"


def started(trial: str, at: float, attempt: int = 1, device: str = "cpu") -> Started:
    return Started(trial, attempt, at, "here", device)


def finished(trial: str, at: float, attempt: int = 1) -> Ended:
    return Ended(trial, attempt, at, "finished", Finished({"top1_percent": 1.0}))


def test_a_planned_sweep_has_no_pace_and_no_cost(ledger: Ledger) -> None:
    seen = overview(ledger, "s", now=10.0)
    assert (seen.states, seen.arms) == ({"planned": 4}, {"arm a": {"planned": 2}, "arm b": {"planned": 2}})
    assert (seen.trials_per_hour, seen.seconds_left, seen.device_seconds, seen.failures) == (None, None, {}, ())
    assert (seen.trials, seen.ended, seen.drivers, seen.is_over) == (4, 0, 0, True)


def test_pace_and_time_left_follow_the_estimated_work(ledger: Ledger) -> None:
    ids = [trial_id("a", 0), trial_id("a", 1), trial_id("b", 0), trial_id("b", 1)]
    ledger.claim(ids, "driver", 1000.0, now=1000.0)
    ledger.apply([started(ids[0], 1000.0), finished(ids[0], 1050.0), started(ids[2], 1050.0)], "driver")
    seen = overview(ledger, "s", now=1100.0)
    assert (seen.drivers, seen.is_over) == (1, False)
    assert seen.trials_per_hour == pytest.approx(36.0), "one trial in 100 s"
    assert seen.seconds_left == pytest.approx(700.0), "100 of 800 estimated seconds took 100 s"
    assert seen.device_seconds == {"cpu": pytest.approx(50.0 + 50.0 * 6)}, "the running trial has 3 workers of 2 CPUs"
    assert overview(ledger, "s", now=2500.0).drivers == 0, "its lease has ended"


def test_the_pace_is_that_of_the_last_quarter_of_an_hour(ledger: Ledger) -> None:
    ids = [trial_id("a", 0), trial_id("a", 1), trial_id("b", 0)]
    ledger.claim(ids, "driver", 9000.0, now=0.0)
    ledger.apply([started(ids[0], 0.0), finished(ids[0], 10.0)], "driver")
    ledger.apply([started(ids[1], 10.0), finished(ids[1], 1950.0)], "driver")
    ledger.apply([started(ids[2], 1950.0)], "driver")
    seen = overview(ledger, "s", now=2000.0)
    assert seen.trials_per_hour == pytest.approx(4.0), "one in 900 s; the first one ended before"
    assert seen.seconds_left == pytest.approx(600 / (100 / 900))


def test_failures_have_their_cause_and_every_attempt_costs(ledger: Ledger) -> None:
    key, other = trial_id("b", 1), trial_id("a", 1)
    ledger.claim([key, other], "driver", 100.0, now=0.0)
    events = [
        started(key, 0.0, device="cuda"),
        AttemptFailed(key, 1, 20.0, Cause.LOST, "gone", retried=True),
        started(key, 30.0, attempt=2, device="cuda"),
        AttemptFailed(key, 2, 40.0, Cause.BUG, "KeyError", "Traceback"),
        Ended(key, 2, 40.0, "failed", None, Cause.BUG, "KeyError"),
        started(other, 40.0),
        AttemptFailed(other, 1, 45.0, Cause.LOST, "gone", retried=True),
        started(other, 46.0, attempt=2),
        finished(other, 50.0, attempt=2),
    ]
    ledger.apply(events, "driver")
    seen = overview(ledger, "s", now=60.0)
    (failure,) = seen.failures
    assert (failure.trial_id, failure.arm, failure.seed, failure.cause) == (key, "arm b", 1, "bug")
    assert failure.message == "KeyError"
    assert seen.device_seconds == {"cuda": pytest.approx(30 * 1.0 * 3), "cpu": pytest.approx(9.0)}
    assert seen.to_json()["failures"][0]["cause"] == "bug"


def test_an_attempt_of_a_dead_driver_costs_nothing_more(ledger: Ledger) -> None:
    key = trial_id("a", 0)
    ledger.claim([key], "driver", 10.0, now=0.0)
    ledger.apply([started(key, 0.0)], "driver")
    assert overview(ledger, "s", now=5.0).device_seconds == {"cpu": 5.0}
    seen = overview(ledger, "s", now=500.0)
    assert (seen.device_seconds, seen.drivers, seen.is_over) == ({}, 0, True)


def test_a_trial_whose_driver_is_gone_is_interrupted_not_running(ledger: Ledger) -> None:
    key = trial_id("a", 0)
    ledger.claim([key], "driver", 10.0, now=0.0)
    ledger.apply([started(key, 0.0)], "driver")
    assert overview(ledger, "s", now=5.0).states == {"running": 1, "planned": 3}
    for gone in (overview(ledger, "s", now=500.0), ledger.release("driver") or overview(ledger, "s", now=5.0)):
        assert gone.states == {"interrupted": 1, "planned": 3}
        assert gone.arms["arm a"] == {"interrupted": 1, "planned": 1}


def test_another_name_is_answered_with_those_there_are(ledger: Ledger) -> None:
    with pytest.raises(UserError, match=r"no sweep 'x'; there are: 's'"):
        overview(ledger, "x", now=0.0)


def test_a_finished_sweep_is_over(ledger: Ledger) -> None:
    ids = [trial_id(arm, seed) for arm in "ab" for seed in range(2)]
    ledger.claim(ids, "driver", 1000.0, now=0.0)
    ledger.apply([event for key in ids for event in (started(key, 0.0), finished(key, 1.0))], "driver")
    seen = overview(ledger, "s", now=2.0)
    assert seen.is_over
    assert (seen.states, seen.ended, seen.drivers) == ({"finished": 4}, 4, 0)
