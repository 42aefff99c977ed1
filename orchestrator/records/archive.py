"""One sweep as one file, moved between machines and databases: a plain tar of rows, artifacts and a manifest of hashes.

    manifest.json        format, schema revision, the sweep's name, and size and SHA-256 of every other member
    rows/TABLE.jsonl     the ledger's rows (`archive_rows`), with rows/TABLE.bin for binary columns
    files/...            plan, report and whatever else lies in the run folder

Not in it: checkpoints, the MLflow store (`longrange mirror` makes it again) and the settings of the machine it ran on.
The same ledger gives the same bytes. Nothing is used before all of it was copied aside and its hashes were found right;
members that are not plain files, or whose names lead elsewhere, are refused. Hashes prove that an archive is whole, not
who made it: like a sweep file, import it only from people you trust.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from orchestrator.errors import LedgerError, LedgerVersionError, UserError
from orchestrator.records import archive_rows
from orchestrator.records.engine import reading, serialize, writing
from orchestrator.records.ledger import Ledger
from orchestrator.records.merging import Merged, merge
from orchestrator.records.schema import VERSION

FORMAT = 1
SUFFIX = ".longrange.tar"
MANIFEST = "manifest.json"
MANIFEST_LIMIT = 64 * 2**20  # bytes; a manifest has some hundred per file
ROWS = re.compile(r"rows/[a-z_]+\.(jsonl|bin)")
PART = re.compile(r"[^\x00-\x1f\x7f\\/:]+")  # of a path below files/
LEFT_OUT = {"run.json", "cancel", "checkpoints", "mlartifacts"}
DATABASE = re.compile(r".*\.db(-wal|-shm|-journal)?")


@dataclass(frozen=True)
class Manifest:
    """What an archive holds.

    Attributes:
        format: of the archive itself.
        schema: revision of the ledger that the rows come from.
        sweep: its name.
        rows: table -> number of rows.
        files: member -> `{"bytes": size, "sha256": hex}`.
    """

    format: int
    schema: str
    sweep: str
    rows: Mapping[str, int]
    files: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Exported:
    """An archive that was written: `sha256` is that of the whole file, as `sha256sum` prints it."""

    archive: Path
    sha256: str
    bytes: int
    trials: int


@dataclass(frozen=True)
class Content:
    """A verified archive, unpacked into a private folder."""

    manifest: Manifest
    folder: Path

    def into(self, ledger: Ledger, now: float) -> Merged:
        """Bring the rows into a ledger: all of them or, if anything contradicts what it holds, none.

        Raises:
            UserError: another sweep of this name is there, a finished trial differs, or one runs there.
        """
        with writing(ledger.engine) as connection:
            serialize(connection)
            return merge(connection, self.folder, now)

    def write_files(self, root: Path) -> list[Path]:
        """Put the artifacts into a run folder. Files that are there already stay as they are.

        Returns:
            Files that stayed and differ from the archive's.

        Raises:
            UserError: a link leads from the run folder to where a file would go.
            LedgerError: the folder cannot be written.
        """
        differing = []
        for source in sorted(path for path in (self.folder / "files").rglob("*") if path.is_file()):
            target = root / source.relative_to(self.folder / "files")
            if not target.parent.resolve().is_relative_to(root.resolve()):
                raise UserError(f"{target.parent} is a link out of {root}; remove it, and import again")
            if target.exists():
                differing += [target] if _sha256(target) != _sha256(source) else []
                continue
            aside = target.with_name(f".{target.name}.import")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                aside.unlink(missing_ok=True)  # left by a crash, or a link that would be written through
                shutil.copyfile(source, aside)
                aside.replace(target)
            except OSError as error:
                aside.unlink(missing_ok=True)
                raise LedgerError(f"cannot write {target}: {error.strerror}; free it and import again") from error
        return differing


def export(ledger: Ledger, sweep: str, target: Path, *, artifacts: Path | None = None) -> Exported:
    """Write one sweep as an archive; drivers may go on writing to the ledger.

    Args:
        ledger: holds the sweep.
        sweep: its name.
        target: the archive; replaced if it is there, untouched if this fails.
        artifacts: a run folder whose files go along.

    Raises:
        UserError: no such sweep, or no folder for the target.
        LedgerError: the disk is full.
    """
    if not target.parent.is_dir():
        raise UserError(f"the folder {target.parent} for the archive does not exist; make it first")
    unfinished = target.with_name(f".{target.name}.unfinished")
    try:
        with tempfile.TemporaryDirectory(prefix=".longrange-export-", dir=target.parent) as name:
            folder = Path(name)
            with reading(ledger.engine) as connection:
                if connection.dialect.name == "postgresql":  # every table as of the same moment, as SQLite does
                    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                rows = archive_rows.dump(connection, sweep, folder)
            for place, source in sorted(_artifacts(artifacts).items() if artifacts else ()):
                (folder / "files" / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, folder / "files" / place)
            _pack(folder, Manifest(FORMAT, VERSION, sweep, rows, _hashes(folder)), unfinished)
        unfinished.replace(target)
    except OSError as error:
        raise LedgerError(f"the archive {target} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return Exported(target, _sha256(target), target.stat().st_size, rows["trials"])


@contextmanager
def opened(archive: Path, *, sha256: str | None = None) -> Iterator[Content]:
    """An archive, copied aside and verified.

    Args:
        archive: the file.
        sha256: what the hash of the whole file must be; None trusts the file.

    Raises:
        UserError: no archive of longrange, another hash, damaged, or with members that do not belong there.
        LedgerVersionError: made by an older or newer longrange; names the command that helps.
    """
    with tempfile.TemporaryDirectory(prefix="longrange-import-") as name:
        folder = Path(name)
        try:
            if sha256 is not None and (found := _sha256(archive)) != sha256.lower():
                raise UserError(f"{archive} has the hash {found}, expected {sha256}: it is another or a damaged file")
            with tarfile.open(archive, "r:") as tar:
                manifest = _manifest(tar, archive)
                _unpack(tar, manifest, folder, archive)
        except tarfile.TarError as error:
            raise UserError(f"{archive} is no archive of `longrange export`, or damaged: {error}") from error
        except OSError as error:
            raise UserError(f"{archive} cannot be read: {error.strerror or error}") from error
        yield Content(manifest, folder)


def _manifest(tar: tarfile.TarFile, archive: Path) -> Manifest:
    first = tar.next()
    if first is None or first.name != MANIFEST or not first.isreg() or first.size > MANIFEST_LIMIT:
        raise UserError(f"{archive} is no archive of `longrange export`: it does not begin with {MANIFEST}")
    try:
        document = json.load(_member(tar, first))
        _check_version(document, archive)
        manifest = Manifest(**document)
        for entry in manifest.files.values():
            if set(entry) != {"bytes", "sha256"}:
                raise ValueError("an entry of its files has other keys than bytes and sha256")
        missing = {f"rows/{kind.__tablename__}.jsonl" for kind in archive_rows.TABLES} - manifest.files.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise UserError(f"{MANIFEST} of {archive} cannot be read: {error}") from error
    return manifest


def _check_version(document: Mapping[str, Any], archive: Path) -> None:
    """An archive is read by the version that wrote it: migrations know databases only."""
    form, schema = document["format"], document["schema"]
    if form > FORMAT or schema > VERSION:
        raise LedgerVersionError(
            f"{archive} has format {form} and schema {schema}, newer than this longrange knows ({FORMAT}, {VERSION}); "
            "update longrange here: pip install --upgrade longrange"
        )
    if form < FORMAT or schema < VERSION:
        raise LedgerVersionError(
            f"{archive} has format {form} and schema {schema}, this longrange needs {FORMAT} and {VERSION}; where it "
            "was made, update longrange, run `longrange db upgrade LEDGER` and export again"
        )


def _unpack(tar: tarfile.TarFile, manifest: Manifest, folder: Path, archive: Path) -> None:
    """Copy every member aside by our own hands, and check it on the way."""
    seen = {MANIFEST}
    while (member := tar.next()) is not None:
        expected = manifest.files.get(member.name)
        plain = member.isreg() and not member.issparse()  # a sparse one of some bytes may fill the disk
        if expected is None or member.name in seen or not plain or not _is_harmless(member.name):
            raise UserError(f"{archive} holds {member.name!r}, which does not belong there; nothing was imported")
        seen.add(member.name)
        target = folder / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as copy:
            shutil.copyfileobj(_member(tar, member), copy)
        if (target.stat().st_size, _sha256(target)) != (expected["bytes"], expected["sha256"]):
            raise UserError(f"{member.name} in {archive} is damaged: its hash is not that of the manifest")
    lost = manifest.files.keys() - seen
    if lost:
        raise UserError(f"{archive} is cut short: it lacks {', '.join(sorted(lost)[:5])}")


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(member)
    assert found is not None, "regular files have content"
    return found


def _is_harmless(name: str) -> bool:
    """Rows of a table, or an artifact's path, which stays below files/ on every system."""
    if ROWS.fullmatch(name):
        return True
    root, *parts = name.split("/")
    return root == "files" and _travels(parts)


def _travels(parts: Sequence[str]) -> bool:
    """Artifacts go along, and come in: nothing hidden, no databases, and nothing that steers `resume` (`LEFT_OUT`).

    Letters' case is left aside, as some file systems do.
    """
    small = [part.casefold() for part in parts]
    if not small or small[0] in LEFT_OUT:
        return False
    return all(PART.fullmatch(part) and part[0] != "." and not DATABASE.fullmatch(part) for part in small)


def _artifacts(root: Path) -> dict[str, Path]:
    """The files of a run folder that go along; links do not."""
    found = {}
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        linked = any(parent.is_symlink() for parent in (path, *path.parents) if root in parent.parents)
        if path.is_file() and not linked and _travels(parts):
            found["/".join(parts)] = path
    return found


def _hashes(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in files
    }


def _pack(folder: Path, manifest: Manifest, target: Path) -> None:
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in (MANIFEST, *sorted(manifest.files)):
            member = tarfile.TarInfo(name)  # no owner, no time: equal content, equal bytes
            member.size = (folder / name).stat().st_size
            with (folder / name).open("rb") as content:
                tar.addfile(member, content)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
