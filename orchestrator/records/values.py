"""What goes into the ledger and what comes out, as plain values: callers never see SQL.

Times are UTC seconds since 1970. `settings` maps axis paths to values, e.g. `{"block.kernel": [3, 7, 7]}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.failures import Cause
from orchestrator.records.schema import State


@dataclass(frozen=True)
class PlannedArm:
    """An arm and its part in the sweep. `spec` is the arm's `Trial.content` without the seed."""

    arm_id: str
    label: str
    spec: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    is_control: bool = False
    profile: Mapping[str, Any] | None = None  # `params` and `executed_macs` are read from it


@dataclass(frozen=True)
class PlannedTrial:
    """A trial to be recorded, with the fingerprints it will run under."""

    trial_id: str
    arm_id: str
    seed: int
    code_fingerprint: str = ""
    data_fingerprint: str = ""
    estimated_seconds: float | None = None


@dataclass(frozen=True)
class Refused:
    """A configuration the plan rejected."""

    label: str
    settings: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class PlannedSweep:
    """A plan. The order of `arms` and `trials` is their position in tables and in execution.

    `whole` are the arm_ids of the sweep it is a part of, in order; empty if it is the whole. Those among them that ran
    before stay in the sweep. `left_out` are the labels of its other arms: what was rejected of them stays rejected.
    """

    name: str
    question: str
    definition: Mapping[str, Any]
    arms: Sequence[PlannedArm]
    trials: Sequence[PlannedTrial]
    rejections: Sequence[Refused] = ()
    reproduces: Mapping[str, Any] | None = None
    whole: Sequence[str] = ()
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class Standing:
    """What the ledger knows of a trial: enough to decide whether it must run."""

    state: State
    code_fingerprint: str
    data_fingerprint: str


@dataclass(frozen=True)
class Claim:
    """The right to run one trial until the lease ends.

    Attributes:
        attempt: number of the attempt that may start now (1-based).
        earlier: how often each cause ended an attempt since the last reset; input of `failures.decide`.
        micro_batch: the bound for this attempt; None is the whole batch.
    """

    trial_id: str
    attempt: int
    earlier: Mapping[Cause, int]
    micro_batch: int | None = None


@dataclass(frozen=True)
class SweepInfo:
    """A sweep as recorded, with the number of its trials in each state."""

    sweep_id: int
    name: str
    question: str
    definition: Mapping[str, Any]
    reproduces: Mapping[str, Any] | None
    created_at: float
    updated_at: float
    states: Mapping[State, int]
    rejections: tuple[Refused, ...]


@dataclass(frozen=True)
class TrialInfo:
    """A trial inside a sweep. `cause` and `message` come from its newest attempt, if that failed."""

    trial_id: str
    arm_id: str
    label: str
    settings: Mapping[str, Any]
    is_control: bool
    seed: int
    state: State
    attempts: int
    owner: str | None
    estimated_seconds: float | None
    started_at: float | None
    ended_at: float | None
    cause: str | None
    message: str | None


@dataclass(frozen=True)
class Spent:
    """The time one attempt took; `ended_at` is None while it runs, or if its driver died."""

    trial_id: str
    arm_id: str
    owner: str
    started_at: float
    ended_at: float | None
    device: str | None


@dataclass(frozen=True)
class Timing:
    """How long one uninterrupted trial took, for the calibration of prices."""

    arm_id: str
    workload: str
    device: str
    seconds: float
    estimated_seconds: float | None
    spec: Mapping[str, Any]  # the arm's
    profile: Mapping[str, Any] | None
    workers: int = 1


@dataclass(frozen=True)
class Checkpoint:
    """The newest complete checkpoint of a trial that may run again."""

    epoch: int
    path: str
