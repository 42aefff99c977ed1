"""Connections to a ledger's database, and its errors in words. SQLite (WAL) by path or URL, PostgreSQL by URL.

Nothing outside `records` sees SQLAlchemy's engine or its exceptions: `guarded` turns each into one `LedgerError` or
`UserError` that says what to do. Passwords never reach a message.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from orchestrator.errors import LedgerError, LedgerUnavailable, LedgerVersionError, NoLedger, UserError
from orchestrator.records.read_only import is_fixed, reading_uri
from orchestrator.records.schema import VERSION, Base, SweepRow

ALLOWED = "allowed: a file such as runs/ledger.db, sqlite:///FILE, or postgresql://USER@HOST/DATABASE"
BUSY_SECONDS = 30.0
LOCK_KEY = 0x10E6_4A6E  # PostgreSQL advisory lock: one creator and one claimer at a time


def locate(location: str | Path) -> URL:
    """The database a path or URL names.

    Paths are taken literally, whatever characters they hold; a text with `://` is a URL.

    Raises:
        UserError: not a URL of a known database, or a path that cannot be a file.
    """
    if isinstance(location, Path) or "://" not in location:
        return _sqlite_url(Path(location))
    try:
        url = make_url(location)
    except (ArgumentError, ValueError) as error:
        raise UserError(f"the ledger's URL cannot be read; {ALLOWED}") from error
    if url.drivername.startswith("sqlite"):
        return _sqlite_url(Path(url.database or ""))
    if url.get_backend_name() not in ("postgresql", "postgres"):
        raise UserError(f"the ledger cannot live in {url.drivername!r}; {ALLOWED}")
    if "@" in (url.host or ""):  # the host is quoted in messages: a part of the password must not be in it
        raise UserError("the ledger's URL has two @; write the one in its password as %40")
    return url.set(drivername="postgresql+psycopg2")


def shown(url: URL) -> str:
    """The database's name for messages, without password and options."""
    if url.get_backend_name() == "sqlite":
        return url.database or ""
    return url.set(query={}).render_as_string(hide_password=True)


def connect(url: URL, *, busy_seconds: float = BUSY_SECONDS) -> Engine:
    """An engine whose transactions are real: `BEGIN IMMEDIATE` for writers, foreign keys on, WAL, busy timeout.

    A file in a folder that this user cannot write is only read.

    Raises:
        UserError: the driver for this database is not installed.
    """
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {}
    fixed = sqlite and Path(url.database or "").exists() and is_fixed(Path(url.database or ""))
    if fixed:
        options = {"creator": lambda: _only_reads(Path(url.database or "")), "poolclass": NullPool}
    elif not sqlite:  # rows of one statement travel together, not one round trip each
        options = {"connect_args": {"connect_timeout": 10}, "pool_pre_ping": True}
        options["executemany_mode"] = "values_plus_batch"
    try:
        engine = create_engine(url, hide_parameters=True, **options)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UserError(f"{shown(url)} needs the PostgreSQL driver: pip install 'longrange[cluster]'") from error
    if sqlite:
        event.listen(engine, "connect", lambda connection, _: _tune(connection, busy_seconds, fixed=fixed))
        event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that writes; SQLite takes its write lock at once, so that it cannot fail half-way as busy."""
    with guarded(engine.url), engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that reads a consistent state and blocks nobody."""
    with guarded(engine.url), engine.connect() as connection, connection.begin():
        yield connection


