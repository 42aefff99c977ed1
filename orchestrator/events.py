"""What happens to trials while they run, as values: executors yield them, records keep them, neither knows the other.

In order per trial: `Started`, any number of `Progressed`, possibly `AttemptFailed` or `Paused` followed by another
`Started`, then exactly one `Ended`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.failures import Cause
from workloads.progress import CheckpointWritten, EpochDone, Finished


def storable(text: str) -> str:
    """`text` as every database, file and terminal can hold it.

    What trials say may quote names of files, which need not be UTF-8, and bytes of their content, NUL among them.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


@dataclass(frozen=True)
class Started:
    """A worker began an attempt. `environment` holds the facts of `provenance.environment`."""

    trial_id: str
    attempt: int
    at: float
    host: str
    device: str
    micro_batch: int | None = None
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Progressed:
    """An epoch or a checkpoint of a running attempt.

    A `replayed` epoch was trained by an earlier attempt that may have died before the driver heard of it; it is told
    again when the trial resumes behind it, so that no series has a gap.
    """

    trial_id: str
    attempt: int
    at: float
    progress: EpochDone | CheckpointWritten
    replayed: bool = False


@dataclass(frozen=True)
class AttemptFailed:
    """An attempt ended without a result. Another follows if `retried`, else the trial's `Ended`."""

    trial_id: str
    attempt: int
    at: float
    cause: Cause
    message: str
    traceback: str = ""
    retried: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", storable(self.message))
        object.__setattr__(self, "traceback", storable(self.traceback))


@dataclass(frozen=True)
class Paused:
    """An attempt reached the epoch it was to go to; its checkpoint is written. Another goes on, or the trial ends."""

    trial_id: str
    attempt: int
    at: float


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", storable(self.message))


Event = Started | Progressed | AttemptFailed | Paused | Ended
