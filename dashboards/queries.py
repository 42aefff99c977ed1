"""The ledger as frames: read-only, one query per frame. Nothing else in `dashboards` talks to the database."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from dashboards import frames
from dashboards.errors import UnknownSweep
from orchestrator.errors import LedgerError, LedgerVersionError, UserError
from orchestrator.records import schema as s
from orchestrator.records.read_only import reading_uri

STOPPED_EARLY = "stopped_early"  # the cause in attempts; `orchestrator.failures` is not read here
BUSY_SECONDS = 5.0  # how long a reader waits for a writer before it says that the ledger is locked


@dataclass(frozen=True)
class SweepRecord:
    """One row of the sweeps table."""

    id: int
    name: str
    question: str
    definition: dict[str, Any]
    reproduces: dict[str, Any] | None
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class ClipResults:
    """Per-clip results of the trials that were evaluated on one list of clips.

    Attributes:
        clips: names, in order.
        labels: `[clips]` true classes.
        classes: number of classes.
        correct: trial_id -> `[clips]`, True where top-1 is right.
        class_names: in order; their numbers where the ledger has no names.
    """

    clips: tuple[str, ...]
    labels: NDArray[np.int32]
    classes: int
    correct: dict[str, NDArray[np.bool_]]
    class_names: tuple[str, ...]


class Reader:
    """Frames from one ledger.

    Args:
        where: a ledger file, a run folder that holds one, or a database URL.

    Raises:
        UserError: there is no ledger at `where`.
        LedgerVersionError: it lacks tables or columns of this version.
        LedgerError: it is locked or cannot be reached.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self._engine, self.where = _engine(where)
        with self._reading():
            _check_schema(self._engine, self.where)

    def close(self) -> None:
        """Release the connection."""
        self._engine.dispose()

    def sweeps(self) -> pd.DataFrame:
        """Name, question and number of trials per state of every sweep, newest first."""
        states = self._frame(
            sa.select(s.SweepTrialRow.sweep_id, s.TrialRow.state, sa.func.count().label("trials"))
            .join(s.TrialRow, s.TrialRow.trial_id == s.SweepTrialRow.trial_id)
            .group_by(s.SweepTrialRow.sweep_id, s.TrialRow.state)
        )
        rows = self._frame(sa.select(s.SweepRow.id, s.SweepRow.name, s.SweepRow.question, s.SweepRow.updated_at))
        counts = states.pivot_table(index="sweep_id", columns="state", values="trials", aggfunc="sum")
        counts = counts.reindex(columns=[str(state) for state in s.State])
        rows = rows.join(counts, on="id").sort_values("updated_at", ascending=False).set_index("name", drop=False)
        rows[counts.columns] = rows[counts.columns].fillna(0).astype(int)
        return rows.drop(columns="id").rename_axis(index=None)

    def sweep(self, name: str) -> SweepRecord:
        """The sweep named `name`.

        Raises:
            UnknownSweep: with the names there are.
        """
        columns = [getattr(s.SweepRow, field.name) for field in fields(SweepRecord)]
        with self._reading(), self._engine.connect() as connection:
            row = connection.execute(sa.select(*columns).where(s.SweepRow.name == name)).mappings().first()
            if row is None:
                known = connection.execute(sa.select(s.SweepRow.name).order_by(s.SweepRow.name)).scalars().all()
                raise UnknownSweep(name, known)
        return SweepRecord(**row)

    def arms(self, sweep_id: int) -> pd.DataFrame:
        """One row per arm, in the plan's order: label, settings, is_control, block, spec, params, executed_macs, ..."""
        link, arm = s.SweepArmRow, s.ArmRow
        columns = (link.arm_id, link.position, link.label, link.settings, link.is_control)
        more = (arm.workload, arm.backbone, arm.block, arm.spec, arm.params, arm.executed_macs, arm.profile)
        query = sa.select(*columns, *more).join(arm, arm.arm_id == link.arm_id)
        frame = self._frame(query.where(link.sweep_id == sweep_id).order_by(link.position)).set_index("arm_id")
        for name in ("params", "executed_macs"):
            frame[name] = frame[name].astype(float)
        frame["is_control"] = frame["is_control"].astype(bool)
        return frame

    def trials(self, sweep_id: int) -> pd.DataFrame:
        """One row per trial: arm_id, seed, state, times and notes, in the plan's order."""
        trial, link = s.TrialRow, s.SweepTrialRow
        query = (
            sa.select(trial.__table__)
            .join(link, link.trial_id == trial.trial_id)
            .where(link.sweep_id == sweep_id)
            .order_by(link.position)
        )
        frame = self._frame(query).set_index("trial_id")
        frame["state"] = frame["state"].astype(str)
        return frame

    def results(self, sweep_id: int) -> pd.DataFrame:
        """Final metrics, one row per trial and one column per metric; NaN where a value is NaN or was not recorded.

        Raw samples (latencies) come as their median, under their own name, where no final metric has that name.
        """
        rows = self._frame(self._of(s.ResultRow, sweep_id))
        wide = rows.pivot(index="trial_id", columns="name", values="value").astype(float)
        for name, group in self._frame(self._of(s.SamplesRow, sweep_id)).groupby("name"):
            medians = group.set_index("trial_id")["samples"].map(_median)
            wide[str(name)] = wide[str(name)].fillna(medians) if name in wide else medians
        wide.columns.name = None
        return wide

    def results_recorded(self, sweep_id: int) -> pd.DataFrame:
        """Which final metrics were recorded at all, NaN included: trial_id, name."""
        rows = self._of(s.ResultRow, sweep_id).subquery()
        return self._frame(sa.select(rows.c.trial_id, rows.c.name))

    def samples(self, sweep_id: int, name: str) -> pd.DataFrame:
        """Raw repeated measurements `name`: trial_id, value; one row per repetition."""
        rows = self._frame(self._of(s.SamplesRow, sweep_id).where(s.SamplesRow.name == name))
        return rows[["trial_id", "samples"]].rename(columns={"samples": "value"}).explode("value", ignore_index=True)

    def epochs(self, sweep_id: int, name: str) -> pd.DataFrame:
        """Metric `name` per arm and epoch over seeds, aggregated by the database: arm_id, epoch, n, mean, sd."""
        epoch, trial, link = s.EpochMetricRow, s.TrialRow, s.SweepTrialRow
        value = epoch.value
        # Two moments in one pass: percentages and losses are small enough for doubles not to cancel.
        query = (
            sa.select(
                trial.arm_id,
                epoch.epoch,
                sa.func.count(value).label("n"),
                sa.func.avg(value).label("mean"),
                sa.func.avg(value * value).label("square"),
            )
            .join(trial, trial.trial_id == epoch.trial_id)
            .join(link, link.trial_id == trial.trial_id)
            .where(link.sweep_id == sweep_id, epoch.name == name, value.is_not(None))
            .group_by(trial.arm_id, epoch.epoch)
            .order_by(trial.arm_id, epoch.epoch)
        )
        frame = self._frame(query)
        n, mean = frame["n"].astype(float), frame["mean"].astype(float)
        variance = (frame.pop("square").astype(float) - mean**2).clip(lower=0) * n / (n - 1).where(n > 1)
        return frame.assign(mean=mean, sd=np.sqrt(variance))

    def epoch_names(self, sweep_id: int) -> list[str]:
        """Metrics that were recorded per epoch."""
        rows = self._of(s.EpochMetricRow, sweep_id).subquery()
        return sorted(self._frame(sa.select(rows.c.name).distinct())["name"])

    def trial_epochs(self, trial_id: str) -> pd.DataFrame:
        """Everything one trial recorded per epoch: name, epoch, value, seconds."""
        rows = self._frame(sa.select(s.EpochMetricRow.__table__).where(s.EpochMetricRow.trial_id == trial_id))
        return rows.drop(columns="trial_id").sort_values(["name", "epoch"], ignore_index=True)

    def predictions(self, sweep_id: int) -> list[ClipResults]:
        """Per-clip results, grouped by the list of clips; empty where trials recorded none."""
        table = s.PredictionsRow
        rows = self._of(table, sweep_id).with_only_columns(table.trial_id, table.clip_set_id, table.correct)
        sets = self._frame(sa.select(s.ClipSetRow.__table__)).set_index("clip_set_id")
        found = []
        for clip_set_id, group in self._frame(rows).groupby("clip_set_id"):
            clips = frames.row(sets, str(clip_set_id))
            correct = {row["trial_id"]: np.frombuffer(row["correct"], np.bool_) for row in frames.records(group)}
            found.append(clip_results(clips, correct))
        return found

    def scores(self, trial_id: str) -> NDArray[np.float32] | None:
        """`[clips, classes]` scores of one trial; None if it recorded none."""
        query = sa.select(s.PredictionsRow.scores, s.ClipSetRow.classes).join(
            s.ClipSetRow, s.ClipSetRow.clip_set_id == s.PredictionsRow.clip_set_id
        )
        frame = self._frame(query.where(s.PredictionsRow.trial_id == trial_id))
        if frame.empty:
            return None
        found = frames.records(frame)[0]
        flat = np.frombuffer(zlib.decompress(found["scores"]), dtype="<f2").astype(np.float32)
        return flat.reshape(-1, int(found["classes"]))

    def rejections(self, sweep_id: int) -> pd.DataFrame:
        """Configurations the plan refused: label, settings, reason."""
        table = s.RejectionRow
        query = sa.select(table.label, table.settings, table.reason).where(table.sweep_id == sweep_id)
        return self._frame(query.order_by(table.id))

    def attempts(self, sweep_id: int) -> pd.DataFrame:
        """One row per attempt of the sweep's trials: trial_id, number, times, outcome, cause, message, host, ..."""
        return self._frame(self._of(s.AttemptRow, sweep_id).order_by(s.AttemptRow.started_at, s.AttemptRow.number))

    def stopped_early(self, sweep_id: int) -> pd.DataFrame:
        """Trials that a search ended before their last epoch because others did better: trial_id, arm_id, message."""
        trial, attempt, link = s.TrialRow, s.AttemptRow, s.SweepTrialRow
        query = (
            sa.select(trial.trial_id, trial.arm_id, attempt.message)
            .join(link, link.trial_id == trial.trial_id)
            .join(attempt, attempt.trial_id == trial.trial_id)
            .where(link.sweep_id == sweep_id, trial.state == s.State.CANCELLED, attempt.cause == STOPPED_EARLY)
            .order_by(link.position, attempt.number)
        )
        return self._frame(query).drop_duplicates("trial_id", keep="last", ignore_index=True)

    def environments(self, sweep_id: int) -> pd.DataFrame:
        """Environments the sweep's attempts ran in: environment_id, facts, attempts."""
        attempts = self._of(s.AttemptRow, sweep_id).subquery()
        table = s.EnvironmentRow
        query = (
            sa.select(table.environment_id, table.facts, sa.func.count().label("attempts"))
            .join(attempts, attempts.c.environment_id == table.environment_id)
            .group_by(table.environment_id)
        )
        # JSON cannot be grouped on PostgreSQL, but it depends on the primary key, which is enough for both databases.
        return self._frame(query)

    def _of(self, table: type[Any], sweep_id: int) -> sa.Select[Any]:
        link = s.SweepTrialRow
        return sa.select(table.__table__).join(link, link.trial_id == table.trial_id).where(link.sweep_id == sweep_id)

    def _frame(self, query: sa.Executable) -> pd.DataFrame:
        with self._reading(), self._engine.connect() as connection:
            result = connection.execute(query)
            return pd.DataFrame(result.mappings().all(), columns=list(result.keys()))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            if "locked" in str(error.orig) or "busy" in str(error.orig):
                raise LedgerError(
                    f"the ledger {self.where} is locked by another process; "
                    "try again when the writer is done (`longrange status` shows who runs)"
                ) from error
            raise LedgerError(f"the ledger {self.where} cannot be read: {error.orig}") from error
        except DBAPIError as error:
            raise LedgerError(f"{self.where} is not a readable ledger: {error.orig}") from error


