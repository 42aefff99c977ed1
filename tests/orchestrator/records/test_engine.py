"""Opening a ledger: every way it can go wrong ends in one message that says what to do."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unprivileged import forbid_writing

from orchestrator.errors import LedgerError, LedgerUnavailable, LedgerVersionError, UserError
from orchestrator.records.engine import locate, shown
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import VERSION

HOSTILE = [
    "with space",
    "ü ñ 漢",
    "a#b",
    "a?mode=ro",
    "100%",
    "%20",
    "a&b;c",
    "'quoted\"",
    "file:x",
    "new\nline",
    ".hidden",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_any_file_name_is_taken_literally(tmp_path: Path, name: str, sample: Any) -> None:
    file = tmp_path / name / f"{name}.db"
    with Ledger.open(file) as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert file.is_file()
    with Ledger.open(str(file), create=False) as ledger:
        assert len(ledger.sweeps()) == 1


def test_a_relative_path_and_a_url_name_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger.open("runs/ledger.db") as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
    for same in (f"sqlite:///{tmp_path}/runs/ledger.db", "sqlite:///runs/ledger.db", tmp_path / "runs" / "ledger.db"):
        with Ledger.open(same, create=False) as ledger:
            assert len(ledger.sweeps()) == 1


def test_opening_twice_keeps_everything(tmp_path: Path, sample: Any) -> None:
    with Ledger.open(tmp_path / "l.db") as first, Ledger.open(tmp_path / "l.db") as second:
        first.record_plan(sample.plan(), now=1.0)
        assert len(second.sweeps()) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("mysql://host/db", "cannot live in 'mysql'.*allowed: a file"),
        ("://", "cannot be read; allowed: a file"),
        ("", "needs a file.*allowed"),
        ("postgresql://ann:p@ss@host/db", "two @; write the one in its password as %40"),
        ("sqlite://", "needs a file.*allowed"),
        ("a\0b", "zero byte"),
    ],
)
def test_a_location_that_is_none(given: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Ledger.open(given)


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder; give a file in it, such as .*ledger\.db"):
        Ledger.open(tmp_path)


def test_no_ledger_and_none_wanted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no ledger .*`longrange run` makes one"):
        Ledger.open(tmp_path / "new" / "l.db", create=False)
    assert list(tmp_path.iterdir()) == [], "a look must leave nothing behind"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match=r"the folder .* of the ledger cannot be made"):
        Ledger.open(tmp_path / "file" / "l.db")


@pytest.mark.parametrize("content", [b"name: my sweep\n" * 100, b"\x00" * 5000, b"SQLite format 3\x00garbage" * 300])
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not an SQLite database"):
        Ledger.open(file)
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as other, other:
        other.execute("CREATE TABLE runs (id INTEGER)")
    with pytest.raises(UserError, match=r"database of something else \(tables: runs\).*of its own"):
        Ledger.open(file)
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]


def test_an_alembic_database_of_something_else(tmp_path: Path) -> None:
    """MLflow's own store has an alembic_version too; its revision is no number of ours."""
    file = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(file)) as other, other:
        other.executescript("CREATE TABLE alembic_version (version_num TEXT); CREATE TABLE runs (id INTEGER);")
        other.execute("INSERT INTO alembic_version VALUES ('bda7b8c39065')")
    for create in (True, False):
        with pytest.raises(UserError, match="database of something else"):
            Ledger.open(file, create=create)


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ("9999", rf"has schema 9999, newer than this longrange knows \({VERSION}\).*pip install --upgrade"),
        ("0000", rf"has schema 0000, this longrange needs {VERSION}; .*`longrange db upgrade .*l\.db"),
    ],
)
def test_another_schema_names_the_command(tmp_path: Path, found: str, says: str) -> None:
    file = tmp_path / "l.db"
    Ledger.open(file).close()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (found,))
    for create in (True, False):
        with pytest.raises(LedgerVersionError, match=says):
            Ledger.open(file, create=create)


def test_a_locked_ledger(tmp_path: Path, sample: Any) -> None:
    file = tmp_path / "l.db"
    with Ledger.open(file, busy_seconds=0.1) as ledger, closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable, match="locked by another process; wait"):
            ledger.record_plan(sample.plan(), now=1.0)
        other.rollback()
        ledger.record_plan(sample.plan(), now=1.0)


