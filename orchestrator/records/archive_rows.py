"""One sweep's rows as files, and back into another ledger: `rows/TABLE.jsonl`, one JSON object per line.

Binary columns are in `rows/TABLE.bin`; the line holds `[offset, length]`. Ids that only one database knows stay behind:
a sweep is named by its `uid`. So do leases that run, checkpoints (paths of one machine), and what a mirror copied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import IO, Any

from sqlalchemy import ColumnElement, Connection, LargeBinary, Table, select

from orchestrator.errors import UserError
from orchestrator.records.rows import Row
from orchestrator.records.schema import (
    ENDED,
    ArmRow,
    AttemptRow,
    Base,
    ClipSetRow,
    DiffRow,
    EnvironmentRow,
    EpochMetricRow,
    LeaseRow,
    PredictionsRow,
    RejectionRow,
    ResultRow,
    SamplesRow,
    State,
    SweepArmRow,
    SweepRow,
    SweepTrialRow,
    TrialRow,
)
from orchestrator.records.sql import table

# What belongs to a trial alone: compared as a whole with what another ledger has of it.
OF_TRIAL: tuple[type[Base], ...] = (AttemptRow, EpochMetricRow, ResultRow, SamplesRow, PredictionsRow)
# What several trials share, named by its content.
SHARED: tuple[type[Base], ...] = (ArmRow, EnvironmentRow, DiffRow, LeaseRow, ClipSetRow)
OF_SWEEP: tuple[type[Base], ...] = (SweepArmRow, RejectionRow, SweepTrialRow)
TABLES: tuple[type[Base], ...] = (SweepRow, *SHARED, TrialRow, *OF_SWEEP, *OF_TRIAL)
POINTERS = ((EnvironmentRow, "environment_id"), (LeaseRow, "owner"), (ClipSetRow, "clip_set_id"))

TRIALS_AT_ONCE = 200
LOCAL = ("id", "sweep_id")  # numbers that mean something in one database only


def dump(connection: Connection, sweep: str, folder: Path) -> dict[str, int]:
    """Write a sweep's rows below `folder`, in an order that depends on nothing but the rows.

    Trials that have not ended travel as waiting ones: what their open attempt did is not known yet.

    Returns:
        How many rows each table has.

    Raises:
        UserError: no such sweep.
    """
    found = connection.execute(select(table(SweepRow)).where(SweepRow.name == sweep)).mappings().one_or_none()
    if found is None:
        names = ", ".join(connection.execute(select(SweepRow.name)).scalars()) or "none"
        raise UserError(f"the ledger holds no sweep {sweep!r}; there are: {names}")
    writer = _Writer(folder)
    with writer:
        writer.add(SweepRow, [dict(found)])
        of_sweep = {kind: _select(connection, kind, _sweep_of(kind) == found["id"]) for kind in OF_SWEEP}
        for kind, rows in of_sweep.items():
            writer.add(kind, rows)
        trial_ids = sorted(row["trial_id"] for row in of_sweep[SweepTrialRow])
        used = _dump_trials(connection, trial_ids, writer)
        used[ArmRow] |= {row["arm_id"] for row in of_sweep[SweepArmRow]}
        for kind, keys in used.items():
            for some in _portions(sorted(keys)):
                writer.add(kind, [_settled(kind, row) for row in _select(connection, kind, _key(kind).in_(some))])
    return writer.rows


def _dump_trials(connection: Connection, trial_ids: Sequence[str], writer: _Writer) -> dict[type[Base], set[str]]:
    """Write the trials' own rows; the keys of the shared rows that they point to."""
    used: dict[type[Base], set[str]] = {kind: set() for kind in SHARED}
    for some in _portions(trial_ids):
        trials = _select(connection, TrialRow, TrialRow.trial_id.in_(some))
        ended = {row["trial_id"] for row in trials if State(row["state"]) in ENDED}
        writer.add(TrialRow, [_waiting(row) if row["trial_id"] not in ended else row for row in trials])
        used[ArmRow] |= {row["arm_id"] for row in trials}
        for kind in OF_TRIAL:
            rows = _select(connection, kind, table(kind).c.trial_id.in_(some))
            closed = [row for row in rows if row["trial_id"] in ended or row.get("ended_at") is not None]
            writer.add(kind, closed)
            for target, column in (
                (EnvironmentRow, "environment_id"),
                (LeaseRow, "owner"),
                (ClipSetRow, "clip_set_id"),
            ):
                used[target] |= {row[column] for row in closed if row.get(column)}
    for some in _portions(sorted(used[EnvironmentRow])):
        facts = connection.execute(select(EnvironmentRow.facts).where(EnvironmentRow.environment_id.in_(some)))
        used[DiffRow] |= {found["git_diff"] for found in facts.scalars() if found.get("git_diff")}
    return used


