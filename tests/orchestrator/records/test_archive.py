"""A sweep that moves: whole between both databases, twice without effect, never over a finished trial, never out of
its folder."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import LedgerVersionError, UserError
from orchestrator.events import AttemptFailed
from orchestrator.failures import Cause
from orchestrator.records import archive
from orchestrator.records.archive_rows import OF_TRIAL, SHARED
from orchestrator.records.engine import reading
from orchestrator.records.ledger import Ledger
from orchestrator.records.merging import Merged
from orchestrator.records.schema import Base, LeaseRow, PredictionsRow, SweepArmRow, TrialRow
from orchestrator.records.sql import table

NAME = "which <block>?"


@pytest.fixture
def source(tmp_path: Path, sample: Any) -> Ledger:
    """Six trials: two finished, one diverged, one failed, one running, one waiting."""
    ledger = Ledger.open(tmp_path / "source" / "ledger.db")
    plan = sample.plan()
    ids = sample.ids(plan)
    ledger.record_plan(plan, now=50.0)
    ledger.introduce("driver", {"command": ["longrange", "run"]})
    ledger.keep_diff("d" * 16, b"diff")
    ledger.claim(ids, "driver", 60.0, now=90.0)
    facts = {"python": "3.11", "git_diff": "d" * 16}
    fail = AttemptFailed(ids[3], 1, 104.0, Cause.BUG, "KeyError: ü", "Traceback\n  a line", retried=False)
    ledger.apply(
        [
            *sample.whole(ids[0]),
            *sample.whole(ids[1]),
            *[sample.started(ids[2], environment=facts), sample.epoch(ids[2], 0, loss=float("nan"))],
            sample.ended(ids[2], state="diverged", result=None, cause=Cause.DIVERGED),
            *[sample.started(ids[3]), fail, sample.ended(ids[3], state="failed", result=None)],
            *[sample.started(ids[4]), sample.epoch(ids[4], 0)],
        ],
        "driver",
    )
    return ledger


@pytest.fixture
def move(source: Ledger, tmp_path: Path) -> Callable[..., Merged]:
    """Export `source` and import it elsewhere."""

    def moved(target: Ledger, now: float = 1000.0) -> Merged:
        file = tmp_path / "sweep.longrange.tar"
        archive.export(source, NAME, file)
        with archive.opened(file) as content:
            return content.into(target, now)

    return moved


def rows(ledger: Ledger, kind: type[Base]) -> list[dict[str, Any]]:
    with reading(ledger.engine) as connection:
        found = [dict(row) for row in connection.execute(select(table(kind))).mappings()]
    return sorted(found, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def everything(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    return {kind.__tablename__: rows(ledger, kind) for kind in Base.__subclasses__()}


def test_a_moved_sweep_is_the_same_sweep(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 6, "completed": 0, "unchanged": 0}
    ids = sample.ids(sample.plan())
    for kind in (*OF_TRIAL, *SHARED):
        ours = rows(source, kind)
        if kind is LeaseRow:
            ours = [row | {"lease_until": 0.0} for row in ours]
        running = [row for row in ours if row.get("trial_id") == ids[4]]
        assert rows(ledger, kind) == [row for row in ours if row not in running], kind.__tablename__
    states = {trial.trial_id: (trial.state.value, trial.owner) for trial in ledger.trials_of(NAME)}
    assert [states[key][0] for key in ids] == ["finished", "finished", "diverged", "failed", "planned", "planned"]
    assert {owner for _, owner in states.values()} == {None}
    here, there = ledger.sweep(NAME), source.sweep(NAME)
    assert here is not None
    assert there is not None
    assert (here.definition, here.rejections, here.created_at) == (there.definition, there.rejections, 50.0)
    assert len(ledger.claim(ids, "another", 60.0, now=1000.0)) == 2, "what had not ended can go on here"


def test_it_travels_back_from_either_database(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], tmp_path: Path
) -> None:
    move(ledger)
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    archive.export(ledger, NAME, one)
    with Ledger.open(tmp_path / "third.db") as third, archive.opened(one) as content:
        content.into(third, 1.0)
        archive.export(third, NAME, two)
    assert one.read_bytes() == two.read_bytes(), "equal rows give equal bytes, whatever database held them"


def test_a_second_time_changes_nothing(ledger: Ledger, move: Callable[..., Merged]) -> None:
    move(ledger)
    before = everything(ledger)
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 0, "completed": 0, "unchanged": 6}
    assert everything(ledger) == before


def test_what_got_further_elsewhere_comes_home(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    source.reset(ids[3:4])
    source.claim(ids[3:], "later", 60.0, now=5000.0)
    source.apply([*sample.whole(ids[3], attempt=2), *sample.whole(ids[4], attempt=2)], "later")
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 0, "completed": 2, "unchanged": 4}
    assert [trial.state.value for trial in ledger.trials_of(NAME)].count("finished") == 4
    assert rows(ledger, PredictionsRow) == rows(source, PredictionsRow)


def test_trials_that_finished_here_outlive_an_older_archive(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    ledger.claim(ids, "here", 60.0, now=1000.0)
    ledger.apply([event for key in ids[4:] for event in sample.whole(key)], "here")
    before = everything(ledger)
    move(ledger)
    assert everything(ledger) == before


def test_a_finished_trial_that_differs_stops_the_whole_import(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    ids = sample.ids(sample.plan())
    with reading(source.engine) as connection:
        uid = connection.exec_driver_sql("SELECT uid FROM sweeps").scalar_one()
    ledger.record_plan(sample.plan(), now=50.0)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE sweeps SET uid = '{uid}'")
    ledger.claim(ids[1:2], "here", 60.0, now=90.0)
    events = sample.whole(ids[1])
    ledger.apply([*events[:-1], sample.ended(ids[1], at=103.0, result=sample.result(top1=76.0))], "here")
    before = everything(ledger)
    with pytest.raises(UserError, match=rf"1 trials finished here and in the archive.*{ids[1]}.*--out"):
        move(ledger)
    assert everything(ledger) == before


def test_another_sweep_of_the_same_name_is_not_mixed_in(
    ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    ledger.record_plan(sample.plan(), now=60.0)
    with pytest.raises(UserError, match="another sweep called"):
        move(ledger)


def test_a_trial_that_runs_here_is_not_overtaken(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    source.apply([sample.ended(ids[4])], "driver")
    ledger.claim(ids[4:5], "here", 60.0, now=2000.0)
    with pytest.raises(UserError, match=r"running here now.*longrange cancel"):
        move(ledger, now=2030.0)
    assert move(ledger, now=2061.0).completed == 1, "its driver's lease has ended"


def test_the_newer_plan_decides_about_arms(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    source.record_plan(sample.plan(arms=2), now=50.0)
    move(ledger)
    source.record_plan(sample.plan(arms=3, seeds=4), now=200.0)
    move(ledger)
    assert len(rows(ledger, SweepArmRow)) == 3
    assert len(ledger.trials_of(NAME)) == 12
    source.record_plan(sample.plan(arms=1, seeds=5), now=300.0)
    move(ledger)
    assert {trial.label for trial in ledger.trials_of(NAME)} == {"arm 0"}
    assert len(rows(ledger, TrialRow)) == 13, "no trial is ever deleted"


def test_artifacts_go_along_but_secrets_links_and_databases_stay(source: Ledger, tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name in ("plan.json", "figures/ü frontier.svg", "run.json", ".hidden", "mlflow.db-wal", "checkpoints/a/s.pt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "outside").symlink_to(tmp_path)
    (root / "link.json").symlink_to(root / "run.json")
    file = tmp_path / "a.tar"
    archive.export(source, NAME, file, artifacts=root)
    target = tmp_path / "target"
    target.mkdir()
    (target / "plan.json").write_text("mine")
    with archive.opened(file) as content:
        assert content.write_files(target) == [target / "plan.json"]
        assert content.write_files(target) == [target / "plan.json"]
    assert (target / "plan.json").read_text() == "mine"
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["figures/ü frontier.svg", "plan.json"]


def test_a_link_in_the_run_folder_leads_no_file_out_of_it(source: Ledger, tmp_path: Path) -> None:
    (tmp_path / "source" / "figures").mkdir(parents=True)
    (tmp_path / "source" / "figures" / "one.svg").write_text("x")
    file = archive.export(source, NAME, tmp_path / "a.tar", artifacts=tmp_path / "source").archive
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "outside")
    with archive.opened(file) as content, pytest.raises(UserError, match=r"figures is a link out of .*remove it"):
        content.write_files(tmp_path / "run")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_where_a_file_is_put_aside_is_not_followed(source: Ledger, tmp_path: Path) -> None:
    (tmp_path / "source" / "plan.json").write_text("theirs")
    file = archive.export(source, NAME, tmp_path / "a.tar", artifacts=tmp_path / "source").archive
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / ".plan.json.import").symlink_to(tmp_path / "mine")
    with archive.opened(file) as content:
        content.write_files(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "run" / "plan.json").read_text() == "theirs"
    assert not (tmp_path / "run" / "plan.json").is_symlink()


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
