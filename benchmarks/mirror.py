"""How fast ended trials are copied into MLflow: straight into its SQLite tables, and through `mlflow server`.

    python -m benchmarks.mirror [--trials 10000] [--through-server 1500] [--json FILE]

All in one run on one ledger, every trial with 20 metrics. Making the ledger, MLflow's tables and starting the servers
are not counted. The servers work without job execution on SQLite: one process on a file as MLflow makes it, one and two
on a file that keeps a write-ahead log. MLflow commits five times per trial, and in a file as MLflow makes it a commit
waits for several flushes of the disk while nobody else may write: how long one flush takes is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from orchestrator.events import Ended, Event, Progressed, Started
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Mirror
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial
from workloads.progress import EpochDone, Finished

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from mlflow_server import MlflowServer

from benchmarks import record

SERVERS = {  # name of the finding: workers, write-ahead log
    "through_server": (1, False),
    "through_server_with_write_ahead_log": (1, True),
    "through_two_workers_with_write_ahead_log": (2, True),
}
FLUSHES = 50
METRICS = 20
ARMS = 100
SPEC = {
    "workload": {"name": "digits", "size": 32, "frames": 8},
    "backbone": {"name": "tsm_resnet50", "frames": 8, "size": 224, "classes": 400},
    "block": {"name": "rnl", "affinity": "gaussian", "kernel": [3, 7, 7], "reduction": 2},
    "insertion": {"res3": [1, 3], "res4": [1, 3, 5]},
    "recipe": {"epochs": 1, "batch": 32, "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4},
    "protocol": {"clips": 10, "crops": "three"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000, help="copied straight to the store")
    parser.add_argument("--through-server", type=int, default=1_500, help="of these, copied through each server")
    parser.add_argument("--json", type=Path, help="the findings  [default: benchmarks/results/mirror-cpu.json]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="longrange-mirror-") as place:
        folder = Path(place)
        with Ledger.open(folder / "ledger.db") as ledger:
            fill(ledger, given.trials)
            found: dict[str, Any] = {
                "metrics_per_trial": METRICS,
                "straight_to_sqlite": copied(Mirror(f"sqlite:///{folder}/straight.db", ledger), given.trials),
                **{name: served(folder, ledger, name, given.through_server) for name in SERVERS},
                "goals_trials_per_second": {"straight_to_sqlite": 40, "through_server": 15},
            }
    print(json.dumps(found, indent=2))
    print(f"written to {record.write('mirror', 'cpu', found, given.json)}")


def fill(ledger: Ledger, trials: int) -> None:
    """A ledger of finished trials."""
    arms = [
        PlannedArm(f"{arm:016x}", f"rnl r={arm}", {**SPEC, "block": {**SPEC["block"], "reduction": arm}}, {}, arm == 0)
        for arm in range(min(ARMS, trials))
    ]
    planned = [PlannedTrial(f"{index:016x}", arms[index % len(arms)].arm_id, index // ARMS) for index in range(trials)]
    ledger.record_plan(PlannedSweep("mirror benchmark", "How fast?", {}, arms, planned), now=1.0)
    ids = [trial.trial_id for trial in planned]
    ledger.claim(ids, "benchmark", 1e9, now=2.0)
    for start in range(0, trials, 500):
        ledger.apply([event for trial in ids[start : start + 500] for event in story(trial)], "benchmark")


def story(trial_id: str) -> list[Event]:
    """A trial from its start to its result."""
    metrics = {f"metric_{index}": 0.5 + index for index in range(METRICS - 1)}
    return [
        Started(trial_id, 1, 100.0, "here", "cpu", environment={"python": "3.11", "git_sha": "0" * 40}),
        Progressed(trial_id, 1, 101.0, EpochDone(0, metrics, 1.0)),
        Ended(trial_id, 1, 102.0, "finished", Finished({"top1_percent": 50.0}, None, {}, ())),
    ]


def served(folder: Path, ledger: Ledger, name: str, trials: int) -> dict[str, Any]:
    """Copy so many trials through a server of its own."""
    workers, write_ahead = SERVERS[name]
    file = folder / f"{name}.db"
    with MlflowServer(f"sqlite:///{file}", folder, workers) as server:
        if write_ahead:
            with closing(sqlite3.connect(file)) as database:
                database.execute("PRAGMA journal_mode = WAL")
        found = copied(Mirror(server.address, ledger), trials, psutil.Process(server.process.pid))
    return {"disk_flush_ms": flush_ms(folder)} | found


def flush_ms(folder: Path) -> float:
    """The median time a page of a new file takes to be on the disk."""
    took = []
    with (folder / "flushed").open("wb", buffering=0) as file:
        for _ in range(FLUSHES):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            took.append(1000 * (time.perf_counter() - start))
    return round(statistics.median(took), 2)


def copied(mirror: Mirror, trials: int, process: psutil.Process | None = None) -> dict[str, Any]:
    """Copy so many trials; the first one, which makes experiment and tables, is not counted."""
    mirror.catch_up(limit=1)
    before = cpu_seconds(process)
    start = time.perf_counter()
    done = mirror.catch_up(limit=trials - 1).runs
    seconds = time.perf_counter() - start
    found = {
        "trials": done,
        "seconds": round(seconds, 2),
        "trials_per_second": round(done / seconds, 1),
    }
    cpu = {name: after - before[name] for name, after in cpu_seconds(process).items()}
    return found | {f"{name}_cpu_ms_per_trial": round(1000 * seconds / done, 2) for name, seconds in cpu.items()}


def cpu_seconds(process: psutil.Process | None) -> dict[str, float]:
    """What this process, and the server with its children, have computed."""
    family = {"client": [psutil.Process()]}
    if process is not None:
        family["server"] = [process, *process.children(recursive=True)]
    return {name: sum(sum(one.cpu_times()[:2]) for one in several) for name, several in family.items()}


if __name__ == "__main__":
    main()
