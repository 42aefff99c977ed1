"""Three helpers for statements that must be fast and mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.records.schema import Base

Key = TypeVar("Key", str, int)

CHUNK = 5_000  # values in one IN list: below every limit of both databases


def table(row: type[Base]) -> Table:
    """The table behind a row class, for statements without object tracking."""
    return cast(Table, row.__table__)


def chunks(values: Iterable[Key]) -> Iterator[list[Key]]:
    """The values in lists short enough for one statement."""
    rest = iter(values)
    while some := list(islice(rest, CHUNK)):
        yield some


def upsert(connection: Connection, row: type[Base], rows: Sequence[dict[str, Any]], *, replace: bool = True) -> None:
    """Insert rows; where the primary key exists, replace the columns given, or keep the old row.

    All rows must name the same columns, and no two may have the same key.
    """
    if not rows:
        return
    target = table(row)
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(target)
    keys = [column.name for column in target.primary_key]
    rest = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    if replace and rest:
        statement = statement.on_conflict_do_update(index_elements=keys, set_=rest)
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    connection.execute(statement, list(rows))