def test_a_full_disk_leaves_the_last_whole_batch(tmp_path: Path, sample: Any) -> None:
    """SQLite's own page limit gives the very error of a full disk."""
    with Ledger.open(tmp_path / "l.db") as ledger:
        plan = sample.plan(arms=2, seeds=50)
        ledger.record_plan(plan, now=1.0)
        ids = sample.ids(plan)
        ledger.claim(ids, "me", 60.0, now=10.0)
        ledger.apply(sample.whole(ids[0]), "me")
        with ledger.engine.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(LedgerError, match=r"no space left .*longrange resume"):
            ledger.apply([event for trial_id in ids[1:] for event in sample.whole(trial_id, epochs=30)], "me")
        counts = ledger.sweep(plan.name).states  # type: ignore[union-attr]
        assert counts == {"finished": 1, "planned": 99}


def test_a_read_only_ledger(somebody: Path, sample: Any) -> None:
    file = somebody / "l.db"
    with Ledger.open(file) as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
    file.chmod(0o444)
    with (
        pytest.raises(LedgerError, match="is read-only; make the file and its folder writable"),
        Ledger.open(file) as ledger,
    ):
        ledger.record_plan(sample.plan(arms=3), now=2.0)


@pytest.mark.parametrize("killed", [False, True], ids=["closed", "left by a driver that was killed"])
def test_a_ledger_in_a_read_only_folder_is_read_and_not_written(somebody: Path, sample: Any, killed: bool) -> None:
    made = somebody / "made.db"
    copies = somebody / "a#b?mode=rw"
    copies.mkdir()
    with Ledger.open(made) as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
        if killed:  # what is there while it is open
            for file in somebody.glob("made.db*"):
                shutil.copy(file, copies)
    if not killed:
        shutil.copy(made, copies)
    assert len(list(copies.iterdir())) == (3 if killed else 1)
    forbid_writing(copies)
    with Ledger.open(copies / "made.db", create=False) as ledger:
        assert [one.name for one in ledger.sweeps()] == [sample.plan().name]
        with pytest.raises(LedgerError, match="is read-only; make the file and its folder writable"):
            ledger.release("me")
    assert len(list(copies.iterdir())) == (3 if killed else 1)
    copies.chmod(0o755)


def test_a_read_only_ledger_that_lost_what_its_last_rows_need_says_so(somebody: Path, sample: Any) -> None:
    copies = somebody / "copies"
    copies.mkdir()
    with Ledger.open(somebody / "l.db") as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
        for name in ("l.db", "l.db-wal"):
            shutil.copy(somebody / name, copies)
    forbid_writing(copies)
    with pytest.raises(LedgerError, match=r"newest rows are in .*l\.db-wal.*copy both to a folder you may write"):
        Ledger.open(copies / "l.db", create=False)
    copies.chmod(0o755)


def test_an_unreadable_ledger(somebody: Path) -> None:
    file = somebody / "l.db"
    Ledger.open(file).close()
    file.chmod(0o000)
    with pytest.raises(LedgerError, match="cannot be opened"):
        Ledger.open(file)


def test_a_folder_without_write_permission(somebody: Path) -> None:
    somebody.chmod(0o555)
    try:
        with pytest.raises(LedgerError, match="cannot be opened"):
            Ledger.open(somebody / "l.db")
        with pytest.raises(LedgerError, match="cannot be made: Permission denied"):
            Ledger.open(somebody / "new" / "l.db")
    finally:
        somebody.chmod(0o755)


def test_a_server_that_does_not_answer_hides_the_password() -> None:
    with pytest.raises(LedgerUnavailable, match="does not answer") as caught:
        Ledger.open("postgresql://me:hunter2@127.0.0.1:9/db?sslpassword=hunter3")
    assert "hunter" not in str(caught.value)
    assert "me:***@127.0.0.1:9/db" in str(caught.value)


def test_urls_are_shown_without_secrets() -> None:
    assert shown(locate("postgres://me:pw@host/db?options=x")) == "postgresql+psycopg2://me:***@host/db"


def test_a_restarted_server_is_found_again(postgresql: Any, sample: Any) -> None:
    with Ledger.open(postgresql.emptied()) as ledger:
        ledger.record_plan(sample.plan(), now=1.0)
        ids = sample.ids(sample.plan())
        ledger.claim(ids, "me", 60.0, now=10.0)
        batch = sample.whole(ids[0])
        postgresql.stop()
        try:
            for _ in range(2):
                with pytest.raises(LedgerUnavailable, match="does not answer"):
                    ledger.apply(batch, "me")
        finally:
            postgresql.start()
        ledger.apply(batch, "me")
        assert ledger.standing(ids[:1])[ids[0]].state == "finished"
