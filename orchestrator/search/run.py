"""A search while it runs: draws configurations when there is room, hears of their epochs, stops those that do badly.

The ledger is the only memory: what was drawn is in the sweep's definition before it runs, what became of it in the
trials. A trial that is stopped early ends as cancelled, with the cause `stopped_early` and a message that says by whom,
after which epoch and at what value. It has no result, so no table compares it with trials of full length.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import UserError
from orchestrator.events import Ended, Event, Progressed
from orchestrator.execution.base import Attempt
from orchestrator.failures import Cause
from orchestrator.paths import write_text
from orchestrator.plan import Arm, Plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import ENDED, State
from orchestrator.search.planning import Setting, arm_of
from orchestrator.search.proposals import Past, Proposals
from orchestrator.search.space import Search
from workloads.progress import EpochDone

Replan = Callable[[Sequence[Setting]], Plan]
Admit = Callable[[Plan, Arm | None], Attempt | None]  # records the plan; None: rejected, done, or run elsewhere

EARLY_FILE = "stop-early"


class Searching(Protocol):
    """One driver's part of a search. Its methods may be called from several threads.

    Attributes:
        admitted: trials that it has made this driver's.
        left: configurations that nobody has drawn yet.
    """

    admitted: int

    @property
    def left(self) -> int: ...

    def watched(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those of the attempts that run at once, as the search wants them."""

    def further(self) -> list[Attempt] | None:
        """See `execution.base.Further`."""

    def event(self, event: Event) -> Sequence[Event]:
        """Hear what happens to a trial; the ends of others that the search decided."""


class SearchRun:
    """Draws configurations one by one, and stops the trials that a scheduler says. See `Searching`.

    Args:
        plan: with what was drawn before.
        replan: the plan with one more.
        ledger: knows what became of what was drawn.
        admit: makes a drawn arm this driver's.
    """

    def __init__(self, plan: Plan, *, replan: Replan, ledger: Ledger, admit: Admit) -> None:
        self._plan, self._replan, self._ledger, self._admit = plan, replan, ledger, admit
        self._search = search_of(plan)
        self._proposals = Proposals(self._search, epochs=(plan.search or {})["at_most"]["epochs"])
        self._numbers: dict[str, int] = {}  # trial_id -> number, of configurations under way
        self._epochs: dict[str, int] = {}  # trial_id -> how many it trains to its end
        self._files: dict[str, Path] = {}
        self._lock = threading.RLock()
        self.admitted = 0
        for setting in (plan.search or {})["drawn"]:
            self._recall(setting)

    @property
    def left(self) -> int:
        """Configurations that nobody has drawn yet."""
        return max(0, self._search.configurations - len(self._proposals))

    def watched(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """The attempts; those of drawn configurations can be stopped one by one."""
        return [self._watched(one) if one.trial_id in self._numbers else one for one in attempts]

    def further(self) -> list[Attempt] | None:
        """See `execution.base.Further`."""
        with self._lock:
            if len(self._numbers) >= self._search.concurrent:
                return []
            while self.left:
                attempt = self._draw()
                if attempt is not None:
                    return [attempt]
            return None

    def event(self, event: Event) -> Sequence[Event]:
        """Hear what happens to a trial; may ask it to stop. See `Searching`."""
        with self._lock:
            number = self._numbers.get(event.trial_id)
            if number is None:
                return ()
            if isinstance(event, Progressed) and isinstance(event.progress, EpochDone):
                self._judge(event.trial_id, number, event.progress)
            elif isinstance(event, Ended):
                self._end(event, number)
            return ()

    def _draw(self) -> Attempt | None:
        setting = self._proposals.draw()
        number = len(self._proposals) - 1
        self._plan = self._replan([*(self._plan.search or {})["drawn"], setting])
        arm = arm_of(self._plan, setting)
        attempt = self._admit(self._plan, arm)
        if attempt is None:
            past = self._past(arm)
            for epoch, value in past.epochs.items():
                self._proposals.report(number, epoch, value)
            self._proposals.end(number, "failed" if past.state == "open" else past.state, past.value)
            return None
        self.admitted += 1
        self._under_way(arm, number)
        return self._watched(attempt)

    def _watched(self, attempt: Attempt) -> Attempt:
        file = attempt.checkpoint_dir / EARLY_FILE
        file.unlink(missing_ok=True)  # of an earlier driver: who is stopped is decided anew, in the same way
        self._files[attempt.trial_id] = file
        past = past_of(self._ledger, attempt.trial_id, self._search.metric).epochs
        if past:
            newest = max(past)
            self._stop_if_bad(attempt.trial_id, newest, past[newest])
        return replace(attempt, early_file=file)

    def _judge(self, trial_id: str, number: int, done: EpochDone) -> None:
        value = judged(self._search, done)
        self._proposals.report(number, done.epoch + 1, value)
        self._stop_if_bad(trial_id, done.epoch + 1, value)

    def _stop_if_bad(self, trial_id: str, epochs: int, value: float) -> None:
        search, file = self._search, self._files[trial_id]
        is_bad = self._proposals.is_stopped(self._numbers[trial_id])
        if is_bad and epochs < self._epochs[trial_id] and not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, f"{search.scheduler} stopped it after {epochs} epochs at {search.metric} {value:g}")

    def _under_way(self, arm: Arm | None, number: int) -> None:
        if arm is not None:
            trial_id = arm.trials()[0].trial_id
            self._numbers[trial_id], self._epochs[trial_id] = number, arm.spec.recipe.epochs

    def _end(self, event: Ended, number: int) -> None:
        if event.cause is Cause.STOPPED:
            return  # the whole run is being stopped: this one goes on when it is resumed
        del self._numbers[event.trial_id]
        if event.result is not None:
            self._proposals.end(number, "finished", event.result.metrics.get(self._search.metric))
        else:
            self._proposals.end(number, "stopped_early" if event.cause is Cause.STOPPED_EARLY else "failed")

    def _recall(self, setting: Setting) -> None:
        arm = arm_of(self._plan, setting)
        past = self._past(arm)
        trial_id = trial_id_of(arm)
        repeated = past.state == "open" and (trial_id in self._numbers or trial_id in references(self._plan))
        self._proposals.recall(setting, replace(past, state="failed") if repeated else past)
        if past.state == "open" and not repeated:
            self._under_way(arm, len(self._proposals) - 1)

    def _past(self, arm: Arm | None) -> Past:
        return past_of(self._ledger, trial_id_of(arm), self._search.metric)


