"""Upgrade, check and backup; and that the models and the migrations say the same."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from unprivileged import forbid_writing

from orchestrator.errors import LedgerVersionError, UserError
from orchestrator.events import AttemptFailed
from orchestrator.failures import Cause
from orchestrator.records import admin
from orchestrator.records.engine import connect, locate
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import VERSION, Base, State

PAST = sorted(Path(__file__).parent.glob("v????.sql"))


def past(file: Path, text: Path) -> Path:
    with closing(sqlite3.connect(file)) as database:
        database.executescript(text.read_text())
    return file


def test_every_revision_left_a_database_and_the_newest_is_ours() -> None:
    scripts = ScriptDirectory.from_config(admin.script_config())
    revisions = sorted(script.revision for script in scripts.walk_revisions())
    assert [file.stem for file in PAST] == [f"v{revision}" for revision in revisions]
    assert scripts.get_current_head() == VERSION == revisions[-1]


def test_models_and_migrations_do_not_drift(location: str | Path) -> None:
    """A database made by migrations alone equals the models, on both databases."""
    if isinstance(location, Path):
        location.parent.mkdir()
    engine = connect(locate(location))
    with engine.connect() as connection, connection.begin():
        admin._migrate(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()
    assert admin.check(location).problems == ()


@pytest.mark.parametrize("text", PAST, ids=lambda file: file.stem)
def test_an_old_ledger_is_upgraded_and_used(tmp_path: Path, text: Path, sample: Any) -> None:
    file = past(tmp_path / "old.db", text)
    before, after = admin.upgrade(file)
    assert (f"v{before}", after) == (text.stem, VERSION)
    assert admin.upgrade(file) == (VERSION, VERSION), "twice does nothing"
    health = admin.check(file)
    assert health.problems == ()
    assert (health.revision, health.rows["trials"], health.rows["predictions"]) == (VERSION, 4, 1)
    with Ledger.open(file, create=False) as ledger:
        (sweep,) = ledger.sweeps()
        assert sweep.states == {State.FINISHED: 1, State.RUNNING: 1, State.FAILED: 1, State.PLANNED: 1}
        ids = [trial.trial_id for trial in ledger.trials_of(sweep.name)]
        claims = ledger.claim(ids, "new driver", 60.0, now=1000.0)
        assert [claim.attempt for claim in claims] == [2, 1]
        ledger.apply(sample.whole(claims[0].trial_id, attempt=2), "new driver")


def test_a_newer_ledger_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    Ledger.open(file).close()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerVersionError, match="newer than this longrange knows"):
        admin.upgrade(file)


@pytest.mark.parametrize("command", [admin.upgrade, admin.check])
def test_no_ledger_is_said_and_none_is_made(tmp_path: Path, command: Any) -> None:
    with pytest.raises(UserError, match="there is no ledger"):
        command(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_check_finds_rows_that_contradict_each_other(tmp_path: Path, sample: Any) -> None:
    file = tmp_path / "l.db"
    with Ledger.open(file) as ledger:
        plan = sample.plan()
        ledger.record_plan(plan, now=1.0)
        ids = sample.ids(plan)
        ledger.claim(ids, "me", 60.0, now=10.0)
        ledger.apply([*sample.whole(ids[0]), *sample.whole(ids[1])], "me")
        ledger.apply([AttemptFailed(ids[2], 1, 100.0, Cause.LOST, "", "", retried=True)], "me")
    assert admin.check(file).problems == ()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM results WHERE trial_id = ?", (ids[0],))
        database.execute("UPDATE attempts SET ended_at = NULL WHERE trial_id = ?", (ids[1],))
        database.execute("DELETE FROM environments")
    problems = admin.check(file).problems
    assert f"trial {ids[0]} finished without a result" in problems
    assert f"trial {ids[1]} has ended, but an attempt is open" in problems
    assert "a row of attempts points to a missing row of environments" in problems


def test_check_finds_a_changed_schema(tmp_path: Path) -> None:
    file = tmp_path / "l.db"
    Ledger.open(file).close()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("ALTER TABLE trials ADD COLUMN mine TEXT")
    (problem,) = admin.check(file).problems
    assert "mine" in problem


def test_a_backup_is_a_ledger(tmp_path: Path, sample: Any) -> None:
    with Ledger.open(tmp_path / "l.db") as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
        copy = admin.backup(tmp_path / "l.db", tmp_path / "copy #1 ü.db")
        ledger.record_plan(sample.plan(name="later"), now=2.0)
    with Ledger.open(copy, create=False) as ledger:
        assert [sweep.name for sweep in ledger.sweeps()] == ["which <block>?"]
    assert admin.check(copy).problems == ()


def test_an_archive_that_cannot_be_written_is_checked_and_copied(somebody: Path, sample: Any) -> None:
    folder = somebody / "archive"
    with Ledger.open(folder / "l.db") as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
    forbid_writing(folder)
    assert admin.check(folder / "l.db").problems == ()
    copy = admin.backup(folder / "l.db", somebody / "copy.db")
    folder.chmod(0o755)
    with Ledger.open(copy, create=False) as ledger:
        assert len(ledger.sweeps()) == 1


def test_a_backup_of_postgresql_restores(postgresql: Any, tmp_path: Path, sample: Any) -> None:
    if shutil.which("pg_dump") is None:
        pytest.skip("no pg_dump on the PATH")
    with Ledger.open(postgresql.emptied()) as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
        copy = admin.backup(ledger.engine.url.render_as_string(hide_password=False), tmp_path / "copy.dump")
    assert copy.read_bytes()[:5] == b"PGDMP"


def test_a_backup_never_overwrites_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "l.db").close()
    with pytest.raises(UserError, match="exists already"):
        admin.backup(tmp_path / "l.db", tmp_path / "l.db")
    with pytest.raises(UserError, match=r"folder .* does not exist"):
        admin.backup(tmp_path / "l.db", tmp_path / "none" / "copy.db")
    with pytest.raises(UserError, match="no ledger"):
        admin.backup(tmp_path / "none.db", tmp_path / "copy.db")
    assert [file.name for file in tmp_path.iterdir()] == ["l.db"]
