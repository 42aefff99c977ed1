"""Ledgers on both databases for the records' tests, small plans and events to fill them with, and an MLflow store."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mirror_world import World, mlflow_writers
from postgres import PostgreSQL

from orchestrator.events import AttemptFailed, Ended, Event, Progressed, Started
from orchestrator.failures import Cause
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Mirror
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial, Refused
from workloads.progress import EpochDone, Finished, Predictions


@pytest.fixture(params=["sqlite", "postgresql"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Where an empty ledger may be made: an awkward path, or a fresh database."""
    if request.param == "sqlite":
        return tmp_path / "with space, ü#?%20" / "ledger.db"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.emptied()


@pytest.fixture
def ledger(location: str | Path) -> Iterator[Ledger]:
    with Ledger.open(location) as opened:
        yield opened


@dataclass
class Sample:
    """Small plans, and the events of trials that go well."""

    spec: dict[str, Any] = field(
        default_factory=lambda: {
            "workload": {"name": "digits"},
            "backbone": {"name": "resnet_tiny", "frames": 8},
            "block": {"name": "nl"},
            "insertion": {"res3": [1]},
            "recipe": {"epochs": 2, "batch": 32},
            "protocol": {"clips": 1},
        }
    )

    def trial_id(self, arm: int, seed: int) -> str:
        return f"{arm:08x}{seed:08x}"

    def plan(self, *, arms: int = 2, seeds: int = 3, name: str = "which <block>?") -> PlannedSweep:
        return PlannedSweep(
            name,
            question="Which block?",
            definition={"seeds": seeds},
            arms=[self.arm(number) for number in range(arms)],
            trials=[
                PlannedTrial(self.trial_id(arm, seed), f"{arm:016x}", seed, "code-1", "data-1", 8.5)
                for seed in range(seeds)
                for arm in range(arms)
            ],
            rejections=[Refused("g1=7", {"block.g1": 7}, "7 does not divide 64 channels")],
        )

    def arm(self, number: int, **changes: Any) -> PlannedArm:
        block = {"name": "none" if number == 0 else "nl"}
        values: dict[str, Any] = {
            "label": f"arm {number}",
            "spec": {**self.spec, "block": block},
            "settings": {"block.name": block["name"]},
            "is_control": number == 0,
            "profile": {"params": 10**10 + number, "executed_macs": 10**13 + number},
        }
        return PlannedArm(f"{number:016x}", **{**values, **changes})

    def ids(self, plan: PlannedSweep) -> list[str]:
        return [trial.trial_id for trial in plan.trials]

    def started(self, trial_id: str, attempt: int = 1, at: float = 100.0, **changes: Any) -> Started:
        values: dict[str, Any] = {"host": "here", "device": "cpu", "environment": {"python": "3.11", "cores": 2}}
        return Started(trial_id, attempt, at, **{**values, **changes})

    def epoch(self, trial_id: str, epoch: int, attempt: int = 1, at: float = 101.0, loss: float = 0.5) -> Progressed:
        return Progressed(trial_id, attempt, at, EpochDone(epoch, {"train_loss": loss, "top1_percent": 50.0}, 1.5))

    def result(self, top1: float = 75.0) -> Finished:
        scores = np.array([[0.25, 0.5], [1.0, 0.0], [0.0, 2.0]], dtype=np.float16)
        predictions = Predictions(("clip a", "clip ß", "c"), np.array([1, 0, 0]), scores)
        return Finished({"top1_percent": top1}, predictions, {"latency_ms": (1.0, 2.0, 1.5)}, ("skipped 1 clip",))

    def ended(self, trial_id: str, attempt: int = 1, at: float = 110.0, **changes: Any) -> Ended:
        values: dict[str, Any] = {"state": "finished", "result": self.result()}
        return Ended(trial_id, attempt, at, **{**values, **changes})

    def whole(self, trial_id: str, attempt: int = 1, epochs: int = 2, at: float = 100.0) -> list[Event]:
        """A trial from its start to its result, one second per event."""
        middle = [self.epoch(trial_id, epoch, attempt, at + 1 + epoch) for epoch in range(epochs)]
        return [self.started(trial_id, attempt, at), *middle, self.ended(trial_id, attempt, at + 1 + epochs)]


@pytest.fixture
def sample() -> Sample:
    return Sample()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose tables are made: that takes MLflow several seconds, so tests copy this one."""
    folder = tmp_path_factory.mktemp("store")
    with Ledger.open(folder / "l.db") as ledger:
        Mirror(f"sqlite:///{folder}/mlflow.db", ledger).catch_up()
        assert Mirror(f"sqlite:///{folder}/mlflow.db", ledger)._client.search_experiments()
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "mlflow.db"


@pytest.fixture
def world(tmp_path: Path, empty_store: Path, sample: Any) -> Iterator[World]:
    file = tmp_path / "store ü #1" / "mlflow.db"
    file.parent.mkdir()
    shutil.copy(empty_store, file)
    with Ledger.open(tmp_path / "l.db") as ledger:
        plan = sample.plan(arms=2, seeds=4, name="<script>alert(1)</script> & co")
        ledger.record_plan(plan, now=50.0)
        ids = sample.ids(plan)
        ledger.claim(ids, "me", 1e9, now=60.0)
        nan = Progressed(ids[1], 1, 101.0, EpochDone(0, {"train_loss": math.nan}, 1.25))
        ledger.apply(
            [
                *sample.whole(ids[0]),
                sample.started(ids[1]),
                nan,
                sample.ended(ids[1], state="diverged", result=None, cause=Cause.DIVERGED, message="<b>nan</b>"),
                sample.started(ids[2]),
                AttemptFailed(ids[2], 1, 105.0, Cause.BUG, "boom", "Traceback", retried=False),
                sample.ended(ids[2], state="failed", result=None),
                sample.ended(ids[3], state="cancelled", result=None),
                sample.started(ids[4]),
                *sample.whole(ids[5], at=300.0),
            ],
            "me",
        )
        yield World(ledger, file)


@pytest.fixture
def through_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the store's tables were of an MLflow that `TableWriter` does not know."""
    monkeypatch.setitem(mlflow_writers().KNOWN, "tags", {"key", "value", "run_uuid", "new column"})


@pytest.fixture
def source(tmp_path: Path, sample: Any) -> Ledger:
    """Six trials: two finished, one diverged, one failed, one running, one waiting."""
    ledger = Ledger.open(tmp_path / "source" / "ledger.db")
    plan = sample.plan()
    ids = sample.ids(plan)
    ledger.record_plan(plan, now=50.0)
    ledger.introduce("driver", {"command": ["longrange", "run"]})
    ledger.keep_diff("d" * 16, b"diff")
    ledger.claim(ids, "driver", 60.0, now=90.0)
    facts = {"python": "3.11", "git_diff": "d" * 16}
    fail = AttemptFailed(ids[3], 1, 104.0, Cause.BUG, "KeyError: ü", "Traceback\n  a line", retried=False)
    ledger.apply(
        [
            *sample.whole(ids[0]),
            *sample.whole(ids[1]),
            *[sample.started(ids[2], environment=facts), sample.epoch(ids[2], 0, loss=float("nan"))],
            sample.ended(ids[2], state="diverged", result=None, cause=Cause.DIVERGED),
            *[sample.started(ids[3]), fail, sample.ended(ids[3], state="failed", result=None)],
            *[sample.started(ids[4]), sample.epoch(ids[4], 0)],
        ],
        "driver",
    )
    return ledger
