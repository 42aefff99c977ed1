"""What every executor promises, and the events it yields. Records consume events; neither side imports the other.

An executor takes attempts that are ready to run and yields events, in order per trial, until each trial has ended:
`Started`, any number of `Progressed`, possibly `AttemptFailed` followed by another `Started`, then exactly one
`Ended`, or one `Paused` where the attempt says so. Executors never touch the ledger, decide retries through
`failures.decide` only, and run `worker.run_attempt` whatever the engine, so that the same trial gives the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from orchestrator.events import AttemptFailed, Ended, Event
from orchestrator.failures import Cause, decide


@dataclass(frozen=True)
class Resources:
    """What one trial needs. `workers` > 1 trains it over several devices."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1
    data_workers: int | None = None

    @property
    def loading_threads(self) -> int:
        """Threads that read clips ahead of the training; 0 reads them in place.

        Not given, a trial reads ahead with as many as it has cores, but not on a single core, where reading ahead only
        takes time from the training.
        """
        if self.data_workers is not None:
            return self.data_workers
        return max(1, int(self.cpus)) if self.gpus or self.cpus >= 2 else 0


@dataclass(frozen=True)
class Attempt:
    """One try at a trial, ready to travel to a worker.

    Attributes:
        trial_id: what the plan calls it; the worker recomputes it from `content` and refuses a mismatch.
        content: the fully resolved trial as plain JSON values.
        number: 1-based.
        micro_batch: the bound after out-of-memory decisions.
        least_clips: what the bound never falls below: the trial's block cannot be trained on fewer.
        earlier: how often each cause ended earlier attempts.
        checkpoint_dir: this trial's own folder, shared by its attempts.
        cache_dir: shared by all trials.
        hang_seconds: without any progress for so long, the worker's process is ended; None waits for ever. Inline
            trials are not watched.
        stop_file: when it exists, checkpoint and stop; how a cancel reaches workers on other machines.
        early_file: the same for this trial alone, by a search's scheduler; holds the reason.
        pause_after: the attempt ends with `Paused` when so many epochs of the trial are trained; None: with the trial.
    """

    trial_id: str
    content: Mapping[str, Any]
    number: int
    checkpoint_dir: Path
    cache_dir: Path
    resources: Resources = Resources()
    micro_batch: int | None = None
    least_clips: int = 1
    earlier: Mapping[Cause, int] = field(default_factory=dict)
    estimated_seconds: float | None = None
    estimated_macs: float | None = None
    hang_seconds: float | None = None
    stop_file: Path | None = None
    early_file: Path | None = None
    pause_after: int | None = None


# Called by an executor that has room: attempts to run besides those it was given, none at the moment, or None: no
# more will come.
Further = Callable[[], Sequence[Attempt] | None]


def nothing_further() -> None:
    """What was given is all."""


class StopFile:
    """Whether a stop file exists, asked at most once a second: it may lie on network storage."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._ask_at = 0.0
        self._found = False

    def __call__(self) -> bool:
        if self._path is not None and not self._found and time.monotonic() >= self._ask_at:
            self._found = self._path.exists()
            self._ask_at = time.monotonic() + 1.0
        return self._found

    def ask_again(self) -> None:
        """The next call looks, however soon it comes."""
        self._ask_at = 0.0


class Executor(Protocol):
    """Runs trials somewhere. Use as a context manager: leaving it releases everything it started."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, attempts: Sequence[Attempt], further: Further = nothing_further) -> Iterator[Event]:
        """Yield the events of all trials, those of `further` too; returns when every trial has ended.

        After `cancel`, running trials checkpoint and end as cancelled, waiting ones yield nothing.
        """

    def cancel(self) -> None:
        """Stop soon. Safe to call from another thread or a signal handler."""


def follow_up(attempt: Attempt, failed: AttemptFailed) -> tuple[list[Event], Attempt | None]:
    """What the failure table says after a failed attempt: the events to yield, and the next attempt if there is one."""
    decision = decide(
        failed.cause,
        batch=-(-int(attempt.content["recipe"]["batch"]) // attempt.resources.workers),  # what one process had at once
        micro_batch=attempt.micro_batch,
        earlier=dict(attempt.earlier),
        least_clips=attempt.least_clips,
    )
    events: list[Event] = [replace(failed, retried=decision.retry)]
    if not decision.retry:
        ended = Ended(failed.trial_id, failed.attempt, failed.at, decision.state, None, failed.cause, failed.message)
        return [*events, ended], None
    earlier = {**attempt.earlier, failed.cause: attempt.earlier.get(failed.cause, 0) + 1}
    micro_batch = decision.micro_batch or attempt.micro_batch
    return events, replace(attempt, number=attempt.number + 1, earlier=earlier, micro_batch=micro_batch)
