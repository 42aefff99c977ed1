"""From events to rows: pure, so that what a batch of events means can be read and tested without a database.

A `Fold` starts from what the ledger knows of the trials in a batch, takes their events in order, and ends holding the
rows to write. Events that the ledger already has, or that a driver sends who has lost the trial, change nothing.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started
from orchestrator.failures import Cause
from orchestrator.records.schema import ENDED, IMMUTABLE, TRANSITIONS, State, pack_names
from orchestrator.trial import ID_DIGITS, canonical_json
from workloads.progress import CheckpointWritten, EpochDone, Finished, Predictions

Row = dict[str, Any]
MESSAGE_LIMIT = 100_000  # characters of one message or traceback
PAUSED = "paused"  # the outcome of an attempt that was to go no further; no failure, so it has no cause


@dataclass
class Fold:
    """The meaning of a batch of events, as rows.

    Attributes:
        owner: the driver that sends the events.
        trials: trial_id -> its row; changed in place.
        attempts: (trial_id, number) -> its row, for attempts the ledger has; changed in place.
    """

    owner: str
    trials: dict[str, Row]
    attempts: dict[tuple[str, int], Row]
    changed_trials: set[str] = field(default_factory=set)
    changed_attempts: set[tuple[str, int]] = field(default_factory=set)
    environments: dict[str, Row] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)  # trial_id -> epoch from which old metrics are void
    epochs: dict[tuple[str, int], EpochDone] = field(default_factory=dict)
    checkpoints: dict[str, Row] = field(default_factory=dict)
    results: dict[str, Finished] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def add(self, event: Event) -> None:
        """Take one event.

        Raises:
            ValueError: the trial was never planned, or the event's state is not a final one.
        """
        trial = self.trials.get(event.trial_id)
        if trial is None:
            raise ValueError(f"event of trial {event.trial_id}, which no recorded plan holds; record the plan first")
        if State(trial["state"]) in ENDED:
            return
        if trial["owner"] != self.owner:
            self.refused.add(event.trial_id)
            return
        attempt = self.attempts.get((event.trial_id, event.attempt))
        if attempt is not None and attempt["ended_at"] is not None and not _ends_paused(event, attempt):
            return
        match event:
            case Started():
                self._started(event, trial)
            case Progressed():
                self._progressed(event, trial)
            case AttemptFailed():
                self._failed(event, trial)
            case Paused():
                self._begin(event, trial).update(ended_at=event.at, outcome=PAUSED)
            case Ended():
                self._ended(event, trial)

    def _started(self, event: Started, trial: Row) -> None:
        environment_id = self._environment(event.environment) if event.environment else None
        attempt = self._begin(event, trial)
        attempt.update(
            host=event.host,
            device=event.device,
            micro_batch=event.micro_batch,
            environment_id=environment_id,
        )

    def _progressed(self, event: Progressed, trial: Row) -> None:
        progress = event.progress
        if isinstance(progress, CheckpointWritten):
            row = {"trial_id": event.trial_id, "epoch": progress.epoch, "path": str(progress.path)}
            self.checkpoints[event.trial_id] = row
            return
        attempt = self._begin(event, trial)
        if attempt["first_epoch"] is None and not event.replayed:
            attempt["first_epoch"] = progress.epoch
            self._void(event, progress.epoch)
        self.epochs[event.trial_id, progress.epoch] = progress

    def _void(self, event: Progressed, epoch: int) -> None:
        """Forget what earlier attempts wrote from `epoch` on: this attempt took the training up there."""
        if event.attempt == 1:
            return
        self.restarts[event.trial_id] = min(epoch, self.restarts.get(event.trial_id, epoch))
        for key in [key for key in self.epochs if key[0] == event.trial_id and key[1] >= epoch]:
            del self.epochs[key]

    def _failed(self, event: AttemptFailed, trial: Row) -> None:
        attempt = self._begin(event, trial)  # a worker may die before it could say that it began
        attempt.update(
            cause=event.cause.value, message=event.message[:MESSAGE_LIMIT], traceback=event.traceback[:MESSAGE_LIMIT]
        )
        if event.retried:
            attempt.update(ended_at=event.at, outcome="retried")

    def _ended(self, event: Ended, trial: Row) -> None:
        state = State(event.state)
        if state not in ENDED or (state is State.FINISHED) != (event.result is not None):
            raise ValueError(
                f"trial {event.trial_id} ended as {state} with result {event.result!r}; a finished trial "
                "has a result, others have none"
            )
        if state not in TRANSITIONS[State(trial["state"])]:
            self._begin(event, trial)
        key = (event.trial_id, event.attempt)
        attempt = self.attempts.get(key)
        if attempt is not None:
            self.changed_attempts.add(key)
            attempt.update(ended_at=attempt["ended_at"] or event.at, outcome=state.value)
            attempt["cause"] = attempt["cause"] or (event.cause and event.cause.value)
            attempt["message"] = attempt["message"] or event.message[:MESSAGE_LIMIT] or None
        self.changed_trials.add(event.trial_id)
        trial.update(state=state.value, owner=None, ended_at=event.at)
        if event.result is not None:
            trial["notes"] = list(event.result.notes)
            self.results[event.trial_id] = event.result
        if state in IMMUTABLE:
            self.checkpoints.pop(event.trial_id, None)

    def _begin(self, event: Event, trial: Row) -> Row:
        """The event's open attempt, made if the ledger has none; the trial runs from now on."""
        key = (event.trial_id, event.attempt)
        if key not in self.attempts:
            self.attempts[key] = new_attempt(event.trial_id, event.attempt, self.owner, event.at)
        if State(trial["state"]) is not State.RUNNING:
            trial.update(state=State.RUNNING.value, started_at=trial["started_at"] or event.at)
            self.changed_trials.add(event.trial_id)
        self.changed_attempts.add(key)
        return self.attempts[key]

    def _environment(self, facts: Mapping[str, Any]) -> str:
        key = digest(canonical_json(dict(facts)).encode())
        self.environments.setdefault(key, {"environment_id": key, "facts": dict(facts)})
        return key


