"""Rows of a moved sweep into a ledger that may hold some of it already.

A trial that finished or diverged here is never changed: if the archive tells another story of it, nothing is imported.
Otherwise the story that got further is kept: finished, then ended, then waiting. Importing twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, delete, func, insert, select, update

from orchestrator.errors import UserError
from orchestrator.records.archive_rows import OF_TRIAL, SHARED, portions, read
from orchestrator.records.rows import Row
from orchestrator.records.schema import (
    ENDED,
    IMMUTABLE,
    ArmRow,
    AttemptRow,
    Base,
    CheckpointRow,
    LeaseRow,
    RejectionRow,
    State,
    SweepArmRow,
    SweepRow,
    SweepTrialRow,
    TrialRow,
)
from orchestrator.records.sql import CHUNK, chunks, table, upsert

OWN = ("owner", "estimated_seconds")  # of a trial: what is no part of its story


@dataclass
class Merged:
    """What became of an archive's trials.

    Attributes:
        sweep: its name.
        added: trials that the ledger did not know.
        completed: trials that were waiting or had failed here, and had got further there.
        unchanged: trials of which the ledger knows as much, or more.
    """

    sweep: str
    added: int = 0
    completed: int = 0
    unchanged: int = 0


@dataclass
class _Verdicts:
    """What to do with each archived trial."""

    added: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    compared: set[str] = field(default_factory=set)  # finished here and there: must be the same
    kept: set[str] = field(default_factory=set)

    @property
    def taken(self) -> set[str]:
        """Trials whose rows come from the archive."""
        return self.added | self.completed


def merge(connection: Connection, folder: Path, now: float) -> Merged:
    """Bring the rows that `archive_rows.dump` wrote into a ledger, inside the caller's transaction.

    Raises:
        UserError: another sweep of this name is here, a finished trial differs, or one runs here; nothing may be kept.
    """
    (sweep,) = read(SweepRow, folder)
    sweep_id, newer = _sweep(connection, sweep)
    verdicts = _judge(connection, folder, now)
    for kind in SHARED:
        for some in _some(read(kind, folder)):
            upsert(connection, kind, some, replace=False)
    for some in _some(read(ArmRow, folder)):
        _profiles(connection, some)
    _trials(connection, folder, verdicts)
    for kind in OF_TRIAL:
        _parts(connection, kind, folder, verdicts)
    _links(connection, folder, sweep_id, newer=newer)
    unchanged = len(verdicts.compared) + len(verdicts.kept)
    return Merged(str(sweep["name"]), len(verdicts.added), len(verdicts.completed), unchanged)


def _sweep(connection: Connection, sweep: Row) -> tuple[int, bool]:
    """The sweep's number here, and whether the archive has its newer plan."""
    known = connection.execute(select(table(SweepRow)).where(SweepRow.name == sweep["name"])).mappings().one_or_none()
    if known is None:
        made = insert(table(SweepRow)).values(sweep).returning(table(SweepRow).c.id)
        return int(connection.execute(made).scalar_one()), True
    if known["uid"] != sweep["uid"]:
        raise UserError(
            f"the ledger holds another sweep called {sweep['name']!r}, started on its own; import this one into a "
            "ledger of its own with --out"
        )
    newer = sweep["updated_at"] > known["updated_at"]
    if newer:
        connection.execute(update(table(SweepRow)).where(table(SweepRow).c.id == known["id"]).values(sweep))
    return int(known["id"]), newer


def _judge(connection: Connection, folder: Path, now: float) -> _Verdicts:
    verdicts = _Verdicts()
    running: list[str] = []
    trials = table(TrialRow)
    alive = set(connection.execute(select(LeaseRow.owner).where(LeaseRow.lease_until >= now)).scalars())
    tried = select(func.count()).where(AttemptRow.trial_id == trials.c.trial_id).scalar_subquery().label("tried")
    for some in portions(read(TrialRow, folder)):
        known = connection.execute(select(trials, tried).where(trials.c.trial_id.in_(some))).mappings()
        here = {row["trial_id"]: row for row in known}
        for trial_id, (row,) in some.items():
            if trial_id not in here:
                verdicts.added.add(trial_id)
                continue
            there, ours = _rank(row), _rank(dict(here[trial_id]))
            further = there > ours and (there == 2 or not here[trial_id]["tried"])
            if further and here[trial_id]["owner"] in alive:
                running.append(trial_id)
            chosen = verdicts.completed if further else verdicts.compared if there == ours == 2 else verdicts.kept
            chosen.add(trial_id)
    if running:
        raise UserError(
            f"{len(running)} trials of the archive are running here now ({_named(running)}); wait for them, or end "
            "them with `longrange cancel`, and import again"
        )
    return verdicts


