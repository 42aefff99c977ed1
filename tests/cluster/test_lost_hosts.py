"""A sweep over three hosts, two of which are lost while it runs, ends complete. Also a script: `python PATH`.

The head has Ray's head, PostgreSQL, MLflow and the driver; the workers have Ray and know its token, and nothing else.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "support"))  # as a script; pytest has it already

import services
from hosts import Hosts
from hosts import unavailable as no_hosts
from ray_hosts import answers, environment, head_address, join, start_head, until
from services import BIN, Database

POSTGRES, MLFLOW = 5491, 5091  # ports of the head

SWEEP = """
name: lost-hosts
question: Does a sweep survive its machines?
base:
  workload: {name: "scripted:Scripted", epoch_seconds: 1.0}
  insertion: {res3: [0]}
  recipe: {epochs: 8}
control: {block: none}
axes: {list: [{block: {name: se, reduction: 4}}]}
seeds: 5
"""


def epochs(run: Path) -> list[int]:
    """The last finished epoch of every trial that has a checkpoint."""
    found = []
    for file in run.glob("checkpoints/*/state.json"):
        try:
            found.append(json.loads(file.read_text())["epoch"])
        except (ValueError, OSError):
            continue  # it is being written
    return found


@dataclass(frozen=True)
class Outcome:
    """What was left of the sweep.

    Attributes:
        output: of all processes.
        states: of the trials.
        attempts: per trial.
        causes: of attempts that did not end well.
        predictions: trials that have some.
        mirrored: finished runs in MLflow, of trials and of their sweep.
        refused: did the head send a host with another token away?
        told: secrets that are in the output or the run folder.
    """

    output: str
    states: list[str]
    attempts: list[int]
    causes: set[str]
    predictions: int
    mirrored: int
    refused: bool
    told: list[str]


@contextmanager
def tracking(hosts: Hosts, folder: Path, passwords: Mapping[str, str]) -> Iterator[tuple[Database, str]]:
    """PostgreSQL and MLflow on the head; gives the database and MLflow's address. MLflow is starting still."""

    def start(command: Any, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        return hosts.start("head", command, env)

    place = folder / "mlflow"
    place.mkdir()
    with (
        services.postgres(start, passwords, address=hosts.address("head"), port=POSTGRES) as database,
        services.mlflow(start, passwords, database, place, MLFLOW) as mlflow,
    ):
        yield database, mlflow


def lose_hosts(folder: Path, temp: Path) -> Outcome:
    """Run the sweep, cut one worker's link, switch the other off and replace it."""
    passwords = services.new_passwords()
    env = environment(folder, secrets.token_hex(32))
    stranger = environment(folder, secrets.token_hex(32))
    (folder / "sweep.yaml").write_text(SWEEP)
    hosts = Hosts(("head", "one", "two"), folder)
    with hosts, tracking(hosts, folder, passwords) as (database, mlflow):
        start_head(hosts, env, temp)
        refused = not answers(hosts, "one", stranger)
        for name in ("one", "two"):
            join(hosts, name, env, cpus=2)
        assert hosts.start("head", services.healthy(mlflow), env).wait() == 0, hosts.output()
        command = [
            *(str(BIN / "longrange"), "run", str(folder / "sweep.yaml"), "--out", str(folder / "run")),
            *("--ray", head_address(hosts), "--quiet", "--json"),
            *("--ledger", database.url("ledger", "ledger"), "--mlflow", mlflow),
        ]
        known = {"PGPASSWORD": passwords["LEDGER_PASSWORD"], "MLFLOW_TRACKING_USERNAME": "admin"}
        known |= {"MLFLOW_TRACKING_PASSWORD": passwords["ADMIN"], "MLFLOW_DISABLE_TELEMETRY": "true"}
        driver = hosts.start("head", command, env | known)
        code = _disturb(hosts, driver, folder / "run", env)
        output = hosts.output()
        assert code == 0, output
        return _outcome(database, passwords, folder / "run", output, refused)


def _disturb(hosts: Hosts, driver: subprocess.Popen[bytes], run: Path, env: dict[str, str]) -> int:
    """Lose both workers once trials run; gives the driver's exit code."""
    try:
        until(lambda: sum(epoch >= 1 for epoch in epochs(run)) >= 3 or driver.poll() is not None, 180, "trials run")
        hosts.cut("one")
        time.sleep(3)
        hosts.kill("two")
        join(hosts, "two", env, cpus=2)
        return driver.wait(timeout=300)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise AssertionError(f"{error}\n{hosts.output()}") from error


def _outcome(database: Database, passwords: Mapping[str, str], run: Path, output: str, refused: bool) -> Outcome:
    def ledger(statement: str) -> list[str]:
        return database.psql("ledger_reader", passwords["LEDGER_READER_PASSWORD"], "ledger", statement).stdout.split()

    finished = "SELECT count(*) FROM runs WHERE status = 'FINISHED'"
    mirrored = database.psql("mlflow", passwords["MLFLOW_DB_PASSWORD"], "mlflow", finished)
    kept = output + "".join(path.read_text(errors="replace") for path in run.rglob("*") if path.is_file())
    return Outcome(
        output=output,
        states=ledger("SELECT state FROM trials"),
        attempts=[int(count) for count in ledger("SELECT count(*) FROM attempts GROUP BY trial_id")],
        causes=set(ledger("SELECT cause FROM attempts WHERE cause IS NOT NULL")),
        predictions=len(ledger("SELECT DISTINCT trial_id FROM predictions")),
        mirrored=int(mirrored.stdout),
        refused=refused,
        told=[name for name, value in passwords.items() if value in kept],
    )


@pytest.mark.slow(seconds=110)
@pytest.mark.ray
def test_a_sweep_survives_a_cut_link_and_a_lost_machine(tmp_path: Path) -> None:
    if reason := no_hosts() or services.unavailable():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as short:  # Ray's sockets need short paths
        found = lose_hosts(tmp_path, Path(short))
    assert found.refused, "a stranger's token was accepted"
    assert found.states == ["finished"] * 10, found.output
    assert found.predictions == 10
    assert max(found.attempts) >= 2, "no trial was lost: the test lost no host in time"
    assert found.causes == {"lost"}, found.output
    assert found.mirrored == 11, "ten trials and their sweep"
    assert found.told == []


if __name__ == "__main__":
    if why := no_hosts() or services.unavailable():
        sys.exit(why)
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as place:
        (Path(place) / "f").mkdir()
        told = lose_hosts(Path(place) / "f", Path(place) / "r")
    print(told.output[-3000:])
    print({name: value for name, value in vars(told).items() if name != "output"})
