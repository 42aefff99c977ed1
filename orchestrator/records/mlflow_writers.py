"""Two ways to write runs into an MLflow store: through MLflow's client, or straight into its tables, many at once.

The client works with every store and server, at about 30 ms of Python per run. `TableWriter` makes the very same rows
(a test compares them) twenty times faster. It is used only where it recognises the tables, column by column; otherwise,
after a change in MLflow say, the client is used. Imports mlflow, like `mlflow_mirror`, and is imported by it lazily.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

from mlflow.entities import Metric, Param
from sqlalchemy import Engine, MetaData, Table, insert
from sqlalchemy.exc import NoSuchTableError

from orchestrator.records.mirroring import Copy
from orchestrator.records.mlflow_runs import NAME, STATUS, metrics, milliseconds, params, tags

METRICS_PER_CALL, PARAMS_PER_CALL = 1_000, 100  # MLflow's own limits

POINT = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}
KNOWN = {
    "runs": {
        *("run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status", "start_time"),
        *("end_time", "deleted_time", "source_version", "lifecycle_stage", "artifact_uri", "experiment_id"),
    },
    "tags": {"key", "value", "run_uuid"},
    "params": {"key", "value", "run_uuid"},
    "metrics": POINT,
    "latest_metrics": POINT,
}


@dataclass(frozen=True)
class Placed:
    """A trial and its place in the store."""

    copy: Copy
    experiment_id: str
    parent: str
    artifacts: str  # URI of the experiment's artifacts


class Writer(Protocol):
    """Writes complete runs; `portion` is how many at a time, the most that a crash leaves unmarked."""

    portion: int

    def write(self, placed: Sequence[Placed]) -> list[str]:
        """The ids of the runs written, in order; each run's final status is written last, or with all the rest."""


class ClientWriter:
    """Three calls per run."""

    portion = 1

    def __init__(self, client: Any) -> None:
        self._client = client

    def write(self, placed: Sequence[Placed]) -> list[str]:
        return [self._write(one.copy, one) for one in placed]

    def _write(self, copy: Copy, place: Placed) -> str:
        start = milliseconds(copy.started_at)
        run = self._client.create_run(place.experiment_id, start, tags(copy, place.parent))
        run_id = str(run.info.run_id)
        values = [Metric(one.name, one.value, one.at_ms, one.step) for one in metrics(copy)]
        given = [Param(name, value) for name, value in params(copy).items()]
        calls = max(-(-len(values) // METRICS_PER_CALL), -(-len(given) // PARAMS_PER_CALL))
        for call in range(calls):
            self._client.log_batch(
                run_id,
                metrics=values[call * METRICS_PER_CALL : (call + 1) * METRICS_PER_CALL],
                params=given[call * PARAMS_PER_CALL : (call + 1) * PARAMS_PER_CALL],
            )
        self._client.set_terminated(run_id, STATUS[copy.state], milliseconds(copy.ended_at))
        return run_id


class TableWriter:
    """One transaction for many runs."""

    portion = 50

    def __init__(self, engine: Engine, tables: dict[str, Table]) -> None:
        self._engine = engine
        self._tables = tables

    @classmethod
    def of(cls, engine: Engine | None) -> TableWriter | None:
        """A writer, if the store behind `engine` has exactly the tables this class knows."""
        if engine is None or os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("1", "true"):
            return None
        found = MetaData()
        try:
            tables = {name: Table(name, found, autoload_with=engine, resolve_fks=False) for name in KNOWN}
        except NoSuchTableError:
            return None
        same = all(set(tables[name].columns.keys()) == columns for name, columns in KNOWN.items())
        return cls(engine, tables) if same else None

    def write(self, placed: Sequence[Placed]) -> list[str]:
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in KNOWN}
        ids = [uuid4().hex for _ in placed]
        for run_id, one in zip(ids, placed, strict=True):
            _add_rows(rows, run_id, one)
        with self._engine.begin() as connection:
            for name, some in rows.items():
                if some:
                    connection.execute(insert(self._tables[name]), some)
        return ids


def _add_rows(rows: dict[str, list[dict[str, Any]]], run_id: str, place: Placed) -> None:
    copy = place.copy
    named = tags(copy, place.parent)
    rows["runs"].append(
        {
            "run_uuid": run_id,
            "name": named[NAME],
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "user_id": "unknown",
            "status": STATUS[copy.state],
            "start_time": milliseconds(copy.started_at),
            "end_time": milliseconds(copy.ended_at),
            "deleted_time": None,
            "source_version": "",
            "lifecycle_stage": "active",
            "artifact_uri": f"{place.artifacts}/{run_id}/artifacts",
            "experiment_id": int(place.experiment_id),
        }
    )
    rows["tags"] += [{"key": name, "value": value, "run_uuid": run_id} for name, value in named.items()]
    rows["params"] += [{"key": name, "value": value, "run_uuid": run_id} for name, value in params(copy).items()]
    points = [
        {
            "key": one.name,
            "value": 0.0 if math.isnan(one.value) else one.value,
            "timestamp": one.at_ms,
            "step": one.step,
            "is_nan": math.isnan(one.value),
            "run_uuid": run_id,
        }
        for one in metrics(copy)
    ]
    newest = {point["key"]: point for point in sorted(points, key=lambda point: (point["step"], point["timestamp"]))}
    rows["metrics"] += points
    rows["latest_metrics"] += list(newest.values())
