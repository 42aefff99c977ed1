"""Care of a ledger: upgrade, check and backup. The only importer of Alembic; what `longrange db` calls."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, func, select, text

from orchestrator.errors import LedgerError, UserError
from orchestrator.records.engine import check_version, connect, locate, reading, revision, serialize, shown, writing
from orchestrator.records.read_only import reading_uri
from orchestrator.records.schema import VERSION, AttemptRow, Base, ResultRow, State, TrialRow

MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class Health:
    """What `check` found: the schema's revision, how many rows each table has, and everything that is wrong."""

    revision: str
    rows: dict[str, int]
    problems: tuple[str, ...]


def upgrade(location: str | Path) -> tuple[str, str]:
    """Bring a ledger to this version's schema; all of it or nothing.

    Returns:
        The revision before and after; equal if there was nothing to do.

    Raises:
        UserError: there is no ledger.
        LedgerVersionError: the ledger is newer than this longrange.
    """
    url = _existing(location)
    engine = connect(url)
    try:
        with writing(engine) as connection:
            serialize(connection)
            before = revision(connection)
            if before is None:
                raise UserError(f"there is no ledger in {shown(url)}; `longrange run` makes one")
            if before < VERSION:
                _migrate(connection)
        check_version(engine)
    finally:
        engine.dispose()
    return before, max(before, VERSION)


def check(location: str | Path) -> Health:
    """Look for damage: the database's own checks, tables that differ from the models, rows that contradict each other.

    Raises:
        UserError, LedgerVersionError: as `Ledger.open`.
    """
    engine = connect(_existing(location))
    try:
        check_version(engine)
        with reading(engine) as connection:
            problems = [*_file_problems(connection), *_drift(connection), *_contradictions(connection)]
            tables = Base.metadata.sorted_tables
            rows = {one.name: connection.execute(select(func.count()).select_from(one)).scalar_one() for one in tables}
            return Health(revision(connection) or "", rows, tuple(problems))
    finally:
        engine.dispose()


def backup(location: str | Path, target: Path) -> Path:
    """Copy a ledger into a new file while drivers may go on writing; the copy is complete or does not exist.

    SQLite gives an SQLite file that opens as a ledger; PostgreSQL gives `pg_dump`'s custom format for `pg_restore`.

    Raises:
        UserError: no ledger there, or the target exists or cannot be written.
        LedgerError: the copy failed.
    """
    url = _existing(location)
    if target.exists():
        raise UserError(f"the backup {target} exists already; give another name, or move it away")
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} for the backup does not exist; make it first")
    unfinished = target.with_name(target.name + ".unfinished")
    try:
        if url.get_backend_name() == "sqlite":
            _copy_sqlite(url, unfinished)
        else:
            _dump_postgresql(url, unfinished)
        unfinished.rename(target)
    except OSError as error:
        raise UserError(f"the backup {target} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return target


def script_config() -> Config:
    """Alembic's settings, without a file: where the revisions are."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _migrate(connection: Connection) -> None:
    config = script_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _existing(location: str | Path) -> URL:
    url = locate(location)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        raise UserError(f"there is no ledger {url.database}; `longrange run` makes one, or give the right place")
    return url


def _file_problems(connection: Connection) -> list[str]:
    if connection.dialect.name != "sqlite":
        return []
    damaged = [row[0] for row in connection.execute(text("PRAGMA integrity_check")) if row[0] != "ok"]
    orphans = [
        f"a row of {row[0]} points to a missing row of {row[2]}"
        for row in connection.execute(text("PRAGMA foreign_key_check"))
    ]
    return [*damaged, *orphans]


def _drift(connection: Connection) -> list[str]:
    """Tables and columns that differ from the models."""
    options: dict[str, Any] = {"compare_type": True}
    differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    return [f"the schema differs from revision {VERSION}: {difference}" for difference in differences]


def _contradictions(connection: Connection) -> list[str]:
    trial, attempt, result = TrialRow, AttemptRow, ResultRow
    finished = trial.state == State.FINISHED
    has_result = select(result.trial_id).where(result.trial_id == trial.trial_id).exists()
    open_attempt = attempt.ended_at.is_(None)
    ended = trial.ended_at.is_not(None)
    checks = {
        "finished without a result": select(trial.trial_id).where(finished, ~has_result),
        "has a result but did not finish": select(trial.trial_id).where(~finished, has_result),
        "has ended, but an attempt is open": select(trial.trial_id)
        .join(attempt, attempt.trial_id == trial.trial_id)
        .where(ended, open_attempt),
        "has several open attempts": select(attempt.trial_id)
        .where(open_attempt)
        .group_by(attempt.trial_id)
        .having(func.count() > 1),
    }
    return [
        f"trial {trial_id} {problem}"
        for problem, query in checks.items()
        for trial_id in connection.execute(query).scalars()
    ]


def _copy_sqlite(url: URL, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(reading_uri(Path(url.database or "")), uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {shown(url)} could not be copied to {target}: {error}") from error


def _dump_postgresql(url: URL, target: Path) -> None:
    plain = url.set(drivername="postgresql", password=None).render_as_string()
    login = {} if url.password is None else {"PGPASSWORD": str(url.password)}  # an argument would be seen by all users
    try:
        done = subprocess.run(
            ["pg_dump", "--format=custom", f"--file={target}", plain],
            env={**os.environ, **login},
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise UserError("pg_dump is not on the PATH; install PostgreSQL's client programs") from error
    if done.returncode != 0:
        raise LedgerError(f"pg_dump of {shown(url)} failed: {done.stderr.decode(errors='replace').strip()}")