def _engine(where: str | os.PathLike[str]) -> tuple[sa.Engine, str]:
    text = os.fspath(where)
    if "://" not in text:
        return _sqlite(Path(text)), text
    try:
        url = sa.make_url(text)
    except (ArgumentError, ValueError) as error:
        raise UserError("the ledger's URL cannot be parsed; give e.g. postgresql://user@host/database") from error
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        return _sqlite(Path(url.database or "")), shown
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UserError(f"a ledger cannot live in {url.drivername!r}; give a file, or postgresql://user@host/database")
    url = url.set(drivername="postgresql+psycopg2")
    try:
        return sa.create_engine(url, connect_args={"options": "-c default_transaction_read_only=on"}), shown
    except ModuleNotFoundError as error:
        raise UserError(f"the ledger {shown} needs {error.name}: pip install 'longrange[cluster]'") from error


def _sqlite(path: Path) -> sa.Engine:
    if path.is_dir():
        found = sorted([*path.glob("*.db"), *path.glob("*.sqlite")])
        ledgers = [file for file in found if file.stem == "ledger"] or found
        if len(ledgers) != 1:
            raise UserError(f"{path} holds {len(ledgers)} ledgers (*.db); name the ledger's file")
        path = ledgers[0]
    if not path.is_file():
        raise UserError(f"there is no ledger at {path}; give the ledger's file, or run a sweep with `longrange run`")
    file = path  # for the function below, whose file does not change any more

    def connection() -> sqlite3.Connection:
        return sqlite3.connect(reading_uri(file), uri=True, timeout=BUSY_SECONDS)

    return sa.create_engine("sqlite://", creator=connection, poolclass=sa.NullPool)


