"""A ledger with trials of every end and an MLflow store to mirror it to, and what must hold between them."""

from __future__ import annotations

import importlib
import json
import math
import sqlite3
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.records import mirroring
from orchestrator.records.engine import reading
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Mirror

DATASETS_OF_RUN = """
SELECT datasets.name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile, step,
       datasets.experiment_id, input_tags.name, input_tags.value
FROM inputs JOIN datasets ON dataset_uuid = source_id LEFT JOIN input_tags USING (input_uuid)
WHERE source_type = 'DATASET' AND destination_type = 'RUN' AND destination_id = ?
"""


@dataclass
class World:
    """A ledger with trials of every end, and a store to mirror it to."""

    ledger: Ledger
    file: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.file}"

    def mirror(self) -> Mirror:
        return Mirror(self.uri, self.ledger)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.file)) as database:
            return database.execute(statement, values).fetchall()

    def runs(self) -> dict[str, dict[str, Any]]:
        """trial_id -> what MLflow's own tables say of its run; two runs of one trial fail."""
        found: dict[str, dict[str, Any]] = {}
        for run_id, status, start, end in self.query(
            "SELECT run_uuid, status, start_time, end_time FROM runs WHERE lifecycle_stage = 'active'"
        ):
            tags = dict(self.query("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
            key = tags.get("longrange.trial_id", "parent")
            assert key not in found, f"{key} has two runs"
            metrics = {
                (name, step): math.nan if is_nan else value
                for name, step, value, is_nan in self.query(
                    "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ?", run_id
                )
            }
            params = dict(self.query("SELECT key, value FROM params WHERE run_uuid = ?", run_id))
            found[key] = {
                "data": self.query(DATASETS_OF_RUN, run_id),
                "run_id": run_id,
                "status": status,
                "times": (start, end),
                "tags": tags,
                "metrics": metrics,
                "params": params,
            }
        return found


def mlflow_writers() -> Any:
    """Imported in tests only: mlflow warns while it is imported, and takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("orchestrator.records.mlflow_writers")


def ended(ledger: Ledger) -> list[mirroring.Copy]:
    """What the ledger says has ended, whatever was mirrored."""
    with reading(ledger.engine) as connection:
        return mirroring.pending(connection, "no such store", limit=10_000)


def assert_agrees(world: World) -> None:
    """Ledger and MLflow, row by row."""
    runs = world.runs()
    parent = runs.pop("parent")
    copies = {copy.trial_id: copy for copy in ended(world.ledger)}
    assert set(runs) == set(copies)
    for trial_id, copy in copies.items():
        run = runs[trial_id]
        expected = {(point.name, point.epoch): point.value for point in copy.points}
        last = max((point.epoch for point in copy.points), default=0)
        expected |= {(f"final/{name}", last): value for name, value in copy.results.items()}
        expected |= {("model/params", 0): copy.params, ("model/executed_macs", 0): copy.executed_macs}
        assert {key: None if math.isnan(value) else value for key, value in run["metrics"].items()} == expected
        assert run["times"] == (round(copy.started_at * 1000), round(copy.ended_at * 1000))
        assert run["tags"]["longrange.state"] == copy.state
        assert run["tags"]["longrange.arm"] == copy.label
        assert run["tags"]["mlflow.parentRunId"] == parent["run_id"]
        ((name, digest, _, source, *_, context, use),) = run["data"]
        assert (name, digest) == (copy.spec["workload"]["name"], copy.data_fingerprint)
        assert (json.loads(source), context, use) == (copy.spec["workload"], "mlflow.data.context", "training")
        assert run["params"]["seed"] == str(copy.seed)
        assert run["params"]["block.name"] == copy.spec["block"]["name"]