def _rank(trial: Row) -> int:
    state = State(trial["state"])
    return 2 if state in IMMUTABLE else 1 if state in ENDED else 0


def _trials(connection: Connection, folder: Path, verdicts: _Verdicts) -> None:
    completed = sorted(verdicts.completed)
    replaced: tuple[type[Base], ...] = (*OF_TRIAL, CheckpointRow)
    for some_ids in chunks(completed):
        for kind in replaced:
            connection.execute(delete(table(kind)).where(table(kind).c.trial_id.in_(some_ids)))
    for some in portions(read(TrialRow, folder)):
        rows = {trial_id: row for trial_id, (row,) in some.items()}
        upsert(connection, TrialRow, [row | {"owner": None} for key, row in rows.items() if key in verdicts.taken])
        _compare(connection, TrialRow, {key: [row] for key, row in rows.items() if key in verdicts.compared})


def _parts(connection: Connection, kind: type[Base], folder: Path, verdicts: _Verdicts) -> None:
    seen: set[str] = set()
    for some in portions(read(kind, folder)):
        seen |= some.keys()
        upsert(connection, kind, [row for key, rows in some.items() if key in verdicts.taken for row in rows])
        _compare(connection, kind, {key: rows for key, rows in some.items() if key in verdicts.compared})
    silent = sorted(verdicts.compared - seen)
    for some_ids in chunks(silent):
        _compare(connection, kind, {key: [] for key in some_ids})


def _compare(connection: Connection, kind: type[Base], there: dict[str, list[Row]]) -> None:
    """Refuse the archive if finished trials have other rows there than here."""
    if not there:
        return
    keys = [column.name for column in table(kind).primary_key]
    ours: dict[str, list[Row]] = {key: [] for key in there}
    wanted = table(kind).c.trial_id.in_(list(there))
    for row in connection.execute(select(table(kind)).where(wanted)).mappings():
        ours[row["trial_id"]].append(dict(row))

    def story(rows: Iterable[Row]) -> list[Row]:
        plain = ({name: value for name, value in row.items() if name not in OWN} for row in rows)
        return sorted(plain, key=lambda row: tuple(row[name] for name in keys))

    differing = [key for key, rows in there.items() if story(rows) != story(ours[key])]
    if differing:
        raise UserError(
            f"{len(differing)} trials finished here and in the archive, with other {kind.__tablename__} "
            f"({_named(differing)}); finished trials never change: import the archive into a ledger of its own with "
            "--out, nothing was imported"
        )


def _profiles(connection: Connection, arms: Sequence[Row]) -> None:
    """An arm that was planned here without its profile gets the archive's."""
    arm = table(ArmRow)
    for row in arms:
        if row["profile"] is not None:
            values = {name: row[name] for name in ("params", "executed_macs", "profile")}
            lacking = (arm.c.arm_id == row["arm_id"], arm.c.params.is_(None))
            connection.execute(update(arm).where(*lacking).values(values))


def _links(connection: Connection, folder: Path, sweep_id: int, *, newer: bool) -> None:
    """The newer plan decides which arms the sweep has, under which labels; trials of its arms are united."""
    links, arms = table(SweepTrialRow), table(SweepArmRow)
    if newer:
        for kind in (SweepArmRow, RejectionRow):
            connection.execute(delete(table(kind)).where(table(kind).c.sweep_id == sweep_id))
            for some in _some(read(kind, folder)):
                connection.execute(insert(table(kind)), [row | {"sweep_id": sweep_id} for row in some])
    kept = select(arms.c.arm_id).where(arms.c.sweep_id == sweep_id)
    known = set(connection.execute(select(TrialRow.trial_id).where(TrialRow.arm_id.in_(kept))).scalars())
    for some in _some(read(SweepTrialRow, folder)):
        rows = [row | {"sweep_id": sweep_id} for row in some if row["trial_id"] in known]
        upsert(connection, SweepTrialRow, rows, replace=newer)
    orphans = select(TrialRow.trial_id).where(TrialRow.arm_id.not_in(kept))
    connection.execute(delete(links).where(links.c.sweep_id == sweep_id, links.c.trial_id.in_(orphans)))


def _some(rows: Iterable[Row]) -> Iterable[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == CHUNK:
            yield some
            some = []
    if some:
        yield some


def _named(trial_ids: Sequence[str]) -> str:
    return ", ".join(trial_ids[:3]) + (", ..." if len(trial_ids) > 3 else "")
