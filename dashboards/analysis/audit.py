"""Published figures against ours: what was reproduced, and which orderings change when what really runs is counted.

Input is the audit's rows as dicts: row_id, paper, table, dataset, metric, published, reproduced, executed, rule,
increment, verdict, reason. Values may be None; `executed` is in the unit of `published`, and what a block adds where
the paper prints that (`increment`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from scipy import stats

COLUMNS = (
    "row_id",
    "paper",
    "table",
    "dataset",
    "metric",
    "published",
    "reproduced",
    "executed",
    "rule",
    "increment",
    "verdict",
    "reason",
)
NUMBERS = ["published", "reproduced", "executed"]


def frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The audit's rows as a frame with every column of `COLUMNS`; numbers are floats, NaN where missing."""
    table = _known(pd.DataFrame(list(rows), columns=pd.Index(COLUMNS)))
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in NUMBERS})


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """Rows without a table, a data set or a kind of cost (an older audit's) as those of one unnamed table."""
    names = {name: table[name].astype(object).fillna("").astype(str) for name in ("table", "dataset")}
    return table.assign(**names, increment=table["increment"].eq(True))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Rows per paper and verdict, as counts: one row per paper, one column per verdict."""
    return pd.crosstab(table["paper"], table["verdict"])


LIKE = ["paper", "dataset", "increment"]  # what two costs must share to be compared


def rank_changes(table: pd.DataFrame, metric: str = "gflops") -> pd.DataFrame:
    """How models change places when ordered by executed instead of published cost.

    Like is compared with like: models of one paper on one data set, whole networks (`increment` False) apart from
    what blocks add to theirs (True). Claims in the text are no models, and are left out. Executed costs are rounded to
    the digits that are printed, so that only visible differences count.

    Returns:
        Rows with both numbers: row_id, those of `LIKE`, published, executed, published_rank, executed_rank (1 is
        cheapest, equal costs share the smallest rank), change (positive: dearer than published), ratio (executed /
        published).
    """
    known = table[(table["metric"] == metric) & table["published"].notna() & table["executed"].notna()]
    known = known[~known["table"].str.startswith("text")]
    visible = known["executed"].copy()
    for _, group in known.groupby(LIKE):
        visible[group.index] = group["executed"].round(_digits(group["published"]))
    ranked = known.assign(
        published_rank=known.groupby(LIKE)["published"].rank(method="min"),
        executed_rank=known.assign(visible=visible).groupby(LIKE)["visible"].rank(method="min"),
        ratio=known["executed"] / known["published"].where(known["published"] != 0),
    )
    columns = ["row_id", *LIKE, "published", "executed", "published_rank", "executed_rank", "ratio"]
    changed = ranked[columns].assign(change=ranked["executed_rank"] - ranked["published_rank"])
    return changed.reset_index(drop=True)


def _digits(printed: pd.Series) -> int:
    return max(len(f"{number:g}".partition(".")[2]) for number in printed)


TABLE = ["paper", "table", "dataset", "increment"]
PLANE = [*TABLE, "row_id", "model", "verdict", "published", "executed", "top1_percent"]


def planes(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Models that a table prints with a cost and an accuracy, where we can count the cost too.

    Costs are compared within one table and data set only, networks apart from what blocks add: others count by other
    rules. Executed costs are rounded to the digits the table prints before they are ranked, so that only visible
    differences count.

    Args:
        rows: the audit's rows; `table`, `dataset` and `model` are needed.

    Returns:
        The columns of `PLANE`, published_rank and executed_rank (1 is cheapest, equal costs share the smallest rank),
        change (positive: dearer than published), published_best and executed_best (nothing in the table is at least
        as accurate for less). Tables with fewer than two such models are left out.
    """
    top1 = {row["row_id"]: row["published"] for row in rows if row["metric"] == "top1"}
    found = [
        {**row, "top1_percent": top1.get(row["row_id"]), "digits": len(str(row["published"]).partition(".")[2])}
        for row in rows
        if row["metric"] == "gflops" and row.get("executed") is not None and row.get("published")
    ]
    points = _known(pd.DataFrame(found, columns=pd.Index([*PLANE, "digits"])))
    numbers = ["published", "executed", "top1_percent"]
    points = points.assign(**{name: pd.to_numeric(points[name], errors="coerce") for name in numbers})
    points = points.dropna(subset=numbers)
    tables = [_ranked(group) for _, group in points.groupby(TABLE, sort=False) if len(group) > 1]
    columns = [*PLANE, "published_rank", "executed_rank", "change", "published_best", "executed_best"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=pd.Index(columns))


def _ranked(group: pd.DataFrame) -> pd.DataFrame:
    executed = group["executed"].round(int(group["digits"].max()))
    ranks = {"published_rank": group["published"].rank(method="min"), "executed_rank": executed.rank(method="min")}
    return group.assign(
        **ranks,
        change=ranks["executed_rank"] - ranks["published_rank"],
        published_best=_best(group["published"], group["top1_percent"]),
        executed_best=_best(executed, group["top1_percent"]),
    )


def _best(cost: pd.Series, value: pd.Series) -> list[bool]:
    """Whether each model is on the frontier: none is both at least as cheap and as good, and better in one of them."""
    points = list(zip(cost, value, strict=True))
    return [not any(c <= mine and v >= ours and (c, v) != (mine, ours) for c, v in points) for mine, ours in points]


def agreement(changes: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau between published and executed order, for each group of `LIKE`: n, moved, tau, p.

    tau and p are NaN below three models. The order of the rows is that of `changes`.
    """
    rows = []
    for key, group in changes.groupby(LIKE, sort=False):
        tau = p = float("nan")
        if len(group) > 2 and group["published"].nunique() > 1 and group["executed"].nunique() > 1:
            tau, p = stats.kendalltau(group["published_rank"], group["executed_rank"])
        moved = int((group["change"] != 0).sum())
        rows.append({**dict(zip(LIKE, key, strict=True)), "n": len(group), "moved": moved, "tau": tau, "p": p})
    return pd.DataFrame(rows, columns=[*LIKE, "n", "moved", "tau", "p"])
