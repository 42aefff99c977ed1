"""How far a sweep is: pure numbers from the ledger, for `longrange status` and notebooks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator import axes
from orchestrator.errors import UserError
from orchestrator.failures import STOPPED_EARLY, Cause
from orchestrator.records.ledger import Ledger
from orchestrator.records.owners import is_dead
from orchestrator.records.schema import ENDED, State
from orchestrator.records.values import Spent, TrialInfo
from orchestrator.sweep import ResourceRule, get_path

INTERRUPTED = "interrupted"  # what people read for the state of a running trial whose driver is gone
WINDOW_SECONDS = 900.0  # how far back the present rate looks


@dataclass(frozen=True)
class Failure:
    """A trial that ended without a result, or diverged, and why."""

    trial_id: str
    arm: str
    seed: int
    cause: str
    message: str | None


@dataclass(frozen=True)
class Overview:
    """A sweep at one moment.

    Attributes:
        sweep: its name.
        states: state -> trials.
        arms: label -> state -> trials, in the plan's order.
        failures: trials that did not give a result.
        drivers: processes that run trials of it now.
        trials_per_hour: of the last quarter of an hour; None if nothing runs or has ended yet.
        seconds_left: by estimated work at the present pace; None as above.
        device_seconds: device -> seconds times devices of all attempts, lost ones included.
    """

    sweep: str
    states: Mapping[str, int]
    arms: Mapping[str, Mapping[str, int]]
    failures: tuple[Failure, ...]
    drivers: int
    trials_per_hour: float | None
    seconds_left: float | None
    device_seconds: Mapping[str, float]

    @property
    def trials(self) -> int:
        """How many there are."""
        return sum(self.states.values())

    @property
    def ended(self) -> int:
        """How many have ended, in whatever way."""
        return sum(self.states.get(state, 0) for state in (*ENDED, STOPPED_EARLY))

    @property
    def failed(self) -> int:
        """How many ended without a result by a fault."""
        return self.states.get(State.FAILED, 0) + self.states.get(State.INFEASIBLE, 0)

    @property
    def is_over(self) -> bool:
        """Whether every trial has ended, or nobody runs those that are left."""
        return self.ended == self.trials or not self.drivers

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def overview(ledger: Ledger, sweep: str, now: float) -> Overview:
    """Ask a ledger how far a sweep is.

    Raises:
        UserError: it does not hold the sweep.
    """
    known = ledger.sweep(sweep)
    if known is None:
        names = ", ".join(repr(one.name) for one in ledger.sweeps()) or "none"
        raise UserError(f"the ledger {ledger.name} holds no sweep {sweep!r}; there are: {names}")
    trials, attempts = ledger.trials_of(sweep), ledger.attempts_of(sweep)
    owners = {trial.owner for trial in trials if trial.owner and trial.state not in ENDED}
    alive = frozenset(owner for owner in ledger.drivers(now) & owners if not is_dead(owner))
    arms: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        arms[trial.label][_state(trial, alive)] += 1
    rules = tuple(ResourceRule.model_validate(rule) for rule in known.definition.get("resources", ()))
    specs = ledger.specs_of(sweep) if any(rule.when for rule in rules) else {}
    pace = _pace(trials, attempts, alive, now)
    return Overview(
        sweep=sweep,
        states=dict(Counter(_state(trial, alive) for trial in trials)),
        arms={label: dict(states) for label, states in arms.items()},
        failures=tuple(_failures(trials)),
        drivers=len(alive),
        trials_per_hour=pace[0],
        seconds_left=pace[1],
        device_seconds=_device_seconds(attempts, rules, specs, alive, now),
    )


def _state(trial: TrialInfo, alive: frozenset[str]) -> str:
    """Where a trial stands, in words: one that a search stopped was not cancelled by anybody; nobody's does not run."""
    if trial.state is State.RUNNING and trial.owner not in alive:
        return INTERRUPTED
    stopped = trial.state is State.CANCELLED and trial.cause == Cause.STOPPED_EARLY
    return STOPPED_EARLY if stopped else trial.state.value


def _failures(trials: Sequence[TrialInfo]) -> list[Failure]:
    return [
        Failure(trial.trial_id, trial.label, trial.seed, trial.cause, trial.message)
        for trial in trials
        if trial.cause and trial.state in ENDED - {State.FINISHED, State.CANCELLED}
    ]


def _pace(
    trials: Sequence[TrialInfo], attempts: Sequence[Spent], alive: frozenset[str], now: float
) -> tuple[float | None, float | None]:
    """Trials per hour and seconds left, at the pace of the drivers that are alive."""
    began = [attempt.started_at for attempt in attempts if attempt.owner in alive]
    if not began:
        return None, None
    since = max(min(began), now - WINDOW_SECONDS)
    mine = {attempt.trial_id for attempt in attempts if attempt.owner in alive}
    done = [trial for trial in trials if trial.trial_id in mine and trial.ended_at and trial.ended_at >= since]
    if not done or now <= since:
        return None, None
    known = all(trial.estimated_seconds for trial in trials)
    work = {trial.trial_id: (trial.estimated_seconds or 1.0) if known else 1.0 for trial in trials}
    waiting = sum(work[trial.trial_id] for trial in trials if trial.state not in ENDED)
    pace = sum(work[trial.trial_id] for trial in done) / (now - since)
    return 3600 * len(done) / (now - since), waiting / pace


def _device_seconds(
    attempts: Sequence[Spent],
    rules: Sequence[ResourceRule],
    specs: Mapping[str, Mapping[str, Any]],
    alive: frozenset[str],
    now: float,
) -> dict[str, float]:
    """Seconds times devices. An attempt that lost its driver has no end: what it cost since is not known."""
    devices: dict[tuple[str, str], float] = {}
    spent: dict[str, float] = defaultdict(float)
    for attempt in attempts:
        end = attempt.ended_at if attempt.ended_at is not None else now if attempt.owner in alive else None
        if end is None or attempt.device is None:
            continue
        key = (attempt.arm_id, attempt.device)
        if key not in devices:
            devices[key] = _devices(rules, specs.get(attempt.arm_id, {}), attempt.device)
        spent[attempt.device] += max(0.0, end - attempt.started_at) * devices[key]
    return dict(spent)


def _devices(rules: Sequence[ResourceRule], spec: Mapping[str, Any], device: str) -> float:
    """How many devices one trial of an arm gets: the first rule that fits, as in the plan."""
    fits = (rule for rule in rules if axes.matches(rule.when, lambda path: get_path(spec, path)))
    rule = next(fits, ResourceRule())
    return (rule.cpus if device == "cpu" else rule.gpus) * rule.workers
