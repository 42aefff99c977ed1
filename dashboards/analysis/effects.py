"""Which axis matters? Main effects and two-way interactions of a design, with how balanced it is.

A linear model with seeds as blocks (trials of one seed share its luck) and the axes as factors. Level means are
least-squares means: what the level would give if the other axes' values were equally common. F tests are of type II.
Where the arms at hand cannot separate the axes, each axis is looked at alone and `adjusted` says so.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from dashboards.analysis.significance import holm
from dashboards.text import LEVEL

MAIN_COLUMNS = ["axis", "level", "n", "mean", "low", "high", "share", "p", "adjusted"]
PAIR_COLUMNS = ["first", "second", "balance", "cells", "filled", "share", "p"]


def main_effects(design: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Per axis and level: n trials, least-squares mean and 95 % interval; per axis: share of the variance and p.

    Args:
        design: `[arms, axes]` of levels (texts), as `axes.families` gives.
        values: `[arms, seeds]`, NaN where missing; only the design's arms are used.
    """
    data, names = _long(design, values)
    rows: list[dict[str, Any]] = []
    joint = _fit(data, list(names))
    for name, axis in names.items():
        fit = joint or _fit(data, [name])
        share, p = _test(fit, f"C({name})")
        means = _level_means(fit, data, name) if fit else {}
        for level, group in data.groupby(name, sort=False):
            mean, low, high = means.get(str(level), (float(group["value"].mean()), np.nan, np.nan))
            row = {"axis": axis, "level": level, "n": len(group), "mean": mean, "low": low, "high": high}
            rows.append(row | {"share": share, "p": p, "adjusted": joint is not None})
    return pd.DataFrame(rows, columns=MAIN_COLUMNS)


def interactions(design: pd.DataFrame, values: pd.DataFrame) -> pd.DataFrame:
    """Per pair of axes: the balance in words, cells and filled cells, share of the variance and p of the interaction.

    Share and p are NaN where not every combination of levels was run.
    """
    data, names = _long(design, values)
    rows = []
    for first, second in combinations(names, 2):
        cells = data.groupby([first, second]).size()
        possible = data[first].nunique() * data[second].nunique()
        share = p = float("nan")
        if len(cells) == possible:
            fit = _fit(data, list(names), (first, second))
            share, p = _test(fit, f"C({first}):C({second})")
        row = {"first": names[first], "second": names[second], "balance": _balance(cells, possible)}
        rows.append(row | {"cells": possible, "filled": len(cells), "share": share, "p": p})
    table = pd.DataFrame(rows, columns=PAIR_COLUMNS)
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def cell_means(design: pd.DataFrame, values: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Means of a pair of axes as `[first, second]`, averaged over everything else; NaN where nothing was run."""
    mean = values.loc[design.index].mean(axis=1)
    table = pd.DataFrame({"first": design[first], "second": design[second], "mean": mean})
    wide = table.pivot_table(index="first", columns="second", values="mean", sort=False)
    return wide.reindex(index=pd.unique(design[first]), columns=pd.unique(design[second]))


def _long(design: pd.DataFrame, values: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    names = {f"axis{i}": axis for i, axis in enumerate(design.columns)}
    renamed = design.set_axis(list(names), axis=1)
    stacked = pd.Series(values.loc[design.index].stack())
    long = stacked.dropna().to_frame("value").rename_axis(["arm", "seed"]).reset_index()
    return long.join(renamed, on="arm"), names


def _fit(data: pd.DataFrame, factors: list[str], pair: tuple[str, str] | None = None) -> Any:
    """The fitted model; None if the design cannot separate its terms or leaves nothing to estimate noise from."""
    factors = [name for name in factors if data[name].nunique() > 1]
    blocks = ["C(seed)"] if data["seed"].nunique() > 1 else []
    terms = blocks + [f"C({name})" for name in factors] + ([f"C({pair[0]}):C({pair[1]})"] if pair else [])
    if not factors or np.ptp(data["value"]) == 0:
        return None
    model = ols("value ~ " + " + ".join(terms), data=data)
    rank = np.linalg.matrix_rank(model.exog)
    return model.fit() if rank == model.exog.shape[1] < len(data) else None


def _test(fit: Any, term: str) -> tuple[float, float]:
    """Share of the total variance and p of one term."""
    if fit is None or fit.ssr <= 1e-12 * fit.centered_tss:
        return float("nan"), float("nan")
    table = anova_lm(fit, typ=2)
    if term not in table.index:
        return float("nan"), float("nan")
    return float(table.loc[term, "sum_sq"] / fit.centered_tss), float(table.loc[term, "PR(>F)"])


def _level_means(fit: Any, data: pd.DataFrame, name: str) -> dict[str, tuple[float, float, float]]:
    """Least-squares mean and interval per level: the model's prediction averaged over the grid of all other levels."""
    factors = [str(column) for column in data if column == "seed" or str(column).startswith("axis")]
    kept = [factor for factor in factors if factor == name or f"C({factor})" in fit.model.formula]
    grid = pd.MultiIndex.from_product([pd.unique(data[factor]) for factor in kept], names=kept).to_frame(index=False)
    rows = ols(fit.model.formula, data=grid.assign(value=0.0)).exog
    levels = [str(level) for level in pd.unique(data[name])]
    test = fit.t_test(np.stack([rows[(grid[name] == level).to_numpy()].mean(axis=0) for level in levels]))
    ends = test.conf_int(alpha=1 - LEVEL)
    return {level: (float(test.effect[i]), float(ends[i][0]), float(ends[i][1])) for i, level in enumerate(levels)}


def _balance(cells: pd.Series, possible: int) -> str:
    if len(cells) < possible:
        return f"{possible - len(cells)} of {possible} combinations were not run: no interaction can be estimated"
    if cells.nunique() == 1:
        return f"fully crossed, balanced: {cells.iloc[0]} trials per combination"
    return f"fully crossed, unbalanced: {cells.min()} to {cells.max()} trials per combination"
