"""The mirror against the ledger, row by row; and against everything that can interrupt it."""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from orchestrator.errors import LongrangeError, MirrorError, UserError
from orchestrator.events import AttemptFailed, Progressed
from orchestrator.failures import Cause
from orchestrator.records import mirroring
from orchestrator.records.engine import reading, writing
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Copied, Mirror
from orchestrator.records.mlflow_runs import data
from orchestrator.records.schema import State
from workloads.progress import EpochDone


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


def test_the_store_agrees_with_the_ledger(world: World) -> None:
    assert world.mirror().catch_up() == Copied(runs=5)
    assert_agrees(world)
    status = {run["tags"].get("longrange.state"): run["status"] for run in world.runs().values()}
    assert status == {
        None: "RUNNING",  # the sweep's own: one trial runs, two wait
        "finished": "FINISHED",
        "diverged": "FAILED",
        "failed": "FAILED",
        "cancelled": "KILLED",
    }


def test_both_ways_of_writing_make_the_same_rows(
    world: World, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column of every table, but for random ids and the place of artifacts."""
    other = World(world.ledger, tmp_path / "other" / "mlflow.db")
    other.file.parent.mkdir()
    shutil.copy(empty_store, other.file)
    world.mirror().catch_up()
    with monkeypatch.context() as changed:
        changed.setattr(mlflow_writers().TableWriter, "of", lambda _: None)
        other.mirror().catch_up()
    assert content(world) == content(other)
    assert len(content(world)["metrics"]) > 10


def content(world: World) -> dict[str, list[tuple[Any, ...]]]:
    ids = {run["run_id"]: f"run of {key}" for key, run in world.runs().items()}
    found = {}
    for name, text in world.query("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        if "run_uuid" not in text and name != "experiments":
            continue
        rows = [
            tuple(ids.get(cell, cell if "mlartifacts" not in str(cell) else cell.rpartition("/")[2]) for cell in row)
            for row in world.query(f"SELECT * FROM {name} WHERE '{name}' <> 'experiments'")
        ]
        found[name] = sorted(rows, key=repr)
    found["data"] = sorted(row for run in world.runs().values() for row in run["data"])
    return found


def test_trials_share_the_dataset_of_their_workload(world: World) -> None:
    world.mirror().catch_up(limit=2)
    world.mirror().catch_up()
    assert world.query("SELECT name, digest FROM datasets") == [("digits", "data-1")]
    assert world.query("SELECT count(*) FROM inputs") == [(5,)]
    client = world.mirror()._client
    run = client.get_run(next(run["run_id"] for key, run in world.runs().items() if key != "parent"))
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("digits", "data-1", "training")


def test_data_without_a_fingerprint_is_known_by_its_configuration(world: World) -> None:
    copy = replace(ended(world.ledger)[0], data_fingerprint="")
    other = replace(copy, spec={**copy.spec, "workload": {"name": "digits", "frames": 16}})
    assert len(data(copy).digest) == 36
    assert data(copy) == data(replace(copy, seed=7))
    assert data(copy).digest != data(other).digest


def test_the_client_is_used_where_tables_are_unknown(world: World, through_client: None) -> None:
    assert world.mirror().catch_up() == Copied(runs=5)
    assert_agrees(world)


def test_runs_can_be_searched_and_compared(world: World) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    run = next(run for run in world.runs().values() if run["tags"].get("longrange.control") == "false")
    expected = {
        "longrange.block": "nl",
        "longrange.backbone": "resnet_tiny",
        "longrange.workload": "digits",
        "longrange.stage": "res3",
        "longrange.insertion": '{"res3": [1]}',
        "longrange.sweep": "<script>alert(1)</script> & co",
    }
    assert expected.items() <= run["tags"].items()
    assert {"recipe.epochs": "2", "insertion.res3": "[1]", "backbone.frames": "8"}.items() <= run["params"].items()
    client = mirror._client
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    assert experiment.name == "<script>alert(1)</script> & co"
    best = client.search_runs(
        [experiment.experiment_id], "tags.`longrange.block` = 'none' and metrics.`final/top1_percent` > 70"
    )
    assert [one.data.params["seed"] for one in best] == ["0"]
    assert [point.step for point in client.get_metric_history(best[0].info.run_id, "train_loss")] == [0, 1]


def test_the_question_is_shown_as_text(world: World, sample: Any) -> None:
    plan = replace(sample.plan(name="x"), question="<img src=x> better?")
    world.ledger.record_plan(plan, now=1.0)
    world.ledger.claim(sample.ids(plan), "me", 1e9, now=60.0)
    world.mirror().catch_up()
    notes = world.query("SELECT value FROM tags WHERE key = 'mlflow.note.content'")
    assert ("&lt;img src=x&gt; better?",) in notes


def test_a_second_time_copies_nothing(world: World) -> None:
    world.mirror().catch_up()
    before = world.runs()
    assert world.mirror().catch_up() == Copied(runs=0)
    assert world.runs() == before


def test_copies_come_in_portions(world: World) -> None:
    mirror = world.mirror()
    assert [mirror.catch_up(limit=2).runs for _ in range(4)] == [2, 2, 1, 0]
    assert_agrees(world)


def test_a_sweep_that_goes_on_is_followed_to_its_end(world: World, sample: Any) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    info = world.ledger.trials_of("<script>alert(1)</script> & co")
    waiting = [one.trial_id for one in info if one.state in (State.PLANNED, State.RUNNING)]
    world.ledger.apply([event for trial_id in waiting for event in sample.whole(trial_id, at=400.0)], "me")
    assert mirror.catch_up() == Copied(runs=3)
    assert_agrees(world)
    assert (world.runs()["parent"]["status"], world.runs()["parent"]["times"]) == ("FINISHED", (50_000, 403_000))


def test_a_trial_that_ran_again_replaces_its_run(world: World, sample: Any) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    (failed,) = [copy for copy in ended(world.ledger) if copy.state is State.FAILED]
    world.ledger.reset([failed.trial_id])
    world.ledger.claim([failed.trial_id], "me", 1e9, now=500.0)
    assert mirror.catch_up() == Copied(runs=0), "the failed run stays until there is a newer end"
    world.ledger.apply(sample.whole(failed.trial_id, attempt=2, at=600.0), "me")
    assert mirror.catch_up() == Copied(runs=1)
    assert_agrees(world)


def test_one_trial_in_two_sweeps_has_a_run_in_each(world: World, sample: Any) -> None:
    world.ledger.record_plan(sample.plan(arms=1, seeds=1, name="another"), now=700.0)
    assert world.mirror().catch_up() == Copied(runs=6)
    names = world.query("SELECT value FROM tags WHERE key = 'longrange.sweep' ORDER BY value")
    assert names.count(("another",)) == 2, "the sweep's own run and the trial's"


def test_rebuilding_from_nothing_gives_the_same(world: World, empty_store: Path) -> None:
    world.mirror().catch_up()

    def bare() -> dict[str, Any]:
        changing = ("run_id", "mlflow.parentRunId")
        return {
            key: {**run, "run_id": "", "tags": {k: v for k, v in run["tags"].items() if k not in changing}}
            for key, run in world.runs().items()
        }

    before = bare()
    assert world.mirror().rebuild() == Copied(runs=5)
    assert bare() == before
    assert_agrees(world)


def test_a_store_that_was_lost_is_filled_anew(world: World, empty_store: Path, tmp_path: Path) -> None:
    world.mirror().catch_up()
    fresh = World(world.ledger, tmp_path / "fresh.db")
    shutil.copy(empty_store, fresh.file)
    with writing(world.ledger.engine) as connection:  # the same address, another file behind it
        connection.exec_driver_sql("UPDATE mirror SET store = ?", (fresh.uri,))
    assert fresh.mirror().catch_up() == Copied(runs=5)
    assert_agrees(fresh)


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
            if self._left == 0 and not self._after:
                raise Killed
            result = real(*values, **named)
            if self._left == 0:
                raise Killed
            return result

        return call


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("calls", range(1, 10))
def test_a_crash_between_any_two_writes_loses_and_doubles_nothing(
    world: World, through_client: None, calls: int, after: bool
) -> None:
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
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    hold(f"{socket.gethostname()}:{child.pid}:{time.time():.2f}:abc", time.time() + 1e6)
    assert world.mirror().catch_up(limit=1) == Copied(runs=1)


def test_artifacts_lie_beside_the_store(world: World, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    mirror = world.mirror()
    for text in ("old", "<html>ü</html>"):
        report.write_text(text)
        mirror.log_artifacts("<script>alert(1)</script> & co", [report])
    parent = world.runs()["parent"]["run_id"]
    assert [one.path for one in mirror._client.list_artifacts(parent)] == ["report.html"]
    (stored,) = (world.file.parent / "mlartifacts").rglob("report.html")
    assert stored.read_text() == "<html>ü</html>"
    with pytest.raises(UserError, match="no sweep 'nothing'"):
        mirror.log_artifacts("nothing", [report])
    with pytest.raises(UserError, match=r"are no files: .*none\.html"):
        mirror.log_artifacts("<script>alert(1)</script> & co", [tmp_path / "none.html"])


@pytest.mark.parametrize(
    "uri",
    ["http://me:hunter2@127.0.0.1:9", "postgresql+psycopg2://me:hunter2@127.0.0.1:9/db", "sqlite:////proc/none/m.db"],
)
def test_a_store_that_does_not_answer_is_one_typed_error(
    world: World, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MirrorError, match="the ledger has everything, `longrange mirror` catches up") as caught:
        Mirror(uri, world.ledger).catch_up()
    assert isinstance(caught.value, LongrangeError)
    assert "hunter2" not in str(caught.value)
    assert world.mirror().catch_up() == Copied(runs=5)


def test_a_file_that_is_no_store(world: World, tmp_path: Path) -> None:
    file = tmp_path / "text.db"
    file.write_text("not a database" * 100)
    with pytest.raises(MirrorError, match="not a database"):
        Mirror(f"sqlite:///{file}", world.ledger).catch_up()


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


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[str]:
    """`mlflow server` on the world's store, as `mlflow ui` starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", world.uri, "--workers", "1"]
    quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=tmp_path,
            env=quiet,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(f"{address}/health"):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            assert time.monotonic() < deadline, "mlflow server did not start within two minutes"
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
def test_a_server_shows_runs_curves_and_artifacts(
    world: World, server: str, sample: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """First through the file, as `longrange run` does, shown by the server; then through the server itself."""
    report = tmp_path / "report.html"
    report.write_text("<html>the report</html>")
    mirror = world.mirror()
    mirror.catch_up()
    mirror.log_artifacts("<script>alert(1)</script> & co", [report])
    parent = world.runs()["parent"]["run_id"]
    with urllib.request.urlopen(f"{server}/get-artifact?path=report.html&run_uuid={parent}", timeout=30) as answer:
        assert answer.read() == report.read_bytes()
    remote = Mirror(server, world.ledger)
    assert remote.catch_up() == Copied(runs=5), "another address is another store to the ledger"
    assert capfd.readouterr().out == "", "MLflow prints two lines per run unless told not to"
    assert remote.catch_up() == Copied(runs=0)
    assert remote.rebuild() == Copied(runs=5)
    client = remote._client
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    assert len(client.search_runs([experiment.experiment_id], "tags.`mlflow.parentRunId` LIKE '%'")) == 5
