"""Writing a plan into the ledger: see `Ledger.record_plan` for what it promises."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, and_, bindparam, delete, insert, select, update

from orchestrator.errors import UserError
from orchestrator.records.rows import Row
from orchestrator.records.schema import ArmRow, RejectionRow, State, SweepArmRow, SweepRow, SweepTrialRow, TrialRow
from orchestrator.records.sql import chunks, table, upsert
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial


def record(connection: Connection, plan: PlannedSweep, now: float) -> None:
    """Make the sweep's rows those of `plan`.

    Raises:
        ValueError: a trial whose arm is not among the plan's arms.
        UserError: a name that is longer than its column, also where the database would not mind.
    """
    unknown = {trial.arm_id for trial in plan.trials} - {arm.arm_id for arm in plan.arms}
    if unknown:
        raise ValueError(f"the plan of {plan.name!r} has trials of arms it does not list: {', '.join(sorted(unknown))}")
    for arm in plan.arms:
        _refuse_long_names(_arm(arm))
    sweep_id = _sweep(connection, plan, now)
    _arms(connection, plan, sweep_id)
    _trials(connection, plan, sweep_id)
    _unlink(connection, plan, sweep_id)
    _forget_rejections(connection, plan, sweep_id)
    refused = [
        {"sweep_id": sweep_id, "label": one.label, "settings": dict(one.settings), "reason": one.reason}
        for one in plan.rejections
    ]
    if refused:
        connection.execute(insert(RejectionRow), refused)


def _sweep(connection: Connection, plan: PlannedSweep, now: float) -> int:
    known = connection.execute(select(table(SweepRow)).where(SweepRow.name == plan.name)).mappings().one_or_none()
    values: Row = {
        "question": plan.question,
        "definition": dict(plan.definition),
        "reproduces": None if plan.reproduces is None else dict(plan.reproduces),
    }
    if known is None:
        made = insert(SweepRow).values(uid=uuid4().hex, name=plan.name, created_at=now, updated_at=now, **values)
        return int(connection.execute(made.returning(SweepRow.id)).scalar_one())
    sweep_id = int(known["id"])
    if any(known[key] != value for key, value in values.items()):
        connection.execute(update(SweepRow).where(SweepRow.id == sweep_id).values(updated_at=now, **values))
    return sweep_id


def _arms(connection: Connection, plan: PlannedSweep, sweep_id: int) -> None:
    upsert(connection, ArmRow, [_arm(arm) for arm in plan.arms], replace=False)
    profiled = [_arm(arm) for arm in plan.arms if arm.profile is not None]
    upsert(connection, ArmRow, profiled)  # a plan without profiles must not erase those of an earlier one
    order = {arm_id: position for position, arm_id in enumerate(plan.whole or [arm.arm_id for arm in plan.arms])}
    links = [
        {
            "sweep_id": sweep_id,
            "arm_id": arm.arm_id,
            "position": order[arm.arm_id],
            "label": arm.label,
            "settings": dict(arm.settings),
            "is_control": arm.is_control,
        }
        for arm in plan.arms
    ]
    upsert(connection, SweepArmRow, links)


def _arm(arm: PlannedArm) -> Row:
    profile: Any = arm.profile or {}
    return {
        "arm_id": arm.arm_id,
        "spec": dict(arm.spec),
        "workload": arm.spec["workload"]["name"],
        "backbone": arm.spec["backbone"]["name"],
        "block": arm.spec["block"]["name"],
        "params": profile.get("params"),
        "executed_macs": profile.get("executed_macs"),
        "profile": None if arm.profile is None else dict(arm.profile),
    }


def _refuse_long_names(arm: Row) -> None:
    for column in ("workload", "backbone", "block"):
        limit = table(ArmRow).c[column].type.length  # type: ignore[attr-defined]
        if len(arm[column]) > limit:
            raise UserError(
                f"the {column}'s name has {len(arm[column])} letters, a ledger takes {limit}: {arm[column]}; "
                "give its module a shorter name"
            )


def _trials(connection: Connection, plan: PlannedSweep, sweep_id: int) -> None:
    upsert(connection, TrialRow, [_trial(trial) for trial in plan.trials], replace=False)
    waits = and_(TrialRow.state == State.PLANNED, TrialRow.owner.is_(None))
    trials = table(TrialRow)
    refresh = update(trials).where(trials.c.trial_id == bindparam("key"), waits)
    columns = ("code_fingerprint", "data_fingerprint", "estimated_seconds")
    refresh = refresh.values({name: bindparam(f"new_{name}") for name in columns})
    rows = [{"key": one.trial_id, **{f"new_{name}": getattr(one, name) for name in columns}} for one in plan.trials]
    if rows:
        connection.execute(refresh, rows)
    links = [
        {"sweep_id": sweep_id, "trial_id": trial.trial_id, "position": position}
        for position, trial in enumerate(plan.trials)
    ]
    upsert(connection, SweepTrialRow, links)


def _trial(trial: PlannedTrial) -> Row:
    return {
        "trial_id": trial.trial_id,
        "arm_id": trial.arm_id,
        "seed": trial.seed,
        "state": State.PLANNED.value,
        "code_fingerprint": trial.code_fingerprint,
        "data_fingerprint": trial.data_fingerprint,
        "estimated_seconds": trial.estimated_seconds,
        "forgiven": 0,
    }


def _forget_rejections(connection: Connection, plan: PlannedSweep, sweep_id: int) -> None:
    """Before they are written anew; but what is left out this time was not judged, and stays rejected."""
    left_out = set(plan.left_out)
    known = select(RejectionRow.id, RejectionRow.label).where(RejectionRow.sweep_id == sweep_id)
    judged = [row.id for row in connection.execute(known) if row.label not in left_out]
    for some in chunks(judged):
        connection.execute(delete(RejectionRow).where(RejectionRow.id.in_(some)))


def _unlink(connection: Connection, plan: PlannedSweep, sweep_id: int) -> None:
    """Take out of the sweep what its plan no longer has, but keep what already ran for an arm that the sweep has."""
    arms, whole = {arm.arm_id for arm in plan.arms}, {*plan.whole, *(arm.arm_id for arm in plan.arms)}
    trials = {trial.trial_id for trial in plan.trials}
    linked = select(TrialRow.trial_id, TrialRow.arm_id, TrialRow.state).join(
        SweepTrialRow, SweepTrialRow.trial_id == TrialRow.trial_id
    )
    known = connection.execute(linked.where(SweepTrialRow.sweep_id == sweep_id)).all()
    ran = {row.trial_id: row.arm_id for row in known if row.arm_id in whole and row.state != State.PLANNED}
    gone_trials = [
        {"sweep": sweep_id, "key": row.trial_id}
        for row in known
        if row.trial_id not in trials and row.trial_id not in ran
    ]
    links = connection.execute(select(SweepArmRow.arm_id).where(SweepArmRow.sweep_id == sweep_id)).scalars()
    gone_arms = [{"sweep": sweep_id, "key": arm_id} for arm_id in links if arm_id not in arms.union(ran.values())]
    for target, column, gone in (
        (table(SweepTrialRow), "trial_id", gone_trials),
        (table(SweepArmRow), "arm_id", gone_arms),
    ):
        if gone:
            match = and_(target.c.sweep_id == bindparam("sweep"), target.c[column] == bindparam("key"))
            connection.execute(delete(target).where(match), gone)
