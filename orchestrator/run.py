"""Execution meets records: takes a plan's open trials, runs them, and writes what happens into the ledger.

The driver claims trials under a lease, so that two drivers on one sweep never run the same trial, and writes events
in batches from its own thread, so that a killed driver loses less than two seconds of what was told. It can be killed
at any moment: `longrange resume` claims what is left, and trials continue from their checkpoints. A finished trial's
checkpoints are deleted, but only when its result is safe in the ledger.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import LedgerError, LedgerUnavailable, LongrangeError, UserError
from orchestrator.events import Ended, Event
from orchestrator.execution.base import Attempt, Executor, Resources, nothing_further
from orchestrator.failures import STOPPED_EARLY, Cause
from orchestrator.fingerprint import code_fingerprint
from orchestrator.meter import Meter
from orchestrator.plan import Arm, Plan
from orchestrator.planned import planned_sweep
from orchestrator.provenance import driver as driver_facts
from orchestrator.provenance import working_diff
from orchestrator.records.ledger import Ledger
from orchestrator.records.owners import new_owner, release_dead_owners
from orchestrator.records.schema import ENDED, IMMUTABLE, State
from orchestrator.records.values import Claim
from orchestrator.search.population_run import PopulationRun
from orchestrator.search.run import Replan, Searching, SearchRun, stopped_early
from orchestrator.trial import Trial

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
        left: trials that did not start (cancelled, or the budget was spent).
        stopped_by: the budget or signal that ended the run early.
        population: of population based training: what each decision found and did.
    """

    ran: dict[str, int] = field(default_factory=dict)
    reused: int = 0
    elsewhere: int = 0
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


@dataclass(frozen=True)
class Split:
    """A plan's trials by what must happen to them."""

    todo: tuple[tuple[Arm, Trial], ...]
    done: tuple[str, ...]
    changed: tuple[str, ...]  # done, but under other code or data
    ended: tuple[str, ...]  # failed or infeasible before

    @property
    def reused(self) -> int:
        """How many trials are done already."""
        return len(self.done)


def split(plan: Plan, ledger: Ledger, fingerprints: Mapping[str, str]) -> Split:
    """Which trials of a plan are left to do.

    Args:
        plan: the plan.
        ledger: what is known of its trials.
        fingerprints: arm_id -> fingerprint of the code that would run it now.
    """
    ordered = plan.ordered()
    standing = ledger.standing(trial.trial_id for _, trial in ordered)
    stopped = stopped_early(ledger, plan.sweep.name) if plan.sweep.search is not None else frozenset()
    todo, done, changed, ended = [], [], [], []
    for arm, trial in ordered:
        known = standing.get(trial.trial_id)
        if trial.trial_id in stopped:
            done.append(trial.trial_id)
        elif known is None or known.state not in ENDED or known.state is State.CANCELLED:
            todo.append((arm, trial))
        elif known.state not in IMMUTABLE:
            ended.append(trial.trial_id)
        else:
            done.append(trial.trial_id)
            now = (fingerprints.get(arm.arm_id), arm.spec.workload.fingerprint())
            if now != (known.code_fingerprint, known.data_fingerprint):
                changed.append(trial.trial_id)
    return Split(tuple(todo), tuple(done), tuple(changed), tuple(ended))


def fingerprints(plan: Plan) -> dict[str, str]:
    """arm_id -> hash of the sources that can change its result."""
    return {arm.arm_id: code_fingerprint(arm.spec) for arm in plan.arms}


