"""What every executor promises, and the events it yields. Records consume events; neither side imports the other.

An executor takes trials that are ready to run and yields events, in order per trial, until each has ended: `Started`,
any number of `Progressed`, then exactly one `Ended`. Executors never touch the ledger, decide retries through
`failures.decide` only, and run `worker.run_attempt` whatever the engine, so that the same trial gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.execution.failures import Cause
from orchestrator.trial import Trial
from workloads.progress import CheckpointWritten, EpochDone, Finished


@dataclass(frozen=True)
class Started:
    """A worker began an attempt. `environment` holds the facts of provenance.environment()."""

    trial_id: str
    attempt: int
    at: float
    host: str
    device: str
    first_epoch: int
    micro_batch: int | None
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progressed:
    """An epoch or a checkpoint of a running attempt."""

    trial_id: str
    attempt: int
    at: float
    progress: EpochDone | CheckpointWritten


@dataclass(frozen=True)
class AttemptFailed:
    """An attempt ended without a result. Another follows if `retried`, else the trial's `Ended`."""

    trial_id: str
    attempt: int
    at: float
    cause: Cause
    message: str
    traceback: str
    retried: bool


@dataclass(frozen=True)
class Ended:
    """The trial has ended: `state` is a `records.schema.State` value; `result` is there when it finished."""

    trial_id: str
    attempt: int
    at: float
    state: str
    result: Finished | None = None
    cause: Cause | None = None
    message: str = ""


Event = Started | Progressed | AttemptFailed | Ended


@dataclass(frozen=True)
class Resources:
    """What one trial needs. `workers` > 1 trains it over several devices."""

    cpus: float = 1.0
    gpus: float = 0.0
    workers: int = 1


class Executor(Protocol):
    """Runs trials somewhere. Use as a context manager: leaving it releases everything it started."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...

    def run(self, trials: Sequence[Trial]) -> Iterator[Event]:
        """Yield the events of all trials; returns when every trial has ended or `cancel` was called."""

    def cancel(self) -> None:
        """Stop soon: running trials checkpoint and end as cancelled, waiting ones do not start."""
