"""The ledger's tables. SQL is the truth: everything else (MLflow, reports, the dashboard) is derived from these rows.

Units are in names. Times are UTC seconds since 1970 (floats), so that clocks of several hosts and both databases
agree on their meaning. Rows of finished trials never change. States and their transitions are below. A driver may run
a trial while `TrialRow.owner` names it; it keeps all its trials by renewing one row of `leases`. `ledger.py` states
what readers and writers may rely on; `migrations/` holds this schema's history, and `VERSION` is its newest revision.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

VERSION = "0001"  # of the newest migration


class State(StrEnum):
    """Where a trial stands."""

    PLANNED = "planned"
    RUNNING = "running"
    FINISHED = "finished"
    DIVERGED = "diverged"
    INFEASIBLE = "infeasible"
    FAILED = "failed"
    CANCELLED = "cancelled"


# A trial that finished or diverged has a result: it is never run again under the same code and data.
ENDED = frozenset({State.FINISHED, State.DIVERGED, State.INFEASIBLE, State.FAILED, State.CANCELLED})
IMMUTABLE = frozenset({State.FINISHED, State.DIVERGED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.RUNNING, State.CANCELLED, State.INFEASIBLE}),
    State.RUNNING: frozenset({State.PLANNED, *ENDED}),
    State.FINISHED: frozenset(),
    State.DIVERGED: frozenset(),
    State.INFEASIBLE: frozenset({State.PLANNED}),
    State.FAILED: frozenset({State.PLANNED}),
    State.CANCELLED: frozenset({State.PLANNED}),
}

TrialId = String(16)
Nullable = JSON(none_as_null=True)


class Base(DeclarativeBase):
    """Root of the schema."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, float: Double}  # noqa: RUF012


class SweepRow(Base):
    """A question, its newest definition and plan."""

    __tablename__ = "sweeps"

    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[str] = mapped_column(String(32))  # random: tells this sweep from one of the same name elsewhere
    name: Mapped[str] = mapped_column(String(200), unique=True)
    question: Mapped[str] = mapped_column(Text)
    definition: Mapped[dict[str, Any]]  # the sweep as given, overrides applied
    reproduces: Mapped[dict[str, Any] | None] = mapped_column(Nullable)
    created_at: Mapped[float]
    updated_at: Mapped[float]


class ArmRow(Base):
    """Everything of a trial but its seed, with its model's profile."""

    __tablename__ = "arms"

    arm_id: Mapped[str] = mapped_column(TrialId, primary_key=True)
    spec: Mapped[dict[str, Any]]
    workload: Mapped[str] = mapped_column(String(100), index=True)
    backbone: Mapped[str] = mapped_column(String(100), index=True)
    block: Mapped[str] = mapped_column(String(100), index=True)
    params: Mapped[int | None] = mapped_column(BigInteger)
    executed_macs: Mapped[int | None] = mapped_column(BigInteger)
    profile: Mapped[dict[str, Any] | None] = mapped_column(Nullable)


class SweepArmRow(Base):
    """An arm's part in a sweep: its label there, its axis values, and whether it is the control."""

    __tablename__ = "sweep_arms"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    arm_id: Mapped[str] = mapped_column(ForeignKey("arms.arm_id"), primary_key=True)
    position: Mapped[int]
    label: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]]  # axis path -> value, e.g. {"block.kernel": [3, 7, 7]}
    is_control: Mapped[bool]


class RejectionRow(Base):
    """A configuration the plan refused, and why."""

    __tablename__ = "rejections"

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), index=True)
    label: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(Text)


class TrialRow(Base):
    """One arm with one seed."""

    __tablename__ = "trials"
    __table_args__ = (Index("ix_trials_arm_state", "arm_id", "state"),)

    trial_id: Mapped[str] = mapped_column(TrialId, primary_key=True)
    arm_id: Mapped[str] = mapped_column(ForeignKey("arms.arm_id"))
    seed: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[State] = mapped_column(String(12), default=State.PLANNED, index=True)
    code_fingerprint: Mapped[str] = mapped_column(String(64), default="")
    data_fingerprint: Mapped[str] = mapped_column(String(64), default="")
    estimated_seconds: Mapped[float | None]
    owner: Mapped[str | None] = mapped_column(String(100), index=True)  # the driver that may run it; no other may
    forgiven: Mapped[int] = mapped_column(default=0)  # attempts before the last reset: they no longer count
    started_at: Mapped[float | None]  # of the first attempt since the last reset
    ended_at: Mapped[float | None]
    notes: Mapped[list[Any] | None] = mapped_column(Nullable)


class SweepTrialRow(Base):
    """Which trials answer which sweep; a trial may serve several."""

    __tablename__ = "sweep_trials"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    position: Mapped[int]


class EnvironmentRow(Base):
    """What a trial ran on: versions, devices, git state. Keyed by its own hash."""

    __tablename__ = "environments"

    environment_id: Mapped[str] = mapped_column(TrialId, primary_key=True)
    facts: Mapped[dict[str, Any]]


