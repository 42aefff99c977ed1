"""What the ledger tells to those who run and mirror sweeps. (Analysis reads rows itself: `dashboards/queries.py`.)"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, func, select
from sqlalchemy.orm import aliased

from orchestrator.records.schema import (
    ArmRow,
    AttemptRow,
    Base,
    CheckpointRow,
    ClipSetRow,
    EnvironmentRow,
    EpochMetricRow,
    LeaseRow,
    PredictionsRow,
    RejectionRow,
    ResultRow,
    State,
    SweepArmRow,
    SweepRow,
    SweepTrialRow,
    TrialRow,
    unpack_names,
)
from orchestrator.records.sql import chunks
from orchestrator.records.values import Checkpoint, Refused, Spent, SweepInfo, Timing, TrialInfo
from workloads.progress import Predictions

TIMINGS = 10_000  # enough to calibrate a price; keeps a ledger of millions cheap to ask


def sweeps(connection: Connection, name: str | None = None) -> list[SweepInfo]:
    """Every sweep (or the one of that name), the newest change first."""
    rows = select(SweepRow.__table__).order_by(SweepRow.updated_at.desc(), SweepRow.id.desc())
    if name is not None:
        rows = rows.where(SweepRow.name == name)
    counts = select(SweepTrialRow.sweep_id, TrialRow.state, func.count().label("n"))
    counts = counts.join(TrialRow, TrialRow.trial_id == SweepTrialRow.trial_id)
    states: dict[int, dict[State, int]] = defaultdict(dict)
    for row in connection.execute(counts.group_by(SweepTrialRow.sweep_id, TrialRow.state)):
        states[row.sweep_id][State(row.state)] = row.n
    refused: dict[int, list[Refused]] = defaultdict(list)
    for row in connection.execute(select(RejectionRow.__table__).order_by(RejectionRow.id)):
        refused[row.sweep_id].append(Refused(row.label, row.settings, row.reason))
    return [
        SweepInfo(
            row.id,
            row.name,
            row.question,
            row.definition,
            row.reproduces,
            row.created_at,
            row.updated_at,
            states[row.id],
            tuple(refused[row.id]),
        )
        for row in connection.execute(rows)
    ]


def trials_of(connection: Connection, name: str) -> list[TrialInfo]:
    """The trials of a sweep in the plan's order, each with its newest attempt's cause and message."""
    found = (
        select(TrialRow.__table__, SweepArmRow.label, SweepArmRow.settings, SweepArmRow.is_control)
        .add_columns(AttemptRow.number, AttemptRow.cause, AttemptRow.message)
        .select_from(SweepRow)
        .join(SweepTrialRow, SweepTrialRow.sweep_id == SweepRow.id)
        .join(TrialRow, TrialRow.trial_id == SweepTrialRow.trial_id)
        .join(SweepArmRow, (SweepArmRow.sweep_id == SweepRow.id) & (SweepArmRow.arm_id == TrialRow.arm_id))
        .outerjoin(AttemptRow, (AttemptRow.trial_id == TrialRow.trial_id) & is_newest_attempt())
        .where(SweepRow.name == name)
        .order_by(SweepTrialRow.position, TrialRow.trial_id)
    )
    return [
        TrialInfo(
            trial_id=row.trial_id,
            arm_id=row.arm_id,
            label=row.label,
            settings=row.settings,
            is_control=row.is_control,
            seed=row.seed,
            state=State(row.state),
            attempts=row.number or 0,
            owner=row.owner,
            estimated_seconds=row.estimated_seconds,
            started_at=row.started_at,
            ended_at=row.ended_at,
            cause=row.cause,
            message=row.message,
        )
        for row in connection.execute(found)
    ]


def is_newest_attempt() -> ColumnElement[bool]:
    """Holds for the newest attempt of each trial. Looks up one trial at a time, so that asking for a few is cheap."""
    other = aliased(AttemptRow)
    newest = select(func.max(other.number)).where(other.trial_id == AttemptRow.trial_id).scalar_subquery()
    return AttemptRow.number == newest


def attempts_of(connection: Connection, name: str) -> list[Spent]:
    """Every attempt at a trial of the sweep, with its times."""
    found = (
        select(AttemptRow.trial_id, TrialRow.arm_id, AttemptRow.owner, AttemptRow.started_at)
        .add_columns(AttemptRow.ended_at, AttemptRow.device)
        .join(TrialRow, TrialRow.trial_id == AttemptRow.trial_id)
        .join(SweepTrialRow, SweepTrialRow.trial_id == TrialRow.trial_id)
        .join(SweepRow, SweepRow.id == SweepTrialRow.sweep_id)
        .where(SweepRow.name == name)
    )
    return [Spent(*row) for row in connection.execute(found)]


def specs_of(connection: Connection, name: str) -> dict[str, Mapping[str, Any]]:
    """arm_id -> configuration, of a sweep's arms."""
    found = select(ArmRow.arm_id, ArmRow.spec).join(SweepArmRow, SweepArmRow.arm_id == ArmRow.arm_id)
    found = found.join(SweepRow, SweepRow.id == SweepArmRow.sweep_id).where(SweepRow.name == name)
    return {row.arm_id: row.spec for row in connection.execute(found)}