def _ends_paused(event: Event, attempt: Row) -> bool:
    """Whether the trial ends although none of its attempts runs: its last one was paused, or lost after that."""
    return isinstance(event, Ended) and attempt["outcome"] in (PAUSED, Cause.LOST)


def new_attempt(trial_id: str, number: int, owner: str, at: float) -> Row:
    """The row of an attempt that has just begun."""
    row: Row = dict.fromkeys(
        ("ended_at", "outcome", "cause", "message", "traceback", "micro_batch", "first_epoch", "host", "device")
    )
    return row | {"trial_id": trial_id, "number": number, "owner": owner, "started_at": at, "environment_id": None}


def finite(value: float) -> float | None:
    """The value, or None for NaN and infinity, which neither SQL nor JSON can hold portably."""
    number = float(value)
    return number if math.isfinite(number) else None


def epoch_rows(trial_id: str, done: EpochDone) -> list[Row]:
    """One row per metric of an epoch."""
    return [
        {"trial_id": trial_id, "name": name, "epoch": done.epoch, "value": finite(value), "seconds": done.seconds}
        for name, value in done.metrics.items()
    ]


def clip_set_row(predictions: Predictions) -> Row:
    """The clips of an evaluation; equal lists have equal ids, so that a thousand trials store them once."""
    classes = int(predictions.scores.shape[1])
    names = pack_names(predictions.clips, predictions.class_names)
    labels = np.ascontiguousarray(predictions.labels, dtype="<i4").tobytes()
    key = digest(canonical_json([list(predictions.clips), classes]).encode() + labels)
    return {"clip_set_id": key, "names": names, "labels": labels, "classes": classes}


def prediction_row(trial_id: str, clip_set_id: str, predictions: Predictions) -> Row:
    """The scores of one trial on its clips, `[n, classes]` as compressed float16, and which are right."""
    correct = (predictions.scores.argmax(axis=1) == predictions.labels).astype(np.uint8)
    scores = np.ascontiguousarray(predictions.scores, dtype="<f2").tobytes()
    packed = {"correct": correct.tobytes(), "scores": zlib.compress(scores, level=1)}
    return {"trial_id": trial_id, "clip_set_id": clip_set_id, **packed}


def digest(content: bytes) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:ID_DIGITS]
