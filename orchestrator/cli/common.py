"""What several verbs share: options, output as text or JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

MANY = 1_000  # rows

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Override the file, e.g. --set recipe.epochs=5."
)
only_option = click.option(
    "--only",
    multiple=True,
    metavar="PATH=VALUE",
    help="Keep arms with this value, e.g. --only block=rnl --only block.kernel=[3,7,7]. The same path again: either.",
)
ledger_option = click.option(
    "--ledger",
    metavar="PATH|URL",
    envvar="LONGRANGE_LEDGER",
    show_envvar=True,
    help="The ledger, if it is not in the run folder.",
)


def echo_json(value: Any) -> None:
    """One JSON object on standard output, keys in a fixed order."""
    click.echo(json.dumps(value, indent=2, sort_keys=True, allow_nan=False))


def echo_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """A table for people. Numbers are right-aligned; missing values are shown as a dash."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    listed = [["–" if cell is None else str(cell) for cell in row] for row in rows]
    if len(listed) > MANY:
        _echo_many([list(columns), *listed], title)
        return
    table = Table(title=escape(title) or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(listed) and all(row[index][:1].isdigit() or row[index] == "–" for row in listed)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in listed:
        table.add_row(*map(escape, row))
    console = Console()
    if not console.is_terminal:  # a pipe has no width: never cut or wrap what a script may read
        console = Console(width=250)
    console.print(table)


def _echo_many(rows: Sequence[Sequence[str]], title: str) -> None:
    """A table of thousands of rows, which take minutes to be laid out with care."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(f"{cell}{' ' * (width - cell_len(cell))}" for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    click.echo("\n".join(([title] if title else []) + [line.rstrip() for line in lines]))


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def typed(path: Path) -> str:
    """A path as the user would type it behind a command, from the present folder if it is in there."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
