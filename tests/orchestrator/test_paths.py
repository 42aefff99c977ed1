"""Run folders: names given by users never decide a path; files are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.errors import LedgerError, UserError
from orchestrator.paths import RunFolder, cache_dir, slug, write_text


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("quickstart", "quickstart"),
        ("rnl/table2a", "rnl-table2a"),
        ("../x", "x"),
        ("..", "sweep"),
        ("/etc/passwd", "etc-passwd"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("C:\\windows", "C-windows"),
        ("a b\tc", "a-b-c"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
    ],
)
def test_folder_names_are_harmless(name: str, folder: str) -> None:
    assert slug(name) == folder


@settings(deadline=None)
@given(st.text(max_size=200))
@example("实验")
@example("../" * 50)
@example("x" * 300)
@example("a\x00b")
def test_no_name_leaves_the_runs_folder(name: str) -> None:
    found = slug(name)
    assert 1 <= len(found) <= 80
    assert set(found) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not found.startswith((".", "-"))
    assert (Path("/runs") / found).resolve().parent == Path("/runs")


def test_a_run_folder_is_made_and_found_again(tmp_path: Path) -> None:
    made = RunFolder.make(tmp_path / "deep" / "run")
    with pytest.raises(UserError, match="there is no run in"):
        RunFolder.find(made.root)
    made.write_settings({"sweep": "x", "only": [], "ledger": "l.db"})
    found = RunFolder.find(made.root)
    assert found.settings() == {"sweep": "x", "only": [], "ledger": "l.db"}
    assert {found.ledger.parent, found.checkpoints.parent, found.report.parent, found.plan.parent} == {made.root}


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(UserError, match="is a file: give a folder for the run with --out"):
        RunFolder.make(path)
    with pytest.raises(UserError, match="cannot make the run folder"):
        RunFolder.make(path / "below")
    assert path.read_text() == "mine"


def test_broken_settings_are_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*run\.json"):
        RunFolder.find(tmp_path).settings()


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full, a device that is always full")
    path = tmp_path / "plan.json"
    write_text(path, "old")
    aside = tmp_path / f".{path.name}.{os.getpid()}.tmp"
    aside.symlink_to(full)
    with pytest.raises(LedgerError, match=r"cannot write .*plan\.json: No space left on device"):
        write_text(path, "new")
    assert [item.name for item in tmp_path.iterdir()] == ["plan.json"]
    assert path.read_text() == "old"


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LONGRANGE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "longrange"
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"


def test_where_not_even_clearing_up_is_possible_the_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LedgerError, match=r"cannot write .*: Not a directory"):
        write_text(tmp_path / "file" / "cancel", "new")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[1]", "it holds no settings"),
        ("{}", "sweep is missing"),
        ('{"sweep": ""}', "sweep cannot be ''"),
        ('{"sweep": 5, "ledger": 3}', "sweep cannot be 5; ledger cannot be 3"),
        (
            '{"sweep": "s", "executor": "gpu", "only": "x", "workers": 0}',
            "only cannot be 'x'; executor cannot be 'gpu'",
        ),
        ("[" * 100_000, "recursion"),
        ("\xff", "codec can't decode"),
    ],
)
def test_settings_that_are_damaged_are_told_with_the_way_out(tmp_path: Path, content: str, says: str) -> None:
    folder = RunFolder.make(tmp_path / "my run")
    (folder.root / "run.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        folder.settings()
    assert says in str(caught.value)
    assert f"longrange run SWEEP --out '{folder.root}'" in str(caught.value)


def test_settings_of_an_older_version_are_completed(tmp_path: Path) -> None:
    folder = RunFolder.make(tmp_path)
    folder.write_settings({"sweep": "s"})
    assert folder.settings() == {"sweep": "s", "ledger": None}
