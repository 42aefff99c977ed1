"""Drives a run: executor to ledger, the lease renewed, the budget watched, the mirror caught up.

Events are written in batches from a thread of their own, so that a killed driver loses less than two seconds of what
was told. A finished trial's checkpoints are deleted, but only when its result is safe in the ledger.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import LedgerError, LedgerUnavailable, LongrangeError
from orchestrator.events import Ended, Event
from orchestrator.execution.base import Attempt, Executor, nothing_further
from orchestrator.failures import STOPPED_EARLY, Cause
from orchestrator.meter import Meter
from orchestrator.plan import Plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import State
from orchestrator.search.run import Searching

LEASE_SECONDS = 60.0
FLUSH_SECONDS = 0.25
MIRROR_SECONDS = 5.0
LAST_SECONDS = 120.0  # how long the end of a run waits for a ledger that does not answer


class Observer(Protocol):
    """Somebody who watches a run: the progress display, a test."""

    def planned(self, plan: Plan, todo: int, reused: int) -> None:
        """The run has `todo` trials; `reused` are done already. A search says so again as its plan grows."""

    def event(self, event: Event) -> None:
        """Something happened."""


class Mirror(Protocol):
    """A copy of the ledger that may lag behind; losing it loses nothing."""

    def catch_up(self) -> object:
        """Copy what the ledger has and the copy has not."""


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        ran: trials of this run by final state; those that a search stopped are `stopped early`.
        reused: trials that were done before.
        elsewhere: trials that another driver is running.
        failed_before: trials that ended without a result in an earlier run, and were not tried again.
        left: trials that did not start (cancelled, or the budget was spent).
        stopped_by: the budget or signal that ended the run early.
        population: of population based training: what each decision found and did.
    """

    ran: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    elsewhere: int = 0
    failed_before: int = 0
    left: int = 0
    stopped_by: str | None = None
    seconds: float = 0.0
    mirror_error: str | None = None
    population: list[dict[str, Any]] | None = None

    @property
    def failed(self) -> int:
        """Trials of this run that ended without a result by a fault."""
        return self.ran.get(State.FAILED, 0) + self.ran.get(State.INFEASIBLE, 0)

    @property
    def unfinished(self) -> int:
        """Trials of this run that a resume goes on with."""
        return self.left + self.ran.get(State.CANCELLED, 0)


class Driver:
    """One run: events from the executor to the ledger, the lease, the budget, the mirror."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        executor: Executor,
        owner: str,
        observer: Observer,
        meter: Meter,
        mirror: Mirror | None,
        search: Searching | None,
        clears: Path | None,
        asked_to_stop: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._executor = executor
        self._owner = owner
        self._observer = observer
        self._meter = meter
        self._mirror = mirror
        self._search = search
        self._clears = clears
        self._asked_to_stop = asked_to_stop
        self._stopped_by: str | None = None
        self._buffer: list[Event] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._written = threading.Event()
        self._error: Exception | None = None
        self._mirror_error: str | None = None

    def drive(self, attempts: Sequence[Attempt], outcome: Outcome) -> None:
        writer = threading.Thread(target=self._keep_writing, name="ledger", daemon=True)
        mirror = threading.Thread(target=self._keep_mirroring, name="mirror", daemon=True)
        self._meter.start(attempts)
        writer.start()
        if self._mirror is not None:
            mirror.start()
        try:
            for event in self._executor.run(attempts, self._search.further if self._search else nothing_further):
                self._take(event, outcome)
        finally:
            self._over.set()
            writer.join()
            self._written.set()  # only then: the mirror's last round copies the last rows too
            if self._mirror is not None:
                mirror.join()
        outcome.mirror_error = self._mirror_error
        outcome.stopped_by = self._stopped_by
        if self._error is not None:
            raise self._error

    def _take(self, event: Event, outcome: Outcome) -> None:
        with self._lock:
            self._buffer.append(event)
            spent = self._meter.spent_by(event)
        self._observer.event(event)
        if isinstance(event, Ended):
            state = event.state if event.cause is not Cause.STOPPED_EARLY else STOPPED_EARLY
            outcome.ran[state] = outcome.ran.get(state, 0) + 1
        self._stop(spent)
        for decided in self._search.event(event) if self._search is not None else ():
            self._take(decided, outcome)

    def _stop(self, why: str | None) -> None:
        """End the run early, keeping what is done, if there is a reason; the first one counts."""
        if why is not None and self._stopped_by is None:
            self._stopped_by = why
            self._executor.cancel()

    def _reason_to_stop(self) -> str | None:
        """What no event tells: somebody asks, or a budget is spent by trials that tell nothing for long."""
        if self._asked_to_stop():
            return "longrange cancel"
        with self._lock:
            return self._meter.reached()

    def _keep_writing(self) -> None:
        try:
            self._write_until_over()
        except Exception as error:  # a thread's end: nobody else would hear of it, and nothing more would be recorded
            self._error = error
            self._executor.cancel()

    def _write_until_over(self) -> None:
        """Flush events and renew the lease until the run is over; the ledger's own trouble stops the run."""
        renew_at = time.monotonic() + LEASE_SECONDS / 4
        give_up_at = math.inf
        while True:
            over = self._over.wait(FLUSH_SECONDS)
            if over:  # a server that restarts just now comes back: the last results wait for it
                give_up_at = min(give_up_at, time.monotonic() + LAST_SECONDS)
            if not over:
                self._stop(self._reason_to_stop())
            try:
                self._flush()
                if time.monotonic() >= renew_at:
                    self._ledger.renew(self._owner, LEASE_SECONDS, time.time())
                    renew_at = time.monotonic() + LEASE_SECONDS / 4
            except LedgerError as error:
                if not isinstance(error, LedgerUnavailable) or time.monotonic() >= give_up_at:
                    self._error = error
                    self._executor.cancel()
                    return
                if over:
                    time.sleep(FLUSH_SECONDS)
                continue
            if over:
                return

    def _flush(self) -> None:
        with self._lock:
            batch = self._buffer[:]
        refused = self._ledger.apply(batch, self._owner)
        with self._lock:
            del self._buffer[: len(batch)]
        if refused:  # this process slept, or its clock jumped, for longer than its lease
            self._stop(f"another driver has taken over {len(refused)} of its trials")
        ended = {event.trial_id for event in batch if isinstance(event, Ended) and _is_over(event)}
        if self._clears is not None and ended - refused:
            discard(self._clears, ended - refused)

    def _keep_mirroring(self) -> None:
        """Copy in the background; a mirror that cannot be reached is caught up with later."""
        while True:
            over = self._written.wait(MIRROR_SECONDS)
            try:
                if self._mirror is not None:
                    self._mirror.catch_up()
                self._mirror_error = None
            except LongrangeError as error:
                self._mirror_error = str(error)
            if over:
                return


def _is_over(event: Ended) -> bool:
    """Whether nobody goes on from the trial's checkpoints."""
    return event.state == State.FINISHED or event.cause is Cause.STOPPED_EARLY


def discard(checkpoints: Path, trial_ids: Iterable[str]) -> None:
    """Delete the folders of trials whose result is safe; what cannot be deleted now is tried again by the next run."""
    if checkpoints.is_dir():
        for name in {path.name for path in checkpoints.iterdir()}.intersection(trial_ids):
            shutil.rmtree(checkpoints / name, ignore_errors=True)
