"""Budgets: every limit, counted while trials run, in the units it is given in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import meter as metering
from orchestrator.events import Ended, Event, Progressed, Started
from orchestrator.execution.base import Attempt, Resources
from orchestrator.meter import Meter
from orchestrator.sweep import Budget
from workloads.progress import EpochDone


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The meter's own clock; events come as they happen."""
    now = [0.0]
    monkeypatch.setattr(metering.time, "monotonic", lambda: now[0])
    return now


def attempt(name: str) -> Attempt:
    needs = Resources(cpus=2.0, gpus=1.0, workers=3)
    return Attempt(name, {"recipe": {"epochs": 4}}, 1, Path(), Path(), needs, estimated_macs=100.0)


def started(name: str, hours: float) -> Event:
    return Started(name, 1, hours * 3600, "host", "cpu")


def epoch(name: str, hours: float, *, replayed: bool = False) -> Event:
    return Progressed(name, 1, hours * 3600, EpochDone(0, {}, 1.0), replayed=replayed)


def ended(name: str, hours: float, state: str = "finished") -> Event:
    return Ended(name, 1, hours * 3600, state)


@pytest.mark.parametrize(
    ("limit", "events", "said"),
    [
        pytest.param(
            {"gpu_hours": 3.0}, [started("a", 0), epoch("a", 0.9), epoch("a", 1.0)], "gpu_hours: 3 of 3", id="gpu"
        ),
        pytest.param(
            {"cpu_hours": 6.0}, [started("a", 0), epoch("a", 0.9), epoch("a", 1.0)], "cpu_hours: 6 of 6", id="cpu"
        ),
        pytest.param(
            {"wall_hours": 1.0}, [started("a", 0), epoch("a", 0.9), epoch("a", 1.0)], "wall_hours: 1 of 1", id="wall"
        ),
        pytest.param(
            {"executed_macs": 150.0},
            [ended("a", 0.1), epoch("b", 0.1), ended("b", 0.2)],
            "executed_macs: 200 of 150",
            id="macs",
        ),
        pytest.param(
            {"executed_macs": 50.0},
            [epoch("a", 0.1), ended("a", 0.1, "cancelled"), epoch("b", 0.2, replayed=True), epoch("b", 0.3)],
            "executed_macs: 50 of 50",
            id="macs of trained epochs alone",
        ),
        pytest.param(
            {"max_failures": 1},
            [ended("a", 0.1, "failed"), ended("b", 0.1, "diverged"), ended("c", 0.1, "infeasible")],
            "max_failures: 2 of 1",
            id="failures",
        ),
    ],
)
def test_a_limit_is_reached_by_the_last_event(
    clock: list[float], limit: dict[str, Any], events: list[Event], said: str
) -> None:
    meter = Meter(Budget(**limit))
    meter.start([attempt("a")])
    meter.expect([attempt("b"), attempt("c")])
    *before, last = events
    for event in before:
        clock[0] = event.at
        assert meter.spent_by(event) is None
    clock[0] = last.at
    assert meter.spent_by(last) == f"budget {said}"


def test_without_a_budget_nothing_ends_a_run(clock: list[float]) -> None:
    meter = Meter(Budget())
    meter.start([attempt("a")])
    clock[0] = 1e9
    assert meter.spent_by(ended("a", 1e6, "failed")) is None


@pytest.mark.parametrize(
    ("limit", "said"),
    [({"gpu_hours": 4.0}, "gpu_hours: 4 of 4"), ({"cpu_hours": 8.0}, "cpu_hours: 8 of 8"), ({"wall_hours": 1.5}, None)],
)
def test_a_limit_is_reached_in_silence(clock: list[float], limit: dict[str, float], said: str | None) -> None:
    """Three GPUs and six cores of `a` from the start, and as many of `b`, which is over, for 20 minutes."""
    meter = Meter(Budget(**limit))
    meter.start([attempt("a"), attempt("b")])
    for event in (started("a", 0), started("b", 0), ended("b", 1 / 3)):
        clock[0] = event.at
        assert meter.spent_by(event) is None
    clock[0] = 0.9 * 3600
    assert meter.reached() is None
    clock[0] = 3600
    assert meter.reached() == (f"budget {said}" if said else None)
    clock[0] = 1.5 * 3600
    assert meter.reached() is not None
    assert meter.spent_by(epoch("a", 1.5)) == meter.reached(), "what was counted before is not counted again"
