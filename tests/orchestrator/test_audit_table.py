"""A sweep that fills a paper's table brings that table's audit into its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator.audit.rows import audit_table, table_cells
from orchestrator.cli.looking import published_rows
from orchestrator.sweep import load_sweep, shipped_sweeps


@dataclass
class Record:
    reproduces: dict[str, Any] | None


@dataclass
class Recorded:
    record: Record


@pytest.mark.parametrize("name", [name for name in shipped_sweeps() if "/" in name])
def test_every_shipped_table_was_copied_out(name: str) -> None:
    fills = load_sweep(name).reproduces
    assert fills is not None
    cells = table_cells(fills.paper, fills.table)
    assert cells
    assert {cell.paper for cell in cells} == {fills.paper}
    assert len({cell.table for cell in cells}) == 1, "one table, not another whose name begins the same"


def test_a_table_of_formulas_is_judged_without_the_rest() -> None:
    rows = audit_table("hgnl", "2")
    assert {(row.paper, row.table) for row in rows} == {("hgnl", "2")}
    assert len(rows) == 18
    assert "exact" in {row.verdict for row in rows}


def test_rows_come_for_the_table_a_sweep_fills_and_for_no_other_sweep() -> None:
    rows = published_rows(Recorded(Record({"paper": "rnl", "table": "II(a)", "note": ""})))
    assert len(rows) == 12
    assert {row["verdict"] for row in rows} == {"accuracy: needs training"}
    assert published_rows(Recorded(Record(None))) == []
    assert published_rows(Recorded(Record({"paper": "rnl", "table": "XX", "note": ""}))) == []
