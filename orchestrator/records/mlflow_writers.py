"""Two ways to write runs into an MLflow store: through MLflow's client, or straight into its tables, many at once.

The client works with every store and server, at about 30 ms of Python per run; through a server, whose own work per
run is three times that, several runs are written at once. `TableWriter` makes the very same rows (a test compares them)
twenty times faster. It is used only where it recognises the tables, column by column; otherwise,
after a change in MLflow say, the client is used. Imports mlflow, like `mlflow_mirror`, and is imported by it lazily.
"""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from sqlalchemy import Connection, Engine, MetaData, Table, event, insert, select
from sqlalchemy.exc import NoSuchTableError

from orchestrator.records.mirroring import Copy
from orchestrator.records.mlflow_runs import CONTEXT, NAME, STATUS, Data, data, metrics, milliseconds, params, tags

METRICS_PER_CALL, PARAMS_PER_CALL = 1_000, 100  # MLflow's own limits
SERVER_THREADS = 4  # more make no server faster on the machines this was tried on
RUNS_PER_THREAD = 4  # in a portion: the last one of every portion waits for the others

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
KNOWN_INPUTS = {
    "datasets": {
        *("dataset_uuid", "experiment_id", "name", "digest", "dataset_source_type", "dataset_source"),
        *("dataset_schema", "dataset_profile"),
    },
    "inputs": {"input_uuid", "source_type", "source_id", "destination_type", "destination_id", "step"},
    "input_tags": {"input_uuid", "name", "value"},
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
    """Four calls per run, one after another; `threads` runs at once, each thread over a connection of its own."""

    def __init__(self, client: Any, threads: int = 1) -> None:
        self._client = client
        self._threads = threads
        self._datasets: set[tuple[str, Data]] = set()  # that are there
        self.portion = 1 if threads == 1 else RUNS_PER_THREAD * threads

    def write(self, placed: Sequence[Placed]) -> list[str]:
        if self._threads == 1:
            return [self._write(one) for one in placed]
        ids: dict[Placed, str] = {}
        for one in placed:  # the first run of a dataset makes it: two that do so at once break MLflow
            if (used := (one.experiment_id, data(one.copy))) not in self._datasets:
                ids[one] = self._write(one)
                self._datasets.add(used)
        rest = [one for one in placed if one not in ids]
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="mlflow")
        try:
            ids |= zip(rest, pool.map(self._write, rest), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # after an error: what has begun ends, the rest is for the next time
        return [ids[one] for one in placed]

    def _write(self, place: Placed) -> str:
        copy = place.copy
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
        used = data(copy)
        dataset = Dataset(used.name, used.digest, used.source_type, used.source)
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, [InputTag(*CONTEXT)])])
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
        # Tables that MLflow adds later do not matter; those written here must be just as they were.
        if engine is None or os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("1", "true"):
            return None
        found = MetaData()
        try:
            known = KNOWN | KNOWN_INPUTS
            tables = {name: Table(name, found, autoload_with=engine, resolve_fks=False) for name in known}
        except NoSuchTableError:
            return None
        same = all(set(tables[name].columns.keys()) == columns for name, columns in known.items())
        return cls(engine, tables) if same else None

    def write(self, placed: Sequence[Placed]) -> list[str]:
        if not placed:
            return []
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in KNOWN}
        ids = [uuid4().hex for _ in placed]
        for run_id, one in zip(ids, placed, strict=True):
            _add_rows(rows, run_id, one)
        with self._engine.begin() as connection:
            for name, some in rows.items():
                if some:
                    connection.execute(insert(self._tables[name]), some)
            self._write_inputs(connection, list(zip(ids, placed, strict=True)))
        return ids

    def _write_inputs(self, connection: Connection, placed: Sequence[tuple[str, Placed]]) -> None:
        datasets: dict[tuple[str, Data], str] = {}
        inputs, contexts = [], []
        for run_id, one in placed:
            used = (one.experiment_id, data(one.copy))
            if used not in datasets:
                datasets[used] = self._dataset(connection, *used)
            input_id = uuid4().hex
            source = {"source_type": "DATASET", "source_id": datasets[used]}
            run = {"destination_type": "RUN", "destination_id": run_id}
            inputs.append({"input_uuid": input_id, **source, **run, "step": 0})
            contexts.append({"input_uuid": input_id, "name": CONTEXT[0], "value": CONTEXT[1]})
        connection.execute(insert(self._tables["inputs"]), inputs)
        connection.execute(insert(self._tables["input_tags"]), contexts)

    def _dataset(self, connection: Connection, experiment_id: str, used: Data) -> str:
        """The id of a dataset in an experiment, made if need be."""
        columns = self._tables["datasets"].c
        key = {"experiment_id": int(experiment_id), "name": used.name, "digest": used.digest}
        same = [columns[name] == value for name, value in key.items()]
        known = connection.execute(select(columns.dataset_uuid).where(*same)).scalar()
        if known is not None:
            return str(known)
        made = uuid4().hex
        source = {"dataset_source_type": used.source_type, "dataset_source": used.source}
        connection.execute(insert(self._tables["datasets"]), [{"dataset_uuid": made, **key, **source}])
        return made


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


def make_fast(client: Any, file: Path) -> None:
    """Fewer flushes, and a UI that reads does not block this writer; a mirror lost with the power can be rebuilt."""
    with contextlib.closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA journal_mode = WAL")  # the file remembers it
    engine = engine_of(client)
    if engine is not None:
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"))
        engine.dispose()


def engine_of(client: Any) -> Engine | None:
    """The store's connection pool. Not part of MLflow's interface: without it everything works, but slower."""
    found = getattr(getattr(getattr(client, "_tracking_client", None), "store", None), "engine", None)
    return found if isinstance(found, Engine) else None