def _check_schema(engine: sa.Engine, where: str) -> None:
    inspector = sa.inspect(engine)
    present = set(inspector.get_table_names())
    if s.SweepRow.__tablename__ not in present:
        raise LedgerVersionError(
            f"{where} is a database but not a ledger: it has no table {s.SweepRow.__tablename__!r}"
        )
    if "alembic_version" in present:
        with engine.connect() as connection:
            given = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        if given is not None and given > s.VERSION:
            raise LedgerVersionError(
                f"the ledger {where} has schema {given}, newer than {s.VERSION} of this version of longrange; "
                "update longrange, or use the version that wrote it"
            )
    missing = []
    for table in s.Base.metadata.sorted_tables:
        columns = {column["name"] for column in inspector.get_columns(table.name)} if table.name in present else set()
        missing += [f"{table.name}.{column.name}" for column in table.columns if column.name not in columns]
    if missing:
        raise LedgerVersionError(
            f"the ledger {where} was written by another version of longrange: it lacks {', '.join(missing[:5])}"
            f"{' and more' if len(missing) > 5 else ''}; back it up and upgrade it with "
            f"`longrange db upgrade {where}`, or use the version that wrote it"
        )


def _median(samples: list[Any]) -> float:
    values = [float(sample) for sample in samples if sample is not None]
    return float(np.median(values)) if values else float("nan")


def clip_results(clips: Mapping[str, Any], correct: dict[str, NDArray[np.bool_]]) -> ClipResults:
    """Results on the clips of one row of `clip_sets`."""
    names, class_names = s.unpack_names(clips["names"])
    labels, classes = np.frombuffer(clips["labels"], dtype="<i4").astype(np.int32), int(clips["classes"])
    numbered = tuple(f"class {label}" for label in range(classes))
    return ClipResults(names, labels, classes, correct, class_names + numbered[len(class_names) :])