def past_of(ledger: Ledger, trial_id: str | None, metric: str) -> Past:
    """What the ledger says of a trial; of None, which a rejected configuration has, that it failed."""
    if trial_id is None:
        return Past({}, "failed")
    known = ledger.standing([trial_id]).get(trial_id)
    if known is None:
        return Past({})
    row = ledger.trial(trial_id)
    epochs = {
        one["epoch"] + 1: math.nan if one["value"] is None else one["value"]
        for one in row["epochs"]
        if one["name"] == metric
    }
    if known.state is State.FINISHED:
        value = next((one["value"] for one in row["results"] if one["name"] == metric), None)
        return Past(epochs, "finished", value)
    if is_stopped_early(known.state, row["attempts"][-1]["cause"] if row["attempts"] else None):
        return Past(epochs, "stopped_early")
    return Past(epochs, "failed" if known.state in ENDED - {State.CANCELLED} else "open")


def judged(search: Search, done: EpochDone) -> float:
    """The metric after an epoch.

    Raises:
        UserError: the workload does not measure it.
    """
    value = done.metrics.get(search.metric)
    if value is None:
        known = ", ".join(sorted(done.metrics))
        raise UserError(f"search.metric {search.metric!r} is not measured after an epoch; there are: {known}")
    return value


def trial_id_of(arm: Arm | None) -> str | None:
    """The one trial of an arm of a search."""
    return None if arm is None else arm.trials()[0].trial_id


def references(plan: Plan) -> set[str | None]:
    """The trials of the control and the base: trained to the end whatever they do."""
    return {trial_id_of(arm) for arm in plan.arms if not arm.settings}


def search_of(plan: Plan) -> Search:
    """The plan's search."""
    if plan.sweep.search is None:
        raise ValueError(f"the sweep {plan.sweep.name!r} has no search")
    return plan.sweep.search


def is_stopped_early(state: State, cause: str | None) -> bool:
    """Whether a trial was ended by a search's scheduler, from its state and its newest attempt's cause."""
    return state is State.CANCELLED and cause == Cause.STOPPED_EARLY


def stopped_early(ledger: Ledger, sweep: str) -> frozenset[str]:
    """The trials of a sweep that a search's scheduler ended."""
    return frozenset(one.trial_id for one in ledger.trials_of(sweep) if is_stopped_early(one.state, one.cause))


def best_of(plan: Plan, ledger: Ledger) -> list[dict[str, Any]]:
    """The settings of the best finished configurations, the best first, as many as the search wants confirmed.

    What was drawn is taken as it is recorded: `plan` may be older.
    """
    search = search_of(plan)
    found = []
    for one in ledger.trials_of(plan.sweep.name):
        if one.state is State.FINISHED and not one.is_control:
            results = ledger.trial(one.trial_id)["results"]
            value = next((row["value"] for row in results if row["name"] == search.metric), None)
            if value is not None:
                found.append((value, dict(one.settings)))
    ranked = sorted(found, key=lambda pair: pair[0], reverse=search.mode == "max")
    return [settings for _, settings in ranked[: search.confirm]]