def read(kind: type[Base], folder: Path) -> Iterator[Row]:
    """The rows of one table that `dump` wrote.

    Raises:
        UserError: a line that is no row of this table.
    """
    columns = _columns(kind)
    binary = _binary(table(kind))
    with ExitStack() as stack:
        lines = stack.enter_context((folder / f"rows/{kind.__tablename__}.jsonl").open(encoding="utf-8"))
        path = folder / f"rows/{kind.__tablename__}.bin"
        blobs = stack.enter_context(path.open("rb")) if binary else None
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                if set(row) != columns:
                    raise ValueError(f"columns {', '.join(sorted(row))}")
                for name in binary:
                    row[name] = _blob(blobs, *row[name])
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"line {number} of {kind.__tablename__} in the archive is no row of this schema: {error}"
                ) from error
            yield row


def portions(rows: Iterable[Row]) -> Iterator[dict[str, list[Row]]]:
    """Rows that are together by trial, as trial_id -> rows, some trials at a time."""
    some: dict[str, list[Row]] = {}
    for row in rows:
        if row["trial_id"] not in some and len(some) >= TRIALS_AT_ONCE:
            yield some
            some = {}
        some.setdefault(row["trial_id"], []).append(row)
    if some:
        yield some


class _Writer:
    """One text file per table, and one for its binary columns if it has any."""

    def __init__(self, folder: Path) -> None:
        self._stack = ExitStack()
        self._folder = folder / "rows"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lines: dict[str, IO[str]] = {}
        self._blobs: dict[str, IO[bytes]] = {}
        self.rows: dict[str, int] = {}

    def __enter__(self) -> None:
        for kind in TABLES:
            name = kind.__tablename__
            self.rows[name] = 0
            file = (self._folder / f"{name}.jsonl").open("w", encoding="utf-8", newline="\n")
            self._lines[name] = self._stack.enter_context(file)
            if _binary(table(kind)):
                self._blobs[name] = self._stack.enter_context((self._folder / f"{name}.bin").open("wb"))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, kind: type[Base], rows: Iterable[Mapping[str, Any]]) -> None:
        name = kind.__tablename__
        binary = _binary(table(kind))
        for row in rows:
            plain = {key: value for key, value in row.items() if key not in LOCAL}
            for column in binary:
                plain[column] = [self._blobs[name].tell(), self._blobs[name].write(bytes(row[column]))]
            text = json.dumps(plain, sort_keys=True, allow_nan=False, separators=(",", ":"))
            self._lines[name].write(text + "\n")
            self.rows[name] += 1


def _blob(file: IO[bytes] | None, offset: int, length: int) -> bytes:
    assert file is not None
    file.seek(offset)
    content = file.read(length)
    if offset < 0 or length < 0 or len(content) != length:
        raise ValueError(f"no {length} bytes at {offset}")
    return content


def _select(connection: Connection, kind: type[Base], wanted: ColumnElement[bool]) -> list[Row]:
    """Rows sorted by their keys here: databases sort text differently."""
    rows = [dict(row) for row in connection.execute(select(table(kind)).where(wanted)).mappings()]
    keys = [column.name for column in table(kind).primary_key]
    return sorted(rows, key=lambda row: tuple(row[name] for name in keys))


def _sweep_of(kind: type[Base]) -> ColumnElement[int]:
    return table(kind).c.sweep_id


def _key(kind: type[Base]) -> ColumnElement[str]:
    (key,) = table(kind).primary_key
    return key


def _waiting(trial: Row) -> Row:
    return trial | {"state": State.PLANNED.value, "owner": None, "started_at": None, "ended_at": None}


def _settled(kind: type[Base], row: Row) -> Row:
    """A driver elsewhere holds no lease here; who it was is part of the record."""
    return row | {"lease_until": 0.0} if kind is LeaseRow else row


def _columns(kind: type[Base]) -> set[str]:
    return {column.name for column in table(kind).columns} - set(LOCAL)


def _binary(of: Table) -> tuple[str, ...]:
    return tuple(column.name for column in of.columns if isinstance(column.type, LargeBinary))


def _portions(keys: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while some := list(islice(rest, TRIALS_AT_ONCE)):
        yield some
