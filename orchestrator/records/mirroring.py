"""The ledger's side of a mirror: what still has to be copied, and what has been. Knows nothing of MLflow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, delete, func, or_, select

from orchestrator.records.reading import is_newest_attempt
from orchestrator.records.schema import (
    ENDED,
    ArmRow,
    AttemptRow,
    EnvironmentRow,
    EpochMetricRow,
    LockRow,
    MirrorRow,
    ResultRow,
    State,
    SweepArmRow,
    SweepRow,
    SweepTrialRow,
    TrialRow,
)
from orchestrator.records.sql import upsert


@dataclass(frozen=True)
class Point:
    """One metric after one epoch; `value` is None where it was not finite."""

    name: str
    epoch: int
    value: float | None
    seconds: float


@dataclass(frozen=True)
class Sweep:
    """A sweep as a whole: `waiting` trials have not ended, `marks` are in the mirror, `ended_at` is the newest end."""

    sweep_id: int
    uid: str
    name: str
    question: str
    created_at: float
    waiting: int
    ended_at: float | None
    marks: int


@dataclass(frozen=True, eq=False)
class Copy:
    """A trial that has ended, with everything a mirror shows of it."""

    trial_id: str
    sweep_id: int
    sweep_name: str
    sweep_uid: str
    arm_id: str
    label: str
    is_control: bool
    seed: int
    state: State
    spec: Mapping[str, Any]
    data_fingerprint: str
    params: int | None
    executed_macs: int | None
    started_at: float
    ended_at: float
    attempts: int
    cause: str | None
    message: str | None
    host: str | None
    device: str | None
    facts: Mapping[str, Any]
    points: tuple[Point, ...]
    results: Mapping[str, float | None]
    old_run_id: str | None  # of an earlier end that this one replaces


def pending(connection: Connection, store: str, limit: int) -> list[Copy]:
    """Ended trials that `store` does not have yet, or has with an earlier end; the oldest end first."""
    found = connection.execute(
        _pending(store)
        .with_only_columns(
            TrialRow.__table__,
            SweepRow.id.label("sweep_id"),
            SweepRow.name.label("sweep_name"),
            SweepRow.uid.label("sweep_uid"),
            SweepArmRow.label,
            SweepArmRow.is_control,
            ArmRow.spec,
            ArmRow.params,
            ArmRow.executed_macs,
            MirrorRow.run_id,
        )
        .order_by(TrialRow.ended_at, TrialRow.trial_id, SweepRow.id)
        .limit(limit)
    ).all()
    ids = {row.trial_id for row in found}
    attempts, points, results = _attempts(connection, ids), _points(connection, ids), _results(connection, ids)
    return [_copy(row, attempts.get(row.trial_id), points[row.trial_id], results[row.trial_id]) for row in found]


def count_pending(connection: Connection, store: str) -> int:
    """How many copies `store` lacks."""
    lacking = _pending(store).with_only_columns(func.count())
    return int(connection.execute(lacking).scalar_one())


def mark(connection: Connection, store: str, copies: Sequence[tuple[Copy, str]]) -> None:
    """Remember copies and the ids they have in `store`."""
    upsert(
        connection,
        MirrorRow,
        [
            {
                "trial_id": copy.trial_id,
                "store": store,
                "sweep_id": copy.sweep_id,
                "run_id": run_id,
                "state": copy.state.value,
                "ended_at": copy.ended_at,
            }
            for copy, run_id in copies
        ],
    )


def forget(connection: Connection, store: str, sweep_id: int) -> None:
    """All of a sweep must be copied to `store` again."""
    connection.execute(delete(MirrorRow).where(MirrorRow.store == store, MirrorRow.sweep_id == sweep_id))


def sweeps(connection: Connection, store: str) -> list[Sweep]:
    """Every sweep with what a mirror shows of it as a whole."""
    waits = func.sum(case((TrialRow.state.in_(ENDED), 0), else_=1))
    counts = select(SweepTrialRow.sweep_id, waits.label("waiting"), func.max(TrialRow.ended_at).label("ended_at"))
    counts = counts.join(TrialRow, TrialRow.trial_id == SweepTrialRow.trial_id).group_by(SweepTrialRow.sweep_id)
    trials = counts.subquery()
    marks = select(MirrorRow.sweep_id, func.count().label("marks")).where(MirrorRow.store == store)
    marked = marks.group_by(MirrorRow.sweep_id).subquery()
    rows = (
        select(SweepRow.__table__, trials.c.waiting, trials.c.ended_at, marked.c.marks)
        .join(trials, trials.c.sweep_id == SweepRow.id)
        .outerjoin(marked, marked.c.sweep_id == SweepRow.id)
    )
    return [
        Sweep(row.id, row.uid, row.name, row.question, row.created_at, row.waiting, row.ended_at, row.marks or 0)
        for row in connection.execute(rows.order_by(SweepRow.id))
    ]


def lock(connection: Connection, name: str, holder: str, until: float, now: float) -> str:
    """Take or keep a lock that nobody holds, or whose holder let it end.

    Returns:
        Who holds it now: `holder`, unless somebody else does.
    """
    found = connection.execute(select(LockRow.holder, LockRow.until).where(LockRow.name == name)).one_or_none()
    if found is not None and found.holder != holder and found.until >= now:
        return str(found.holder)
    upsert(connection, LockRow, [{"name": name, "holder": holder, "until": until}])
    return holder


def unlock(connection: Connection, name: str, holder: str) -> None:
    """Give a lock back, if `holder` still has it."""
    connection.execute(delete(LockRow).where(LockRow.name == name, LockRow.holder == holder))


def _pending(store: str) -> Select[Any]:
    same: ColumnElement[bool] = and_(
        MirrorRow.trial_id == TrialRow.trial_id, MirrorRow.sweep_id == SweepRow.id, MirrorRow.store == store
    )
    return (
        select(TrialRow.trial_id)
        .select_from(TrialRow)
        .join(SweepTrialRow, SweepTrialRow.trial_id == TrialRow.trial_id)
        .join(SweepRow, SweepRow.id == SweepTrialRow.sweep_id)
        .join(ArmRow, ArmRow.arm_id == TrialRow.arm_id)
        .join(SweepArmRow, and_(SweepArmRow.sweep_id == SweepRow.id, SweepArmRow.arm_id == TrialRow.arm_id))
        .outerjoin(MirrorRow, same)
        .where(TrialRow.state.in_(ENDED), TrialRow.ended_at.is_not(None))
        .where(or_(MirrorRow.run_id.is_(None), MirrorRow.ended_at != TrialRow.ended_at))
    )


def _attempts(connection: Connection, ids: set[str]) -> dict[str, Any]:
    """The newest attempt of each trial, with its environment's facts."""
    tried = select(AttemptRow.__table__, EnvironmentRow.facts).outerjoin(
        EnvironmentRow, EnvironmentRow.environment_id == AttemptRow.environment_id
    )
    rows = connection.execute(tried.where(AttemptRow.trial_id.in_(ids), is_newest_attempt()))
    return {row.trial_id: row for row in rows}