def run_plan(
    plan: Plan,
    *,
    ledger: Ledger,
    executor: Executor,
    checkpoints: Path,
    cache: Path,
    observer: Observer,
    mirror: Mirror | None = None,
    retry_failed: bool = False,
    reuse_changed: bool = False,
    keep_checkpoints: bool = False,
    asked_to_stop: Callable[[], bool] = lambda: False,
    replan: Replan | None = None,
) -> Outcome:
    """Run what is left of a plan.

    Args:
        plan: what to run.
        ledger: where everything is written.
        executor: runs the trials.
        checkpoints: holds one folder per trial; those of finished trials are deleted.
        cache: shared by all trials.
        observer: is told every event.
        mirror: is caught up in the background.
        retry_failed: run failed and infeasible trials again.
        reuse_changed: keep finished trials that ran under other code or data.
        keep_checkpoints: delete none.
        asked_to_stop: polled a few times a second; true ends the run as a budget does.
        replan: of a search: its plan with more configurations (`planner.search_planner`).

    Raises:
        UserError: finished trials ran under other code or data, and nobody said what to do about it.
        LedgerError: the ledger cannot be written any more.
    """
    started = time.monotonic()
    code = fingerprints(plan)
    parts = split(plan, ledger, code)
    if parts.changed and not reuse_changed:
        raise UserError(
            f"{len(parts.changed)} finished trials of {plan.sweep.name!r} ran under other code or data than is here "
            "now; say `--changed keep` to reuse them as they are, or give another --out to run everything again"
        )
    if retry_failed and ledger.reset(parts.ended):
        parts = split(plan, ledger, code)
    ledger.record_plan(planned_sweep(plan, code), time.time())
    owner = new_owner()
    ledger.introduce(owner, driver_facts())
    if (diff := working_diff()) is not None:
        ledger.keep_diff(*diff)
    release_dead_owners(ledger, plan.sweep.name)

    def claimed(pairs: Sequence[tuple[Arm, Trial]]) -> list[Attempt]:
        claims = ledger.claim([trial.trial_id for _, trial in pairs], owner, LEASE_SECONDS, time.time())
        mine = {claim.trial_id: claim for claim in claims}
        return [
            _attempt(arm, trial, mine[trial.trial_id], checkpoints, cache)
            for arm, trial in pairs
            if trial.trial_id in mine
        ]

    mine = attempts = claimed(parts.todo)
    if not keep_checkpoints:
        discard(checkpoints, parts.done)  # a driver may have died between a result and its clearing up
    meter = Meter(plan.sweep.budget)
    search: Searching | None = None
    if replan is not None and plan.sweep.search is not None:

        def admit(grown: Plan, arm: Arm | None) -> Attempt | None:
            ledger.record_plan(planned_sweep(grown, fingerprints(grown)), time.time())
            left = [] if arm is None else [pair for pair in split(grown, ledger, {}).todo if pair[0] is arm]
            admitted = claimed(left)
            meter.expect(admitted)
            observer.planned(grown, len(grown.ordered()) - parts.reused, parts.reused)
            return next(iter(admitted), None)

        kind = PopulationRun if plan.sweep.search.scheduler == "pbt" else SearchRun
        meter.expect(mine)
        search = kind(plan, replan=replan, ledger=ledger, admit=admit)
        attempts = search.watched(mine)
    if search is None or not search.admitted:
        observer.planned(plan, len(mine), parts.reused)
    outcome = Outcome(reused=parts.reused, elsewhere=len(parts.todo) - len(mine))
    retained = None if keep_checkpoints else checkpoints
    driver = _Driver(
        ledger, executor, owner, observer, meter, mirror, search, clears=retained, asked_to_stop=asked_to_stop
    )
    try:
        driver.drive(attempts, outcome)
    finally:
        ledger.release(owner)
    if isinstance(search, PopulationRun):
        outcome.population = search.generations
    begun = len(mine) + (search.admitted + search.left if search is not None else 0)
    outcome.left = begun - sum(outcome.ran.values())
    outcome.seconds = time.monotonic() - started
    return outcome


def discard(checkpoints: Path, trial_ids: Iterable[str]) -> None:
    """Delete the folders of trials whose result is safe; what cannot be deleted now is tried again by the next run."""
    if checkpoints.is_dir():
        for name in {path.name for path in checkpoints.iterdir()}.intersection(trial_ids):
            shutil.rmtree(checkpoints / name, ignore_errors=True)


def _attempt(arm: Arm, trial: Trial, claim: Claim, checkpoints: Path, cache: Path) -> Attempt:
    rule = arm.resources
    return Attempt(
        trial_id=trial.trial_id,
        content=trial.content,
        number=claim.attempt,
        checkpoint_dir=checkpoints / trial.trial_id,
        cache_dir=cache,
        resources=Resources(rule.cpus, rule.gpus, rule.workers, rule.data_workers),
        micro_batch=claim.micro_batch,
        earlier=claim.earlier,
        estimated_seconds=arm.price.seconds,
        estimated_macs=arm.price.macs,
        hang_seconds=rule.hang_minutes * 60 if rule.hang_minutes else None,
    )


def _is_over(event: Ended) -> bool:
    """Whether nobody goes on from the trial's checkpoints."""
    return event.state == State.FINISHED or event.cause is Cause.STOPPED_EARLY


class _Driver:
    """One run: events from the executor to the ledger, the lease, the budget, the mirror."""

    def __init__(
        self,
        ledger: Ledger,
        executor: Executor,
        owner: str,
        observer: Observer,
        meter: Meter,
        mirror: Mirror | None,
        search: Searching | None,
        *,
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
        self._error: LongrangeError | None = None
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
