"""A population while it trains: its members pause at the same epochs, then the worst give way to changed copies.

The ledger is the only memory, as of every search: decisions are a function of the search's seed and of what it says, so
a driver that goes on after another's death decides the same again. Between two decisions a member's trial is paused: no
worker holds it, this driver does. A trial whose place was taken ends as stopped early; the message names its successor.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started
from orchestrator.execution.base import Attempt
from orchestrator.execution.worker import HISTORY_FILE, History
from orchestrator.failures import Cause
from orchestrator.plan import Plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import State
from orchestrator.search.planning import Setting, arm_of, epochs_of
from orchestrator.search.population import Move, decisions, first_population, settings_at
from orchestrator.search.run import Admit, Replan, judged, past_of, references, search_of, trial_id_of
from orchestrator.trial import canonical_json
from workloads.lineage import hand_on
from workloads.progress import EpochDone


@dataclass
class _Known:
    """What is known of a member's trial.

    Attributes:
        scores: the metric after so many epochs.
        attempt: the running one, or the next; None if this driver may not run it.
        is_reference: the control or the base, which train to their end whatever they do.
    """

    scores: dict[int, float]
    ended: bool
    attempt: Attempt | None
    is_reference: bool
    running: bool = False


class PopulationRun:
    """One driver's part of population based training. See `search.run.Searching`.

    Args:
        plan: with what was drawn before.
        replan: the plan with more.
        ledger: knows what became of the members.
        admit: makes an arm this driver's.
    """

    def __init__(self, plan: Plan, *, replan: Replan, ledger: Ledger, admit: Admit) -> None:
        self._plan, self._replan, self._ledger, self._admit = plan, replan, ledger, admit
        self._search = search_of(plan)
        self._epochs = epochs_of(plan)
        self._epoch = self._search.interval  # after which the next decision is due
        self._members: list[Setting] = []
        self._ids: list[str | None] = []  # of the members' trials; two members may be one; None: it cannot exist
        self._trials: dict[str | None, _Known] = {}
        self._claimed: dict[str, Attempt] = {}
        self._ready: list[Attempt] = []
        self._decided: list[Event] = []
        self._over = False
        self._lock = threading.RLock()
        self.admitted = 0
        self.generations: list[dict[str, Any]] = []

    @property
    def left(self) -> int:
        """Members that do not exist yet."""
        return self._search.configurations - len(self._members)

    def watched(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Those of the attempts that run at once: the references, and members up to the next decision."""
        with self._lock:
            self._claimed = {one.trial_id: one for one in attempts}
            kept = references(self._plan)
            self._enter(first_population(self._search, self._epochs))
            self._advance()
            for trial_id in self._claimed.keys() - kept - set(self._ids):
                known = self._trials.setdefault(trial_id, _Known({}, False, self._claimed[trial_id], False))
                self._end(trial_id, known, "pbt replaced it before its driver was stopped")
            return [one for one in attempts if one.trial_id in kept] + self._take_ready()

    def further(self) -> list[Attempt] | None:
        """See `execution.base.Further`."""
        with self._lock:
            if self._ready or not (self._over or all(self._trials[one].ended for one in self._ids)):
                return self._take_ready()
            return None

    def event(self, event: Event) -> Sequence[Event]:
        """Hear what happens to a member; when all have paused, decide."""
        with self._lock:
            known = self._trials.get(event.trial_id)
            if known is not None:
                self._hear(event, known)
                self._advance()
            decided, self._decided = self._decided, []
            return decided

    def _hear(self, event: Event, known: _Known) -> None:
        if isinstance(event, Progressed) and isinstance(event.progress, EpochDone):
            known.scores[event.progress.epoch + 1] = judged(self._search, event.progress)
        elif isinstance(event, Ended):
            known.running = False
            known.ended = event.cause is not Cause.STOPPED
            self._over |= not known.ended  # the whole run is being stopped; it goes on when it is resumed
        elif isinstance(event, Paused):
            known.running = False
        if known.attempt is not None:
            known.attempt = _following(known.attempt, event)

    def _advance(self) -> None:
        """Decide as long as all members have come to where a decision is due, then let them go on."""
        while not self._over and self._epoch < self._epochs and all(self._arrived(one) for one in self._ids):
            self._decide()
        goal = self._epoch if self._epoch < self._epochs else None
        for trial_id in dict.fromkeys(self._ids):
            known = self._trials[trial_id]
            if self._over or known.running or known.ended or known.is_reference or goal in known.scores:
                continue
            if known.attempt is None:
                self._over = True  # another driver trains this population
                return
            known.running = True
            self._ready.append(replace(known.attempt, pause_after=goal))

    def _arrived(self, trial_id: str | None) -> bool:
        known = self._trials[trial_id]
        return known.ended or (self._epoch in known.scores and (known.is_reference or not known.running))

    def _decide(self) -> None:
        epoch, before, members = self._epoch, self._ids, list(self._members)
        scores = [self._trials[one].scores.get(epoch) for one in before]
        moves = decisions(self._search, members, scores, epoch)
        self._epoch += self._search.interval
        for move in moves:
            members[move.member] = move.setting
        told = [self._told(number, scores[number]) for number in range(len(members))]
        self._enter(members)
        for move in moves:
            self._replace(move, before, epoch, scores)
            told[move.member] |= {"replaced_by": self._ids[move.member], "from_checkpoint_of": before[move.parent]}
        self.generations.append({"after_epochs": epoch, "members": told})

    def _told(self, number: int, score: float | None) -> dict[str, Any]:
        settings = settings_at(self._members[number], self._epoch - self._search.interval - 1)
        value = score if score is not None and math.isfinite(score) else None  # JSON has no NaN
        return {"trial_id": self._ids[number], self._search.metric: value, "settings": settings}

    def _enter(self, members: Sequence[Setting]) -> None:
        """These are the members from now on; those that nobody planned before are planned and claimed."""
        drawn = list((self._plan.search or {})["drawn"])
        named = {canonical_json(dict(setting)) for setting in drawn}
        news = {key: one for one in members if (key := canonical_json(dict(one))) not in named}
        if news:
            self._plan = self._replan([*drawn, *news.values()])
        ids = []
        for setting in members:
            arm = arm_of(self._plan, setting)
            trial_id = trial_id_of(arm)
            if trial_id not in self._trials:
                attempt = self._claimed.get(trial_id or "")
                if attempt is None and canonical_json(dict(setting)) in news:
                    attempt = self._admit(self._plan, arm)
                    self.admitted += attempt is not None
                past = past_of(self._ledger, trial_id, self._search.metric)
                is_reference = trial_id in references(self._plan)
                self._trials[trial_id] = _Known(dict(past.epochs), past.state != "open", attempt, is_reference)
            ids.append(trial_id)
        self._members, self._ids = list(members), ids

    def _replace(self, move: Move, before: Sequence[str | None], epoch: int, scores: Sequence[float | None]) -> None:
        """The new member gets its parent's checkpoint, and the old one's trial ends unless another member is it too."""
        parent, child, old = before[move.parent], self._ids[move.member], before[move.member]
        taken = self._trials[child].attempt
        if taken is not None and parent is not None and child != parent:
            folder = taken.checkpoint_dir
            if not any(folder.glob("step-*")):
                with suppress(OSError):  # it then trains these epochs itself, or says why it cannot
                    source = folder.with_name(parent)
                    History(source / HISTORY_FILE).hand_on(History(folder / HISTORY_FILE), epoch)
                    hand_on(source, folder, epoch)
        if old is not None and old not in self._ids:
            value = "no value" if scores[move.member] is None else f"{scores[move.member]:g}"
            found = f"pbt replaced it after {epoch} epochs at {self._search.metric} {value}"
            self._end(old, self._trials[old], f"{found} by {child}, which goes on from {parent}")

    def _end(self, trial_id: str, known: _Known, message: str) -> None:
        if known.ended or known.is_reference or known.attempt is None:
            return
        known.ended = True
        last = known.attempt.number - 1  # the paused one
        self._decided.append(Ended(trial_id, last, time.time(), State.CANCELLED, None, Cause.STOPPED_EARLY, message))

    def _take_ready(self) -> list[Attempt]:
        ready, self._ready = self._ready, []
        return ready


def _following(attempt: Attempt, event: Event) -> Attempt:
    """The attempt at a trial that follows, if one does, from what is heard of the present one."""
    if isinstance(event, Started):
        return replace(attempt, number=event.attempt, micro_batch=event.micro_batch)
    if isinstance(event, AttemptFailed):
        earlier: Mapping[Cause, int] = attempt.earlier
        return replace(attempt, earlier={**earlier, event.cause: earlier.get(event.cause, 0) + 1})
    return replace(attempt, number=event.attempt + 1) if isinstance(event, Paused) else attempt
