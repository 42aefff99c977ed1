"""Published figures against ours: what was reproduced, and which orderings change when what really runs is counted.

Input is the audit's rows as dicts: row_id, paper, metric, published, reproduced, executed, rule, verdict, reason.
Values may be None; `executed` is in the unit of `published`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

COLUMNS = ("row_id", "paper", "metric", "published", "reproduced", "executed", "rule", "verdict", "reason")
NUMBERS = ["published", "reproduced", "executed"]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The audit's rows as a frame with every column of `COLUMNS`; numbers are floats, NaN where missing."""
    table = pd.DataFrame(list(rows), columns=pd.Index(COLUMNS))
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in NUMBERS})


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Rows per paper and verdict, as counts: one row per paper, one column per verdict."""
    return pd.crosstab(table["paper"], table["verdict"])


def rank_changes(table: pd.DataFrame, metric: str = "gflops") -> pd.DataFrame:
    """How models of one paper change places when ordered by executed instead of published cost.

    Returns:
        Rows with both numbers: row_id, paper, published, executed, published_rank, executed_rank (1 is cheapest, ties
        share the mean rank within a paper), change (positive: dearer than published), ratio (executed / published).
    """
    known = table[(table["metric"] == metric) & table["published"].notna() & table["executed"].notna()]
    by_paper = known.groupby("paper")
    ranked = known.assign(
        published_rank=by_paper["published"].rank(),
        executed_rank=by_paper["executed"].rank(),
        ratio=known["executed"] / known["published"].where(known["published"] != 0),
    )
    columns = ["row_id", "paper", "published", "executed", "published_rank", "executed_rank", "ratio"]
    changed = ranked[columns].assign(change=ranked["executed_rank"] - ranked["published_rank"])
    return changed.reset_index(drop=True)


def agreement(changes: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between published and executed order per paper: n, tau, p. NaN below three models."""
    rows = []
    for paper, group in changes.groupby("paper"):
        tau = p = float("nan")
        if len(group) > 2 and group["published"].nunique() > 1 and group["executed"].nunique() > 1:
            tau, p = stats.kendalltau(group["published"], group["executed"])
        moved = int((group["change"] != 0).sum())
        rows.append({"paper": str(paper), "n": len(group), "moved": moved, "tau": float(tau), "p": float(p)})
    return pd.DataFrame(rows, columns=["paper", "n", "moved", "tau", "p"]).set_index("paper")