class DiffRow(Base):
    """Uncommitted changes of a source tree; the fact `git_diff` of environments names them."""

    __tablename__ = "diffs"

    diff_id: Mapped[str] = mapped_column(TrialId, primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)  # zlib-compressed output of `git diff`


class LeaseRow(Base):
    """A driver's right to its trials. One row per driver, so that a heartbeat costs one small write."""

    __tablename__ = "leases"

    owner: Mapped[str] = mapped_column(String(100), primary_key=True)
    lease_until: Mapped[float]
    driver: Mapped[dict[str, Any] | None] = mapped_column(Nullable)  # facts of provenance.driver()


class AttemptRow(Base):
    """One try at a trial that a worker really began. At most one per trial is open (`ended_at` is null)."""

    __tablename__ = "attempts"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # 1-based
    owner: Mapped[str] = mapped_column(String(100))  # the driver that ran it
    started_at: Mapped[float]
    ended_at: Mapped[float | None]
    outcome: Mapped[str | None] = mapped_column(String(20))  # a final State, "lost", "paused", or "retried"
    cause: Mapped[str | None] = mapped_column(String(40))  # orchestrator.failures.Cause
    message: Mapped[str | None] = mapped_column(Text)
    traceback: Mapped[str | None] = mapped_column(Text)
    micro_batch: Mapped[int | None]
    first_epoch: Mapped[int | None]  # the first it trained, where it resumed; null until that is over
    host: Mapped[str | None] = mapped_column(String(200))
    device: Mapped[str | None] = mapped_column(String(200))
    environment_id: Mapped[str | None] = mapped_column(ForeignKey("environments.environment_id"))


class EpochMetricRow(Base):
    """One metric after one epoch (0-based)."""

    __tablename__ = "epoch_metrics"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[float | None]  # None is NaN or infinite: SQL and JSON have no portable NaN
    seconds: Mapped[float]  # duration of the epoch


class ResultRow(Base):
    """One final metric of a trial."""

    __tablename__ = "results"
    __table_args__ = (Index("ix_results_name", "name"),)

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    value: Mapped[float | None]


class SamplesRow(Base):
    """Raw repeated measurements of one quantity, e.g. `latency_ms`."""

    __tablename__ = "samples"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    samples: Mapped[list[Any]]


class ClipSetRow(Base):
    """The clips a group of trials was evaluated on, stored once: names and labels, in order."""

    __tablename__ = "clip_sets"

    clip_set_id: Mapped[str] = mapped_column(TrialId, primary_key=True)
    names: Mapped[bytes] = mapped_column(LargeBinary)  # `pack_names`
    labels: Mapped[bytes] = mapped_column(LargeBinary)  # little-endian int32
    classes: Mapped[int]


def pack_names(clips: Sequence[str], class_names: Sequence[str]) -> bytes:
    """What `ClipSetRow.names` holds: compressed JSON, a list of the clips' names, or those and the classes' names."""
    named = {"clips": list(clips), "classes": list(class_names)} if class_names else list(clips)
    return zlib.compress(json.dumps(named).encode())


def unpack_names(packed: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the clips and of the classes; ledgers of before have no names of classes."""
    named = json.loads(zlib.decompress(packed))
    if isinstance(named, dict):
        return tuple(named["clips"]), tuple(named["classes"])
    return tuple(named), ()


class PredictionsRow(Base):
    """Per-clip scores of a finished trial, for paired tests and ensembles."""

    __tablename__ = "predictions"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    clip_set_id: Mapped[str] = mapped_column(ForeignKey("clip_sets.clip_set_id"))
    correct: Mapped[bytes] = mapped_column(LargeBinary)  # one byte per clip: 1 where top-1 is right
    scores: Mapped[bytes] = mapped_column(LargeBinary)  # zlib-compressed little-endian float16 [n, classes]


class CheckpointRow(Base):
    """The newest complete checkpoint of a trial that may run again."""

    __tablename__ = "checkpoints"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    epoch: Mapped[int]
    path: Mapped[str] = mapped_column(Text)


class MirrorRow(Base):
    """What the MLflow mirror has copied: lets it catch up, and never copy twice."""

    __tablename__ = "mirror"

    trial_id: Mapped[str] = mapped_column(ForeignKey("trials.trial_id"), primary_key=True)
    store: Mapped[str] = mapped_column(String(300), primary_key=True)  # tracking URI without credentials
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweeps.id", ondelete="CASCADE"), primary_key=True)
    run_id: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(12))  # the trial's state when it was copied
    ended_at: Mapped[float]  # the end that was copied: a trial run again has another


class LockRow(Base):
    """A task that only one process may do at a time, such as filling a mirror."""

    __tablename__ = "locks"

    name: Mapped[str] = mapped_column(String(400), primary_key=True)
    holder: Mapped[str] = mapped_column(String(100))
    until: Mapped[float]
