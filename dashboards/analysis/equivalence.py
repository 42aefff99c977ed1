"""As good as, but cheaper? Equivalence by two one-sided tests (TOST), paired by seed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.weightstats import ttost_paired

from dashboards.analysis.significance import ALPHA, ROUNDING, holm

MARGIN_POINTS = 1.0  # differences smaller than this do not matter, unless the caller says otherwise


def equivalent(values: pd.DataFrame, reference: str, *, margin: float = MARGIN_POINTS) -> pd.DataFrame:
    """Which arms differ from `reference` by less than `margin`, for certain?

    Args:
        values: `[arms, seeds]`, NaN where missing.
        reference: the arm_id to compare with.
        margin: in the metric's unit; 1 point by default.

    Returns:
        Per arm: n (pairs), difference, p (TOST), p_holm, equivalent (p_holm < 5 %). NaN with fewer than two pairs or
        where the differences do not vary.
    """
    rows = {}
    for arm, row in values.drop(index=reference).iterrows():
        pair = np.isfinite(row) & np.isfinite(values.loc[reference])
        one, two = row[pair].to_numpy(float), values.loc[reference][pair].to_numpy(float)
        n, p = len(one), float("nan")
        if n > 1 and np.ptp(one - two) > ROUNDING * max(1.0, float(np.abs(one).max())):
            p = float(ttost_paired(one, two, -margin, margin)[0])
        rows[arm] = {"n": n, "difference": float((one - two).mean()) if n else float("nan"), "p": p}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["n", "difference", "p"])
    table["p_holm"] = holm(table["p"].to_numpy(float))
    return table.assign(equivalent=table["p_holm"] < ALPHA)


def cheaper(equal: pd.DataFrame, cost: pd.Series, reference: str) -> pd.DataFrame:
    """Of the equivalent arms those that cost less than `reference`, cheapest first, with `cost_ratio`."""
    ratio = (cost / cost[reference]).reindex(equal.index)  # a column must not bring rows of its own
    table = equal.assign(cost_ratio=ratio.astype(float))
    return table[table["equivalent"].astype(bool) & (table["cost_ratio"] < 1)].sort_values("cost_ratio")
