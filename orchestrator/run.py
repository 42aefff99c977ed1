"""Execution meets records: takes a plan's open trials, runs them, and writes what happens into the ledger.

The driver claims trials under a lease, so that two drivers on one sweep never run the same trial. It can be killed at
any moment: `longrange resume` claims what is left, and trials continue from their checkpoints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.driver import LEASE_SECONDS, Driver, Mirror, Observer, Outcome, discard
from orchestrator.errors import UserError
from orchestrator.execution.base import Attempt, Executor, Resources
from orchestrator.fingerprint import code_fingerprint
from orchestrator.meter import Meter
from orchestrator.plan import Arm, Plan
from orchestrator.planned import data_fingerprint, planned_sweep
from orchestrator.provenance import driver as driver_facts
from orchestrator.provenance import working_diff
from orchestrator.records.ledger import Ledger
from orchestrator.records.owners import enter_alone, new_owner, release_dead_owners, stay_alone
from orchestrator.records.schema import ENDED, IMMUTABLE, State
from orchestrator.records.values import Claim
from orchestrator.search.planning import drawn_before
from orchestrator.search.population_run import PopulationRun
from orchestrator.search.run import Replan, SearchRun, stopped_early
from orchestrator.trial import Trial


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
            now = (fingerprints.get(arm.arm_id), data_fingerprint(arm.spec))
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
        AnotherDriver: the plan is a search, and somebody is at it.
        LedgerError: the ledger cannot be written any more.
    """
    started = time.monotonic()
    with _introduced(ledger, plan) as owner:
        plan = _newest(plan, replan, ledger, owner)
        code = fingerprints(plan)
        parts = _parts(plan, ledger, code, retry_failed=retry_failed, reuse_changed=reuse_changed)
        ledger.record_plan(planned_sweep(plan, code), time.time())
        release_dead_owners(ledger, plan.sweep.name)
        claims = _Claims(ledger, owner, checkpoints, cache)
        attempts = claims.take(parts.todo)
        if not keep_checkpoints:
            discard(checkpoints, parts.done)  # a driver may have died between a result and its clearing up
        meter = Meter(plan.sweep.budget)
        begun = len(attempts)
        outcome = Outcome(reused=parts.reused, elsewhere=len(parts.todo) - begun, failed_before=len(parts.ended))
        search = _search(plan, replan, _Admission(claims, meter, observer, parts.reused), ledger)
        if search is not None:
            meter.expect(attempts)
            attempts = search.watched(attempts)
        if search is None or not search.admitted:
            observer.planned(plan, begun, parts.reused)
        driver = Driver(
            ledger=ledger,
            executor=executor,
            owner=owner,
            observer=observer,
            meter=meter,
            mirror=mirror,
            search=search,
            clears=None if keep_checkpoints else checkpoints,
            asked_to_stop=asked_to_stop,
        )
        driver.drive(attempts, outcome)
    if isinstance(search, PopulationRun):
        outcome.population = search.generations
    begun += search.admitted + search.left if search is not None else 0
    outcome.left = begun - sum(outcome.ran.values())
    outcome.seconds = time.monotonic() - started
    return outcome


def _parts(plan: Plan, ledger: Ledger, code: Mapping[str, str], *, retry_failed: bool, reuse_changed: bool) -> Split:
    """What is left to do, when it is said what happens to trials that failed or ran under other code."""
    parts = split(plan, ledger, code)
    if parts.changed and not reuse_changed:
        raise UserError(
            f"{len(parts.changed)} finished trials of {plan.sweep.name!r} ran under other code or data than is here "
            "now; say `--changed keep` to reuse them as they are, or give another --out to run everything again"
        )
    if retry_failed and ledger.reset(parts.ended):
        return split(plan, ledger, code)
    return parts