def _points(connection: Connection, ids: set[str]) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = defaultdict(list)
    rows = select(EpochMetricRow.__table__).where(EpochMetricRow.trial_id.in_(ids))
    for row in connection.execute(rows.order_by(EpochMetricRow.epoch, EpochMetricRow.name)):
        points[row.trial_id].append(Point(row.name, row.epoch, row.value, row.seconds))
    return points


def _results(connection: Connection, ids: set[str]) -> dict[str, dict[str, float | None]]:
    results: dict[str, dict[str, float | None]] = defaultdict(dict)
    for row in connection.execute(select(ResultRow.__table__).where(ResultRow.trial_id.in_(ids))):
        results[row.trial_id][row.name] = row.value
    return results


def _copy(row: Any, attempt: Any, points: Sequence[Point], results: Mapping[str, float | None]) -> Copy:
    return Copy(
        trial_id=row.trial_id,
        sweep_id=row.sweep_id,
        sweep_name=row.sweep_name,
        sweep_uid=row.sweep_uid,
        arm_id=row.arm_id,
        label=row.label,
        is_control=row.is_control,
        seed=row.seed,
        state=State(row.state),
        spec=row.spec,
        data_fingerprint=row.data_fingerprint,
        params=row.params,
        executed_macs=row.executed_macs,
        started_at=row.ended_at if row.started_at is None else row.started_at,
        ended_at=row.ended_at,
        attempts=attempt.number if attempt else 0,
        cause=attempt.cause if attempt else None,
        message=attempt.message if attempt else None,
        host=attempt.host if attempt else None,
        device=attempt.device if attempt else None,
        facts=(attempt.facts if attempt else None) or {},
        points=tuple(points),
        results=results,
        old_run_id=row.run_id,
    )
