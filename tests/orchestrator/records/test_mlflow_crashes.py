"""The mirror against everything that can interrupt it: kills between any two writes, other processes, errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from mirror_world import World, assert_agrees, ended, mlflow_writers

from orchestrator.errors import MirrorError
from orchestrator.records import mirroring
from orchestrator.records.engine import writing
from orchestrator.records.mlflow_mirror import Copied
from orchestrator.records.schema import State


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


class Crashing:
    """MLflow's client until the n-th writing call, which dies before or after it did its work."""

    WRITES = (
        "create_experiment",
        "create_run",
        "log_batch",
        "log_inputs",
        "set_terminated",
        "update_run",
        "delete_run",
    )

    def __init__(self, client: Any, calls: int, *, after: bool) -> None:
        self._client, self._left, self._after = client, calls, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name not in self.WRITES:
            return real

        def call(*values: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left < 0 or (self._left == 0 and not self._after):
                raise Killed  # other threads die too
            result = real(*values, **named)
            if self._left == 0:
                raise Killed
            return result

        return call


@pytest.fixture(params=[1, 3], ids=["alone", "three threads"])
def threads(request: pytest.FixtureRequest, through_client: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are written through MLflow's client, one after another, or several at once as through a server."""
    real = mlflow_writers().ClientWriter
    monkeypatch.setattr(mlflow_writers(), "ClientWriter", lambda client, _: real(client, request.param))


# A few in `make check`, all of them in CI.
CALLS = [pytest.param(n, marks=() if n in (2, 8) else pytest.mark.slow) for n in range(1, 10)]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", CALLS)
def test_a_crash_between_any_two_writes_loses_and_doubles_nothing(world: World, calls: int, after: bool) -> None:
    dying = world.mirror()
    dying._api = Crashing(dying._client, calls, after=after)
    with pytest.raises(Killed):
        dying.catch_up()
    world.mirror().catch_up()
    assert_agrees(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("portions", [1, 2, 3])
def test_a_crash_between_portions_loses_and_doubles_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, portions: int, after: bool
) -> None:
    writer = mlflow_writers().TableWriter
    real, left = writer.write, portions

    def write(self: Any, placed: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not after:
            raise Killed
        ids = real(self, placed)
        if left == 0:
            raise Killed
        return ids

    with monkeypatch.context() as dying:
        dying.setattr(writer, "portion", 2)
        dying.setattr(writer, "write", write)
        with pytest.raises(Killed):
            world.mirror().catch_up()
    world.mirror().catch_up()
    assert_agrees(world)


@pytest.mark.parametrize("calls", [1, 2, 3])
def test_a_crash_while_a_run_is_replaced(world: World, through_client: None, sample: Any, calls: int) -> None:
    world.mirror().catch_up()
    (failed,) = [copy for copy in ended(world.ledger) if copy.state is State.FAILED]
    world.ledger.reset([failed.trial_id])
    world.ledger.claim([failed.trial_id], "me", 1e9, now=500.0)
    world.ledger.apply(sample.whole(failed.trial_id, attempt=2, at=600.0), "me")
    dying = world.mirror()
    dying._api = Crashing(dying._client, calls, after=True)
    with pytest.raises(Killed):
        dying.catch_up()
    world.mirror().catch_up()
    assert_agrees(world)


def test_two_mirrors_of_one_process_do_not_copy_twice(world: World) -> None:
    done: list[Copied] = []

    def fill() -> None:
        mirror = world.mirror()
        while (one := mirror.catch_up(limit=1)) != Copied(0):
            done.append(one)
            time.sleep(0.01)

    threads = [Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.runs for one in done) == 5
    assert_agrees(world)


def test_a_lock_is_respected_until_its_holder_is_dead_or_late(world: World) -> None:
    def hold(holder: str, until: float) -> None:
        with writing(world.ledger.engine) as connection:
            mirroring.unlock(connection, f"mirror {world.uri}", holder)
            connection.exec_driver_sql("DELETE FROM locks")
            mirroring.lock(connection, f"mirror {world.uri}", holder, until, now=0.0)

    hold("another host:1:0.0:abc", time.time() + 1e6)
    assert world.mirror().catch_up() == Copied(busy=True)
    assert world.mirror().rebuild() == Copied(busy=True)
    hold("another host:1:0.0:abc", time.time() - 1)
    assert world.mirror().catch_up(limit=1) == Copied(runs=1)
    program = "from orchestrator.records.owners import new_owner; print(new_owner())"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    hold(ended.stdout.strip(), time.time() + 1e6)
    assert world.mirror().catch_up(limit=1) == Copied(runs=1)


def test_a_failure_in_the_middle_is_caught_up_with(world: World, through_client: None) -> None:
    from mlflow.exceptions import MlflowException

    mirror = world.mirror()
    client = mirror._client

    class Down:
        def __getattr__(self, name: str) -> Any:
            def call(*_: Any, **__: Any) -> Any:
                raise MlflowException("server is down")

            return call if name == "log_batch" else getattr(client, name)

    mirror._api = Down()
    with pytest.raises(MirrorError, match="server is down"):
        mirror.catch_up()
    mirror._api = client
    assert mirror.catch_up() == Copied(runs=5)
    assert_agrees(world)


CHILD = """
import sys
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Mirror
with Ledger.open(sys.argv[1]) as ledger:
    mirror = Mirror(sys.argv[2], ledger)
    for _ in range(100):
        mirror.catch_up(limit=1)
        print("one", flush=True)
"""


@pytest.mark.slow
def test_a_killed_process_is_followed_by_another(world: World, sample: Any, tmp_path: Path) -> None:
    plan = sample.plan(arms=4, seeds=10, name="more")
    world.ledger.record_plan(plan, now=50.0)
    ids = sample.ids(plan)
    world.ledger.claim(ids, "me", 1e9, now=60.0)
    mine = [claim for claim in ids if world.ledger.standing([claim])[claim].state is State.PLANNED]
    world.ledger.apply([event for trial_id in mine for event in sample.whole(trial_id)], "me")
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "l.db"), world.uri]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert child.stdout is not None
    for _ in range(3):
        assert child.stdout.readline() == b"one\n"
    time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    mirror = world.mirror()
    assert mirror.catch_up().runs > 0
    per_trial = world.query(
        "SELECT t.value, s.value, COUNT(*) FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        "JOIN tags s ON s.run_uuid = r.run_uuid WHERE t.key = 'longrange.trial_id' AND s.key = 'longrange.sweep_uid' "
        "AND r.lifecycle_stage = 'active' AND r.status <> 'RUNNING' GROUP BY t.value, s.value"
    )
    assert {count for _, _, count in per_trial} == {1}
    assert len(per_trial) == len(ended(world.ledger))