def serialize(connection: Connection) -> None:
    """Wait until no other transaction that called this is open. SQLite's writers already are alone."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})


def create_tables(engine: Engine) -> None:
    """Make the newest schema in an empty database; does nothing where it exists. Safe to race."""
    with writing(engine) as connection:
        serialize(connection)
        if revision(connection) is not None:
            return
        _refuse_foreign(connection, engine.url)
        Base.metadata.create_all(connection)
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        connection.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": VERSION})


def revision(connection: Connection) -> str | None:
    """The schema's revision, or None where no ledger was ever made."""
    tables = inspect(connection)
    if not (tables.has_table("alembic_version") and tables.has_table(SweepRow.__tablename__)):
        return None  # other programs, MLflow among them, keep an alembic_version too
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def check_version(engine: Engine) -> None:
    """Refuse to work on another schema than this version's.

    Raises:
        NoLedger: there is none.
        UserError: a database of something else.
        LedgerVersionError: older or newer than this longrange; says which command or version helps.
    """
    with reading(engine) as connection:
        found = revision(connection)
        if found is None:
            _refuse_foreign(connection, engine.url)
    name = shown(engine.url)
    if found is None:
        raise NoLedger(f"there is no ledger in {name}; `longrange run` makes one, or give the right place. {ALLOWED}")
    if found < VERSION:
        raise LedgerVersionError(
            f"the ledger {name} has schema {found}, this longrange needs {VERSION}; back it up and upgrade it with "
            f"`longrange db upgrade {shlex.quote(name)}`"
        )
    if found > VERSION:
        raise LedgerVersionError(
            f"the ledger {name} has schema {found}, newer than this longrange knows ({VERSION}); update longrange "
            "(pip install --upgrade longrange) or use another ledger"
        )


def _refuse_foreign(connection: Connection, url: URL) -> None:
    tables = sorted(inspect(connection).get_table_names())
    if tables:
        raise UserError(
            f"{shown(url)} is a database of something else (tables: {', '.join(tables[:5])}); "
            "give the ledger a file or database of its own"
        )


@contextmanager
def guarded(url: URL) -> Iterator[None]:
    """Turn the database's exceptions into ours.

    Raises:
        LedgerUnavailable: the server does not answer or the file stays locked; nothing was written, try again.
        LedgerError: anything else the database refuses.
        UserError: the file is not a database.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translated(error, shown(url)) from error
    except SQLAlchemyError as error:
        raise LedgerError(f"the ledger {shown(url)} failed: {error}") from error


def _translated(error: DBAPIError, name: str) -> Exception:
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_error(reason, name)
    if isinstance(error, OperationalError) or error.connection_invalidated:
        return LedgerUnavailable(
            f"the ledger's server {name} does not answer as it should: {reason}; "
            "see that it runs and lets you in, then try again"
        )
    return LedgerError(f"the ledger {name} refused a statement: {reason}")


def _sqlite_error(reason: str, name: str) -> Exception:
    if "not a database" in reason or "malformed" in reason:
        return UserError(f"{name} is not an SQLite database ({reason}); {ALLOWED}, or restore it from a backup")
    if "locked" in reason or "busy" in reason:
        return LedgerUnavailable(
            f"the ledger {name} is locked by another process; wait for it to end, or stop it, then try again"
        )
    if "full" in reason:
        return LedgerError(
            f"no space left for the ledger {name}; free some and `longrange resume`: nothing is half-written"
        )
    if "readonly" in reason or "read-only" in reason:
        return LedgerError(f"the ledger {name} is read-only; make the file and its folder writable for this user")
    if "unable to open" in reason:
        return LedgerError(
            f"the ledger {name} cannot be opened; check that its folder exists and is readable and writable"
        )
    return LedgerError(f"the ledger {name} failed: {reason}")


def _sqlite_url(path: Path) -> URL:
    if not path.name:
        raise UserError(f"a ledger needs a file, given {str(path)!r}; {ALLOWED}")
    if "\0" in str(path):
        raise UserError(f"a file name cannot hold a zero byte, given {str(path)!r}")
    path = path.expanduser().absolute()
    if path.is_dir():
        raise UserError(f"the ledger {path} is a folder; give a file in it, such as {path / 'ledger.db'}")
    return URL.create("sqlite", database=str(path))


def _only_reads(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(reading_uri(file), uri=True)


def _tune(connection: Any, busy_seconds: float, *, fixed: bool) -> None:
    connection.isolation_level = None  # transactions are begun below, not guessed by the driver
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
    cursor.execute("PRAGMA foreign_keys = ON")
    if not fixed and cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")  # survives every crash but a power cut's last moments
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
