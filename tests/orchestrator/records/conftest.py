"""Both databases for the records' tests, and small plans and events to fill them with."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.events import Ended, Event, Progressed, Started
from orchestrator.records.ledger import Ledger
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial, Refused
from workloads.progress import EpochDone, Finished, Predictions


class PostgreSQL:
    """The machine's own server on a free loopback port, run by an unprivileged user in a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="longrange-pg-"))
        self.user = _unprivileged()
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.call("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "longrange", "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def who(self) -> dict[str, Any]:
        """How to become that user."""
        return {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def call(self, program: str, *words: object) -> None:
        command = [self.binaries / program, *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, **self.who)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        options = [f"-p{self.port}", f"-k{self.folder}", "-clisten_addresses=127.0.0.1", "-cfsync=off"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self.who,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start within a minute"
            time.sleep(0.05)

    def _answers(self) -> bool:
        words = [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(words, check=False).returncode == 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        self.process.wait(timeout=60)

    def emptied(self) -> str:
        """The URL of a database without tables: always the same one, since making another is slow."""
        again = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        self.call("psql", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "longrange", "-d", "postgres", "-c", again)
        return f"postgresql://longrange@127.0.0.1:{self.port}/postgres"


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to become: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return debian[-1].parent if debian else None


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server programs (initdb) on this machine")
    server = PostgreSQL(binaries)
    yield server
    server.stop()
    shutil.rmtree(server.folder)


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