@contextmanager
def _introduced(ledger: Ledger, plan: Plan) -> Iterator[str]:
    """A new owner of trials, whose provenance the ledger knows; what it still holds at the end is given back.

    Drivers may share a sweep. A search has one: what it has drawn is one list, and each would write its own.
    """
    owner, facts = new_owner(), driver_facts()
    if plan.sweep.search is None:
        ledger.introduce(owner, facts)
    else:
        enter_alone(ledger, owner, plan.sweep.name, facts, lease_seconds=LEASE_SECONDS, now=time.time())
    try:
        if (diff := working_diff()) is not None:
            ledger.keep_diff(*diff)
        yield owner
    finally:
        ledger.release(owner)


def _newest(plan: Plan, replan: Replan | None, ledger: Ledger, owner: str) -> Plan:
    """The plan, with what another driver of the search has drawn since this one planned."""
    if replan is None or plan.search is None:
        return plan
    known = drawn_before(plan.sweep, ledger)
    if len(known) > len(plan.search["drawn"]):
        plan = replan(known)
    stay_alone(ledger, owner, plan.sweep.name, lease_seconds=LEASE_SECONDS, now=time.time())  # that may have lasted
    return plan


class _Claims:
    """Trials as attempts of one owner, who holds a lease on them."""

    def __init__(self, ledger: Ledger, owner: str, checkpoints: Path, cache: Path) -> None:
        self.ledger = ledger
        self.owner = owner
        self._checkpoints = checkpoints
        self._cache = cache

    def take(self, pairs: Sequence[tuple[Arm, Trial]]) -> list[Attempt]:
        """Those that nobody else holds."""
        claims = self.ledger.claim([trial.trial_id for _, trial in pairs], self.owner, LEASE_SECONDS, time.time())
        mine = {claim.trial_id: claim for claim in claims}
        return [
            _attempt(arm, trial, mine[trial.trial_id], self._checkpoints, self._cache)
            for arm, trial in pairs
            if trial.trial_id in mine
        ]


class _Admission:
    """Lets a search add a configuration to the run it belongs to."""

    def __init__(self, claims: _Claims, meter: Meter, observer: Observer, reused: int) -> None:
        self._claims = claims
        self._meter = meter
        self._observer = observer
        self._reused = reused

    def __call__(self, grown: Plan, arm: Arm | None) -> Attempt | None:
        ledger, now = self._claims.ledger, time.time()
        stay_alone(ledger, self._claims.owner, grown.sweep.name, lease_seconds=LEASE_SECONDS, now=now)
        ledger.record_plan(planned_sweep(grown, fingerprints(grown)), now)
        left = [] if arm is None else [pair for pair in split(grown, ledger, {}).todo if pair[0] is arm]
        admitted = self._claims.take(left)
        self._meter.expect(admitted)
        self._observer.planned(grown, len(grown.ordered()) - self._reused, self._reused)
        return next(iter(admitted), None)


def _search(plan: Plan, replan: Replan | None, admit: _Admission, ledger: Ledger) -> SearchRun | PopulationRun | None:
    if replan is None or plan.sweep.search is None:
        return None
    kind = PopulationRun if plan.sweep.search.scheduler == "pbt" else SearchRun
    return kind(plan, replan=replan, ledger=ledger, admit=admit)


def _attempt(arm: Arm, trial: Trial, claim: Claim, checkpoints: Path, cache: Path) -> Attempt:
    rule, least = arm.resources, trial.spec.block.least_clips
    return Attempt(
        trial_id=trial.trial_id,
        content=trial.content,
        number=claim.attempt,
        checkpoint_dir=checkpoints / trial.trial_id,
        cache_dir=cache,
        resources=Resources(rule.cpus, rule.gpus, rule.workers, rule.data_workers),
        micro_batch=claim.micro_batch and max(claim.micro_batch, least),  # the ledger knows no block
        least_clips=least,
        earlier=claim.earlier,
        estimated_seconds=arm.price.seconds,
        estimated_macs=arm.price.macs,
        hang_seconds=rule.hang_minutes * 60 if rule.hang_minutes else None,
    )
