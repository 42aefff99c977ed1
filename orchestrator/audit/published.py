"""Every number the four papers print, as facts with their source. The package's CSV is the only copy."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.resources import files
from typing import NamedTuple

ACCURACIES = frozenset({"top1", "top5", "avg_error"})
COSTS = frozenset({"params_m", "gflops"})


class Cell(NamedTuple):
    """One printed cell.

    Attributes:
        paper: `hgnl`, `rnl`, `pnl`, `bat`.
        table: table, section or equation it is printed in.
        row_id: row; unique together with `metric`.
        model: as the paper calls it.
        dataset: of the row's accuracy.
        metric: `params_m`, `gflops`, `madds_formula`, `formula`, `output_size`, `top1`, `top5`, `avg_error`.
        value: as printed; empty where the paper prints a dash.
        decimals: digits after the point that the column prints (the CSV drops trailing zeros).
        cited: copied by the paper from another one.
        source: number of that one in the paper's references, in brackets; empty if unknown or the number is its own.
    """

    paper: str
    table: str
    row_id: str
    model: str
    dataset: str
    metric: str
    value: str
    decimals: int
    cited: bool
    source: str

    @property
    def key(self) -> str:
        """`row_id/metric`, unique."""
        return f"{self.row_id}/{self.metric}"

    @property
    def number(self) -> float | None:
        """The printed number; None for a dash, a formula or a size."""
        try:
            return float(self.value)
        except ValueError:
            return None


@cache
def published_cells() -> tuple[Cell, ...]:
    """All 479 cells, in the order of the papers' tables."""
    text = files("orchestrator").joinpath("published/figures.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    decimals: dict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        column = row["paper"], row["table"], row["metric"]
        decimals[column] = max(decimals[column], _decimals(row["value"]))
    return tuple(
        Cell(
            paper=row["paper"],
            table=row["table"],
            row_id=row["row_id"],
            model=row["model"],
            dataset=row["dataset"],
            metric=row["metric"],
            value=row["value"],
            decimals=decimals[row["paper"], row["table"], row["metric"]],
            cited="cited" in f"{row['conditions']} {row['notes']}",
            source="".join(re.findall(r"cited (\[\d+\])", f"{row['conditions']} {row['notes']}")[:1]),
        )
        for row in rows
    )


def _decimals(value: str) -> int:
    try:
        exponent = Decimal(value).as_tuple().exponent
    except InvalidOperation:
        return 0
    return max(0, -exponent) if isinstance(exponent, int) else 0
