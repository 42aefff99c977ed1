"""What a run has spent, against its budget: pure, fed with events."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started
from orchestrator.execution.base import Attempt, Resources
from orchestrator.records.schema import State
from orchestrator.sweep import Budget
from workloads.progress import EpochDone

LATE_SECONDS = 60.0  # events of short trials come in bundles, at most so much after they happened


class Meter:
    """What a run has spent, against its budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._started = time.monotonic()
        self._running: dict[str, tuple[float, float]] = {}  # newest event's time, and when it was heard of here
        self._needs: dict[str, Resources] = {}
        self._macs: dict[str, float] = {}  # of what is left of each trial
        self._macs_per_epoch: dict[str, float] = {}
        self._spent = dict.fromkeys(Budget.model_fields, 0.0)

    def start(self, attempts: Sequence[Attempt]) -> None:
        """The run begins, with these trials."""
        self._started = time.monotonic()
        self.expect(attempts)

    def expect(self, attempts: Sequence[Attempt]) -> None:
        """These trials run too."""
        self._needs |= {attempt.trial_id: attempt.resources for attempt in attempts}
        for attempt in attempts:
            macs = self._macs[attempt.trial_id] = attempt.estimated_macs or 0.0
            self._macs_per_epoch[attempt.trial_id] = macs / attempt.content["recipe"]["epochs"]

    def spent_by(self, event: Event) -> str | None:
        """Take in an event; says which limit is reached, as `reached` does."""
        if isinstance(event, Started):
            self._running[event.trial_id] = (event.at, time.monotonic())
        known = self._running.get(event.trial_id)
        if known is not None:
            self._add_hours(self._spent, event.trial_id, self._seconds(event.at, *known))
            self._running[event.trial_id] = (event.at, time.monotonic())
        if isinstance(event, AttemptFailed | Paused | Ended):  # until it starts again, it costs nothing
            self._running.pop(event.trial_id, None)
        if isinstance(event, Progressed) and isinstance(event.progress, EpochDone):
            macs = self._take_macs(event.trial_id, self._macs_per_epoch[event.trial_id])
            self._spent["executed_macs"] += 0.0 if event.replayed else macs
        if isinstance(event, Ended):
            if event.state == State.FINISHED:
                self._spent["executed_macs"] += self._take_macs(event.trial_id)
            self._spent["max_failures"] += event.state in (State.FAILED, State.INFEASIBLE)
        return self.reached()

    def reached(self) -> str | None:
        """Which limit is reached by now, in words, if one is; trials that have told nothing for long count too."""
        now = time.monotonic()
        total = {**self._spent, "wall_hours": (now - self._started) / 3600}
        for trial_id, (_, heard) in self._running.items():
            self._add_hours(total, trial_id, now - heard)
        for name, spent in total.items():
            limit = getattr(self._budget, name)
            if limit is not None and (spent > limit if name == "max_failures" else spent >= limit):
                return f"budget {name}: {spent:.3g} of {limit:g}"
        return None

    def _add_hours(self, total: dict[str, float], trial_id: str, seconds: float) -> None:
        needs = self._needs[trial_id]
        hours = seconds / 3600 * needs.workers
        total["gpu_hours"] += hours * needs.gpus
        total["cpu_hours"] += hours * needs.cpus

    def _take_macs(self, trial_id: str, most: float = math.inf) -> float:
        macs = min(most, self._macs[trial_id])
        self._macs[trial_id] -= macs
        return macs

    @staticmethod
    def _seconds(at: float, since: float, heard: float) -> float:
        """Between two events by the worker's clock, but not more than passed here: clocks are set, budgets are not."""
        return max(0.0, min(at - since, time.monotonic() - heard + LATE_SECONDS))
