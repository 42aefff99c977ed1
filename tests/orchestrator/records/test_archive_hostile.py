"""Archives from elsewhere: another version, damage, and members that lead out of their folder."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LedgerVersionError, UserError
from orchestrator.records import archive
from orchestrator.records.ledger import Ledger

NAME = "which <block>?"


def rewritten(file: Path, change: Callable[[str, bytes, tarfile.TarFile], bytes | None]) -> Path:
    """A copy of an archive in which `change` has replaced or dropped members, or added some before them."""
    target = file.with_name("changed.tar")
    with tarfile.open(file) as old, tarfile.open(target, "w") as new:
        for member in old:
            held = old.extractfile(member)
            assert held is not None
            content = change(member.name, held.read(), new)
            if content is not None:
                member.size = len(content)
                new.addfile(member, io.BytesIO(content))
    return target


def in_manifest(**changes: Any) -> Callable[[str, bytes, tarfile.TarFile], bytes]:
    def change(name: str, content: bytes, _: tarfile.TarFile) -> bytes:
        return json.dumps({**json.loads(content), **changes}).encode() if name == "manifest.json" else content

    return change


@pytest.fixture
def file(source: Ledger, tmp_path: Path) -> Path:
    (tmp_path / "source" / "plan.json").write_text("{}")
    return archive.export(source, NAME, tmp_path / "good.tar", artifacts=tmp_path / "source").archive


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "0000"}, r"schema 0000.*longrange db upgrade LEDGER"),
        ({"format": 0}, r"format 0.*export again"),
        ({"schema": "9999"}, r"newer than this longrange knows.*pip install --upgrade"),
        ({"format": 99}, "newer than this longrange knows"),
    ],
)
def test_another_version_is_refused_with_the_command_that_helps(
    file: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(LedgerVersionError, match=message), archive.opened(rewritten(file, in_manifest(**changes))):
        pass


def hostile(name: str, kind: bytes, link: str = "") -> Callable[[str, bytes, tarfile.TarFile], bytes]:
    """Add a member that the manifest vouches for: only its name and kind are wrong."""

    def change(at: str, content: bytes, new: tarfile.TarFile) -> bytes:
        if at == "manifest.json":
            manifest = json.loads(content)
            manifest["files"][name] = {"bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()}
            return json.dumps(manifest).encode()
        if at == "files/plan.json":
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            new.addfile(member, io.BytesIO(b"evil") if member.size else None)
        return content

    return change


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/tmp/evil", tarfile.REGTYPE, ""),
        ("../evil", tarfile.REGTYPE, ""),
        ("files/../../evil", tarfile.REGTYPE, ""),
        ("files/a/./evil", tarfile.REGTYPE, ""),
        ("files//evil", tarfile.REGTYPE, ""),
        ("files/..\\evil", tarfile.REGTYPE, ""),
        ("files/C:evil", tarfile.REGTYPE, ""),
        ("rows/../evil.bin", tarfile.REGTYPE, ""),
        ("evil", tarfile.REGTYPE, ""),
        ("files/link", tarfile.SYMTYPE, "/etc/passwd"),
        ("files/link", tarfile.LNKTYPE, "manifest.json"),
        ("files/pipe", tarfile.FIFOTYPE, ""),
        ("files/folder", tarfile.DIRTYPE, ""),
        # What `longrange export` never writes: they would steer a later `longrange resume` of the run folder.
        ("files/run.json", tarfile.REGTYPE, ""),
        ("files/RUN.JSON", tarfile.REGTYPE, ""),
        ("files/cancel", tarfile.REGTYPE, ""),
        ("files/checkpoints/0123/step.safetensors", tarfile.REGTYPE, ""),
        ("files/ledger.db-journal", tarfile.REGTYPE, ""),
        ("files/figures/.hidden", tarfile.REGTYPE, ""),
        ("files/", tarfile.REGTYPE, ""),
        ("files", tarfile.REGTYPE, ""),
    ],
)
def test_members_that_lead_elsewhere_are_refused(file: Path, name: str, kind: bytes, link: str) -> None:
    changed = rewritten(file, hostile(name, kind, link))
    with pytest.raises(UserError, match="does not belong there"), archive.opened(changed):
        pass


def test_a_member_of_holes_does_not_fill_the_disk(file: Path) -> None:
    """A sparse member of a few bytes unpacks to whatever its header says, here to a gibibyte."""
    size, name = 2**30, "files/plan.json"

    def holes(at: str, content: bytes, new: tarfile.TarFile) -> bytes | None:
        if at != name:
            return content
        member = tarfile.TarInfo(name)
        member.pax_headers = {"GNU.sparse.map": f"0,1,{size},0", "GNU.sparse.size": str(size)}
        member.size = 1
        new.addfile(member, io.BytesIO(b"x"))
        return None

    changed = rewritten(file, holes)
    with tarfile.open(changed) as tar:
        assert tar.getmember(name).size == size
    with pytest.raises(UserError, match="does not belong there"), archive.opened(changed):
        pass


def test_every_damaged_byte_is_found(file: Path) -> None:
    with tarfile.open(file) as tar:
        members = [member for member in tar if member.size]
    for member in members:
        content = bytearray(file.read_bytes())
        content[member.offset_data + member.size // 2] ^= 1
        damaged = file.with_name("damaged.tar")
        damaged.write_bytes(content)
        with pytest.raises(UserError), archive.opened(damaged):
            pass


def test_a_cut_doubled_or_unlisted_member_is_refused(file: Path) -> None:
    size = file.stat().st_size
    short = file.with_name("short.tar")
    for length in (0, 100, size // 3, size * 2 // 3):
        short.write_bytes(file.read_bytes()[:length])
        with pytest.raises(UserError), archive.opened(short):
            pass
    without = rewritten(file, lambda name, content, _: None if name == "files/plan.json" else content)
    with pytest.raises(UserError, match="lacks files/plan"), archive.opened(without):
        pass
    headless = rewritten(file, lambda name, content, _: None if name == "manifest.json" else content)
    with pytest.raises(UserError, match="does not begin with manifest"), archive.opened(headless):
        pass
    with pytest.raises(UserError, match="cannot be read: No such file"), archive.opened(file.with_name("x")):
        pass


def test_the_hash_told_at_export_is_that_of_the_file(source: Ledger, tmp_path: Path) -> None:
    done = archive.export(source, NAME, tmp_path / "a.tar")
    assert done.sha256 == hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest()
    assert (done.trials, done.bytes) == (6, (tmp_path / "a.tar").stat().st_size)
    with archive.opened(tmp_path / "a.tar", sha256=done.sha256.upper()) as content:
        assert content.manifest.sweep == NAME
    with pytest.raises(UserError, match="has the hash"), archive.opened(tmp_path / "a.tar", sha256="0" * 64):
        pass


def test_a_failed_export_leaves_the_old_archive(source: Ledger, tmp_path: Path) -> None:
    target = tmp_path / "a.tar"
    target.write_text("old")
    with pytest.raises(UserError, match="no sweep 'other'; there are: which <block>"):
        archive.export(source, "other", target)
    assert target.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "a.tar"}, "nothing unfinished is left"
    with closing(sqlite3.connect(tmp_path / "source" / "ledger.db")) as database:
        assert database.execute("SELECT count(*) FROM trials").fetchone() == (6,)
