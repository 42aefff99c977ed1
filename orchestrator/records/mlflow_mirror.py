"""The MLflow mirror: one run per trial, nested under one run per sweep. A view of the ledger, never the truth.

With `mlflow_writers` the only importer of mlflow. What callers may rely on:

- A mirror may be thrown away at any time: `rebuild` makes the same runs again.
- `catch_up` copies trials that have ended and that the store lacks, each exactly once, also after a crash at any
  point: a run is complete when its status is final, which is written last; unfinished runs found in the store are
  deleted and written again. A trial that ran again replaces its run.
- One process at a time fills a store (a lock in the ledger); others return at once. Within a process, one thread.
- The store's tables are made before anything else, by the one process that has the lock: racing for it breaks MLflow.
- When the store does not answer, `MirrorError` is raised, the ledger is unharmed, and a later call goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from orchestrator.errors import MirrorError, UserError
from orchestrator.provenance import without_secrets
from orchestrator.records import mirroring
from orchestrator.records.engine import reading, serialize, writing
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirroring import Copy, Sweep
from orchestrator.records.mlflow_runs import (
    ENDED_AT,
    KIND,
    PARENT,
    STATUS,
    TRIAL,
    UID,
    folder_name,
    milliseconds,
    parent_tags,
)
from orchestrator.records.owners import is_dead, new_owner
from orchestrator.records.quick_http import acknowledge_at_once

if TYPE_CHECKING:
    from orchestrator.records.mlflow_writers import Writer

BATCH = 100  # trials read from the ledger, and marked in it, at a time
LOCK_SECONDS = 60.0  # longer than any one call to the store takes to fail

# Read by mlflow when it is imported: nothing about these runs leaves the machine, and a dead server is found soon.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for every run, in the middle of --json
    "GIT_PYTHON_REFRESH": "quiet",
}


@dataclass(frozen=True)
class Copied:
    """What a call did: runs written, and whether another process was filling the store instead."""

    runs: int = 0
    busy: bool = False


class _Run(NamedTuple):
    run_id: str
    status: str
    ended_at: str
    parent: str


@dataclass(frozen=True)
class _Opened:
    """A sweep in the store: its experiment and own run, where artifacts go, and runs of its trials that were there."""

    experiment_id: str
    parent: str
    artifacts: str
    found: dict[str, list[_Run]]


class Mirror:
    """One MLflow store as a view of one ledger.

    Args:
        tracking_uri: `sqlite:///FILE`, another database's URL, or the address of an MLflow server.
        ledger: what is mirrored.
        artifacts: folder for artifacts of a store without server; for SQLite `mlartifacts` beside the file.
    """

    def __init__(self, tracking_uri: str, ledger: Ledger, artifacts: Path | None = None) -> None:
        self.store = next(iter(without_secrets([tracking_uri], {})))
        self._uri = tracking_uri
        self._ledger = ledger
        self._file = _sqlite_file(tracking_uri)
        self._artifacts = artifacts or (self._file.parent / "mlartifacts" if self._file else None)
        self._holder = new_owner()
        self._api: Any = None
        self._opened: dict[int, _Opened] = {}  # by sweep_id

    def catch_up(self, limit: int | None = None) -> Copied:
        """Copy what the ledger has and the store lacks.

        Args:
            limit: at most so many runs; None copies all.

        Raises:
            MirrorError: the store cannot be reached or written; what was copied stays, a later call goes on.
        """
        with self._alone() as mine:
            if not mine:
                return Copied(busy=True)
            runs = 0
            self._open_sweeps()
            while limit is None or runs < limit:
                some = self._next(BATCH if limit is None else min(BATCH, limit - runs))
                if not some:
                    break
                self._copy(some)
                runs += len(some)
            if runs:
                self._close_sweeps()
            return Copied(runs)

    def rebuild(self) -> Copied:
        """Delete this ledger's runs from the store and copy everything again.

        Raises:
            MirrorError: the store cannot be reached or written.
        """
        with self._alone() as mine:
            if not mine:
                return Copied(busy=True)
            for sweep in self._sweeps():
                found = self._client.get_experiment_by_name(sweep.name)
                for kind in ("trial", "sweep"):
                    for run in self._runs(found.experiment_id, sweep.uid, kind) if found else []:
                        self._client.delete_run(run.info.run_id)
                        self._keep_lock()
                with writing(self._ledger.engine) as connection:
                    mirroring.forget(connection, self.store, sweep.sweep_id)
            self._opened.clear()
        return self.catch_up()

    def log_artifacts(self, sweep_name: str, files: Sequence[Path]) -> None:
        """Put files (plan, report) on the sweep's own run, replacing those of the same name.

        Raises:
            UserError: no such sweep, or a file that cannot be read.
            MirrorError: the store cannot be reached or written.
        """
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            raise UserError(f"these artifacts are no files: {', '.join(missing)}")
        sweep = next((one for one in self._sweeps() if one.name == sweep_name), None)
        if sweep is None:
            raise UserError(f"no sweep {sweep_name!r} in the ledger {self._ledger.name}")
        with self._translated():
            _, parent = self._parent(sweep)
            for file in files:
                self._client.log_artifact(parent, str(file))

    @property
    def _client(self) -> Any:
        """MLflow's client, made on first use; making it makes the store's tables."""
        if self._api is None:
            self._api = _open_client(self._uri)
            if self._file is not None:
                from orchestrator.records.mlflow_writers import make_fast

                make_fast(self._api, self._file)
        return self._api

    def _sweeps(self) -> list[Sweep]:
        with reading(self._ledger.engine) as connection:
            return mirroring.sweeps(connection, self.store)

    def _next(self, limit: int) -> list[Copy]:
        with reading(self._ledger.engine) as connection:
            return mirroring.pending(connection, self.store, limit)

    def _open_sweeps(self) -> None:
        """A store that lost a sweep's run is filled anew, and one that has it twice: restored experiments bring all."""
        for sweep in self._sweeps():
            if sweep.marks and sweep.sweep_id not in self._opened and len(self._parents(sweep)) != 1:
                with writing(self._ledger.engine) as connection:
                    mirroring.forget(connection, self.store, sweep.sweep_id)

    def _open(self, sweep_id: int) -> _Opened:
        """What is needed to write runs of a sweep; found, or made, once per process."""
        if sweep_id not in self._opened:
            sweep = next(one for one in self._sweeps() if one.sweep_id == sweep_id)
            experiment_id, parent = self._parent(sweep)
            found: dict[str, list[_Run]] = {}
            for run in self._runs(experiment_id, sweep.uid, "trial"):
                tags = run.data.tags
                known = _Run(run.info.run_id, run.info.status, tags.get(ENDED_AT, ""), tags.get(PARENT, ""))
                found.setdefault(tags[TRIAL], []).append(known)
            artifacts = str(self._client.get_experiment(experiment_id).artifact_location)
            self._opened[sweep_id] = _Opened(experiment_id, parent, artifacts, found)
        return self._opened[sweep_id]

    def _parent(self, sweep: Sweep) -> tuple[str, str]:
        """The sweep's experiment and its own run, made if need be."""
        experiment_id = self._experiment(sweep.name)
        found = self._parents(sweep)
        for run_id in found[1:]:
            self._delete(run_id)
        if found:
            return experiment_id, found[0]
        start = milliseconds(sweep.created_at)
        return experiment_id, str(self._client.create_run(experiment_id, start, parent_tags(sweep)).info.run_id)

    def _parents(self, sweep: Sweep) -> list[str]:
        experiment = self._client.get_experiment_by_name(sweep.name)
        runs = self._runs(experiment.experiment_id, sweep.uid, "sweep") if experiment else []
        return [str(run.info.run_id) for run in runs]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            folder = None if self._artifacts is None else (self._artifacts / folder_name(name)).absolute().as_uri()
            return str(self._client.create_experiment(name, artifact_location=folder))
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _runs(self, experiment_id: str, uid: str, kind: str) -> list[Any]:
        """The runs of one sweep that are not deleted: its own (`sweep`) or those of its trials (`trial`)."""
        wanted = f"tags.`{UID}` = '{uid}' AND tags.`{KIND}` = '{kind}'"
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([experiment_id], wanted, max_results=1_000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _copy(self, some: Sequence[Copy]) -> None:
        """Write runs, their status last, then mark them in the ledger, a portion at a time."""
        from orchestrator.records.mlflow_writers import Placed

        writer = self._make_writer()
        for start in range(0, len(some), writer.portion):
            copies = some[start : start + writer.portion]
            adopted = {copy: self._adopt(copy) for copy in copies}
            missing = [copy for copy, run_id in adopted.items() if run_id is None]
            opened = [self._open(copy.sweep_id) for copy in missing]
            places = [
                Placed(copy, one.experiment_id, one.parent, one.artifacts)
                for copy, one in zip(missing, opened, strict=True)
            ]
            adopted |= dict(zip(missing, writer.write(places), strict=True))
            with writing(self._ledger.engine) as connection:
                mirroring.mark(connection, self.store, [(copy, str(run_id)) for copy, run_id in adopted.items()])
            self._keep_lock()

    def _adopt(self, copy: Copy) -> str | None:
        """The complete run of this very end that was written but not marked, if any; other runs are deleted."""
        opened = self._open(copy.sweep_id)
        found = opened.found.pop(copy.trial_id, [])
        wanted = (STATUS[copy.state], repr(copy.ended_at))
        adopted = next((run for run in found if (run.status, run.ended_at) == wanted), None)
        kept = adopted.run_id if adopted else None
        for run_id in {*(run.run_id for run in found), copy.old_run_id} - {kept, None}:
            self._delete(str(run_id))
        if adopted and adopted.parent != opened.parent:  # somebody deleted the sweep's run
            self._client.set_tag(kept, PARENT, opened.parent)
        return kept

    def _delete(self, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # deleted by somebody else: just what is wanted
            self._client.delete_run(run_id)

    def _make_writer(self) -> Writer:
        from orchestrator.records.mlflow_writers import SERVER_THREADS, ClientWriter, TableWriter, engine_of

        engine = engine_of(self._client)
        return TableWriter.of(engine) or ClientWriter(self._client, SERVER_THREADS if engine is None else 1)

    def _close_sweeps(self) -> None:
        """A sweep's run ends with its last trial, and runs again when trials are added."""
        for sweep in self._sweeps():
            if sweep.sweep_id not in self._opened:
                continue
            parent = self._opened[sweep.sweep_id].parent
            if sweep.waiting:
                self._client.update_run(parent, status="RUNNING")
            else:
                self._client.set_terminated(parent, "FINISHED", milliseconds(sweep.ended_at or sweep.created_at))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether this process may write to the store; while it may, no other can."""
        mine = self._lock()
        try:
            with self._translated():
                yield mine
        except MirrorError:
            self._opened.clear()  # the last write may have happened or not: look again
            raise
        finally:
            if mine:
                with writing(self._ledger.engine) as connection:
                    mirroring.unlock(connection, self._lock_name, self._holder)

    @property
    def _lock_name(self) -> str:
        return f"mirror {self.store}"

    def _lock(self) -> bool:
        now = time.time()
        with writing(self._ledger.engine) as connection:
            serialize(connection)
            holder = mirroring.lock(connection, self._lock_name, self._holder, now + LOCK_SECONDS, now)
            if holder != self._holder and is_dead(holder):
                mirroring.unlock(connection, self._lock_name, holder)
                holder = mirroring.lock(connection, self._lock_name, self._holder, now + LOCK_SECONDS, now)
        self._locked_at = now
        return holder == self._holder

    def _keep_lock(self) -> None:
        if time.time() - self._locked_at > LOCK_SECONDS / 4 and not self._lock():
            raise MirrorError(f"another process took over the MLflow store {self.store}; it goes on with the copying")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what MLflow and its store raise into `MirrorError`."""
        failures: tuple[type[Exception], ...] = (SQLAlchemyError, OSError)
        try:
            yield
        except Exception as error:
            if self._api is not None:
                from mlflow.exceptions import MlflowException

                failures = (*failures, MlflowException)
            if not isinstance(error, failures):
                raise
            raise _mirror_error(self.store, error) from error


def _open_client(uri: str) -> Any:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    # Deprecations inside MLflow are for its authors; the filter stays, since taking it back is not thread-safe.
    warnings.filterwarnings("ignore", module=r"(mlflow|alembic|pydantic)\b")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)

    try:
        _knock(uri)
        acknowledge_at_once()
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise _mirror_error(next(iter(without_secrets([uri], {}))), error) from error
    return client


def _knock(uri: str) -> None:
    """Find out at once that a database cannot be opened: MLflow would try for two minutes."""
    with contextlib.suppress(ArgumentError):  # the address of an MLflow server
        url = make_url(uri)
        waits = {"postgresql": {"connect_timeout": 10}, "sqlite": {}}.get(url.get_backend_name())
        if waits is not None:
            engine = create_engine(url, connect_args=waits)
            engine.connect().close()
            engine.dispose()


def _mirror_error(store: str, error: Exception) -> MirrorError:
    lines = " ".join(without_secrets(str(error).split())) or type(error).__name__
    return MirrorError(
        f"the MLflow store {store} failed: {lines[:500]}; the ledger has everything, `longrange mirror` catches up"
    )


def _sqlite_file(uri: str) -> Path | None:
    try:
        url = make_url(uri)
    except ArgumentError:
        return None
    return Path(url.database).absolute() if url.get_backend_name() == "sqlite" and url.database else None