def drivers(connection: Connection, now: float) -> frozenset[str]:
    """Drivers whose lease has not ended."""
    return frozenset(connection.execute(select(LeaseRow.owner).where(LeaseRow.lease_until >= now)).scalars())


def checkpoint(connection: Connection, trial_id: str) -> Checkpoint | None:
    """Where a trial that has not finished can be taken up again."""
    found = select(CheckpointRow.epoch, CheckpointRow.path).where(CheckpointRow.trial_id == trial_id)
    row = connection.execute(found).one_or_none()
    return None if row is None else Checkpoint(row.epoch, row.path)


def timings(connection: Connection, device: str | None, arm_ids: set[str] | None) -> list[Timing]:
    """Durations of finished trials that ran from their first epoch in one attempt, newest first."""
    seconds = (AttemptRow.ended_at - AttemptRow.started_at).label("seconds")
    found = (
        select(TrialRow.arm_id, ArmRow.workload, AttemptRow.device, seconds)
        .add_columns(TrialRow.estimated_seconds, ArmRow.spec, ArmRow.profile, AttemptRow.environment_id)
        .join(TrialRow, TrialRow.trial_id == AttemptRow.trial_id)
        .join(ArmRow, ArmRow.arm_id == TrialRow.arm_id)
        .where(AttemptRow.outcome == State.FINISHED, AttemptRow.number == 1, AttemptRow.device.is_not(None))
        .where(func.coalesce(AttemptRow.first_epoch, 0) == 0)  # others went on from another trial's checkpoint
        .order_by(AttemptRow.ended_at.desc())
        .limit(TIMINGS)
    )
    if device is not None:
        found = found.where(AttemptRow.device == device)
    facts = select(EnvironmentRow.environment_id, EnvironmentRow.facts)
    workers = {row.environment_id: row.facts.get("workers", 1) for row in connection.execute(facts)}
    rows = [dict(row) for row in connection.execute(found).mappings() if arm_ids is None or row["arm_id"] in arm_ids]
    return [Timing(workers=workers.get(row.pop("environment_id"), 1), **row) for row in rows]


def predictions(connection: Connection, trial_ids: Sequence[str]) -> dict[str, Predictions]:
    """trial_id -> its scores per clip, as a worker told them."""
    columns = (PredictionsRow.trial_id, PredictionsRow.clip_set_id, PredictionsRow.scores)
    stored = [
        row
        for some in chunks(trial_ids)
        for row in connection.execute(select(*columns).where(PredictionsRow.trial_id.in_(some)))
    ]
    sets = {}
    for clip_set_id in {row.clip_set_id for row in stored}:
        held = connection.execute(select(ClipSetRow.__table__).where(ClipSetRow.clip_set_id == clip_set_id)).one()
        labels = np.frombuffer(held.labels, "<i4").astype(np.int64)
        sets[clip_set_id] = (*unpack_names(held.names), labels, held.classes)
    found = {}
    for row in stored:
        names, class_names, labels, classes = sets[row.clip_set_id]
        scores = np.frombuffer(zlib.decompress(row.scores), "<f2").reshape(-1, classes)
        found[row.trial_id] = Predictions(names, labels, scores, class_names)
    return found


def trial(connection: Connection, beginning: str) -> list[dict[str, Any]]:
    """Everything about the trials whose id starts so: configuration, attempts, results, epochs; ready for JSON."""
    rows = select(TrialRow.__table__, ArmRow.spec).join(ArmRow, ArmRow.arm_id == TrialRow.arm_id)
    rows = rows.where(TrialRow.trial_id.startswith(beginning, autoescape=True))
    found = []
    for row in connection.execute(rows).mappings():
        of_trial = {"attempts": AttemptRow, "results": ResultRow, "epochs": EpochMetricRow}
        parts = {
            name: [dict(part) for part in connection.execute(_rows_of(kind, row["trial_id"])).mappings()]
            for name, kind in of_trial.items()
        }
        found.append({**row, **parts})
    return found


def _rows_of(kind: type[Base], trial_id: str) -> Select[Any]:
    columns = kind.__table__
    return select(columns).where(columns.c.trial_id == trial_id).order_by(*columns.primary_key)
