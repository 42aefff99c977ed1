"""What a ledger holds, as plain rows; and a small plan whose trials a driver holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from orchestrator.events import AttemptFailed
from orchestrator.failures import Cause
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import (
    Base,
    EpochMetricRow,
    State,
)

Rows = list[dict[str, Any]]


def rows(ledger: Ledger, kind: type[Base]) -> Rows:
    with ledger.engine.connect() as connection:
        found = connection.execute(select(kind.__table__)).mappings()
        return sorted((dict(row) for row in found), key=repr)


def everything(ledger: Ledger) -> dict[str, Rows]:
    return {mapper.class_.__tablename__: rows(ledger, mapper.class_) for mapper in Base.registry.mappers}


def series(ledger: Ledger, trial_id: str, name: str = "train_loss") -> dict[int, float]:
    found = rows(ledger, EpochMetricRow)
    return {row["epoch"]: row["value"] for row in found if (row["trial_id"], row["name"]) == (trial_id, name)}


def states(ledger: Ledger, trial_ids: Sequence[str]) -> list[State]:
    standing = ledger.standing(trial_ids)
    return [standing[trial_id].state for trial_id in trial_ids]


def failed(trial_id: str, cause: Cause, attempt: int = 1, at: float = 105.0, retried: bool = True) -> AttemptFailed:
    return AttemptFailed(trial_id, attempt, at, cause, f"because {cause}", "Traceback ...", retried)


def claimed(ledger: Ledger, sample: Any, owner: str = "driver", **plan: Any) -> list[str]:
    """A recorded plan whose trials `owner` holds."""
    planned = sample.plan(**plan)
    ledger.record_plan(planned, now=1.0)
    ids: list[str] = sample.ids(planned)
    ledger.claim(ids, owner, lease_seconds=60.0, now=10.0)
    return ids
