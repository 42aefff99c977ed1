"""The report's section on the papers: verdicts, what changes place once everything is counted, every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import frames, text
from dashboards.analysis import audit
from dashboards.figures import audit as draw_audit


@dataclass(frozen=True)
class Published:
    """The section.

    Attributes:
        verdicts: the columns of `papers`.
        papers: paper, and how many of its numbers have each verdict.
        planes: paper, figure of the accuracies over printed and over executed cost.
        places: what is compared, figure of the places by either cost, what it shows.
        rows: every number.
    """

    verdicts: tuple[str, ...]
    papers: tuple[tuple[str, dict[str, int]], ...]
    planes: tuple[tuple[str, str], ...]
    places: tuple[tuple[str, str, str], ...]
    rows: tuple[dict[str, str], ...]


def section(rows: Sequence[Mapping[str, Any]], figures: dict[str, go.Figure]) -> Published | None:
    """Published against reproduced numbers; None without any. Its figures are put into `figures`."""
    if not rows:
        return None
    table = audit.frame(rows)
    counted = audit.summary(table)
    papers = tuple(
        (paper, {str(name): int(number) for name, number in row.items()}) for paper, row in frames.rows(counted)
    )
    return Published(
        verdicts=tuple(map(str, counted.columns)),
        papers=papers,
        planes=_planes(rows, [paper for paper, _ in papers], figures),
        places=_places(audit.rank_changes(table), figures),
        rows=tuple(map(_printed, rows)),
    )


def said(row: Mapping[str, Any]) -> str:
    """How many change places, of a row of `analysis.audit.agreement`."""
    tau = f"Kendall's tau {row['tau']:.2f}" if np.isfinite(row["tau"]) else "too few models for Kendall's tau"
    return f"{row['moved']} of {row['n']} models change places; {tau}"


def _planes(
    rows: Sequence[Mapping[str, Any]], papers: Sequence[str], figures: dict[str, go.Figure]
) -> tuple[tuple[str, str], ...]:
    points, found = audit.planes(rows), []
    for paper in papers:
        tables = draw_audit.planes(points, paper)
        if tables:
            figures[f"planes-{paper}"] = draw_audit.draw_planes(tables)
            found.append((paper, f"planes-{paper}"))
    return tuple(found)


def _places(changes: pd.DataFrame, figures: dict[str, go.Figure]) -> tuple[tuple[str, str, str], ...]:
    found = []
    for number, row in enumerate(frames.records(audit.agreement(changes))):
        if row["n"] > 1:
            info, name = draw_audit.info(changes, row), f"places-{number}"
            figures[name] = draw_audit.draw(info)
            found.append((info.title, name, said(row)))
    return tuple(found)


def _printed(row: Mapping[str, Any]) -> dict[str, str]:
    """One printed number beside ours; GFLOPs of a rule and executed ones are in columns of their own."""
    ours, executed = row.get("reproduced"), row.get("executed")
    return {
        "model": str(row.get("model") or row["row_id"]),
        "metric": str(row["metric"]).replace("_", " "),
        "published": str(row.get("published") or text.MISSING),
        "reproduced": f"{ours:.4g}" if isinstance(ours, int | float) else str(ours or text.MISSING),
        "executed": f"{executed:.4g}" if isinstance(executed, int | float) else text.MISSING,
        "rule": str(row.get("rule") or ""),
        "verdict": str(row.get("verdict") or ""),
        "reason": str(row.get("reason") or ""),
    }
