"""Which arms buy the most for their cost? The Pareto frontier, with the probability that each arm is really on it."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboards.text import LEVEL

RESAMPLES = 2000
NOISE = 0.05  # an arm below the frontier with at least this probability of being on it is "within noise"
ON, NEAR, DOMINATED, UNKNOWN = "on the frontier", "within noise of it", "dominated", "unknown"


def frontier(cost: pd.Series, values: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """The frontier of mean value over cost.

    An arm is dominated if another is no dearer and no worse, and better in one of the two. The probability comes from
    a bootstrap over seeds: seeds are resampled for all arms together, because arms that share a seed share its luck.
    Resampled means are spread by sqrt(n / (n - 1)), without which a bootstrap of few values is too sure of itself.
    The spread of an arm with one seed is unknown: its own probability is NaN, and for the others it stays at its value.

    Args:
        cost: `[arms]`, NaN where unknown.
        values: `[arms, seeds]`, NaN where missing.
        higher_is_better: False for errors.

    Returns:
        Per arm: cost, mean, n, probability, standing (`ON`, `NEAR`, `DOMINATED`, `UNKNOWN`), dominated_by (an arm_id).
    """
    matrix = values.to_numpy(float) * (1 if higher_is_better else -1)
    n = np.isfinite(matrix).sum(axis=1)
    known = (n > 0) & np.isfinite(cost.to_numpy(float))
    table = pd.DataFrame({"cost": cost.astype(float), "mean": values.mean(axis=1), "n": n}, index=values.index)
    standings = np.full((3, len(table)), np.nan, dtype=object)  # object: None stays None
    standings[1], standings[2] = UNKNOWN, None
    if known.any():
        standings[:, known] = _standings(cost.to_numpy(float)[known], matrix[known], table.index[known].to_numpy())
    probability, standing, dominated_by = standings
    by = pd.Series(dominated_by, index=table.index, dtype=object)
    return table.assign(probability=probability.astype(float), standing=standing, dominated_by=by)


def _standings(costs: NDArray[np.float64], rows: NDArray[np.float64], arms: NDArray[np.object_]) -> NDArray[np.object_]:
    """Probability, standing and dominator, `[3, arms]`, of arms that have a cost and values (higher is better)."""
    means = np.nanmean(rows, axis=1)
    dominators = dominates(costs, means)
    on = ~dominators.any(axis=0)
    probability = undominated(costs, resampled_means(rows, RESAMPLES)).mean(axis=0)
    probability[np.isfinite(rows).sum(axis=1) < 2] = np.nan
    standing = np.where(on, ON, np.where(probability >= NOISE, NEAR, DOMINATED))
    best = np.where(dominators, means[:, None], -np.inf).argmax(axis=0)
    found = np.empty((3, len(costs)), dtype=object)
    found[0], found[1], found[2] = probability, standing, np.where(on, None, arms[best])
    return found


def dominates(cost: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.bool_]:
    """`[arms, arms]`: True at [i, j] where i dominates j (higher value is better)."""
    cheap, good = cost[:, None] <= cost[None, :], value[:, None] >= value[None, :]
    strict = (cost[:, None] < cost[None, :]) | (value[:, None] > value[None, :])
    return cheap & good & strict


def undominated(cost: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which arms are on the frontier in each resample.

    Walks arms from cheap to dear; arms of equal cost are one step, of which only the best stay.

    Args:
        cost: `[arms]`.
        values: `[resamples, arms]`, higher is better.

    Returns:
        `[resamples, arms]`.
    """
    on = np.zeros(values.shape, dtype=bool)
    best = np.full(values.shape[0], -np.inf)
    for step in np.unique(cost):
        arms = np.flatnonzero(cost == step)
        top = values[:, arms].max(axis=1)
        on[:, arms] = (values[:, arms] == top[:, None]) & (top > best)[:, None]
        best = np.maximum(best, top)
    return on


def resampled_means(rows: NDArray[np.float64], resamples: int) -> NDArray[np.float64]:
    """Means over resampled seeds, `[resamples, arms]`, from `[arms, seeds]` with at least one value per arm."""
    generator = np.random.default_rng(0)
    seeds = rows.shape[1]
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).astype(float)
    present = np.isfinite(rows).astype(float)
    total, drawn = weights @ np.nan_to_num(rows).T, weights @ present.T
    mean, n = np.nanmean(rows, axis=1), present.sum(axis=1)
    resampled = np.where(drawn > 0, total / np.maximum(drawn, 1), mean)
    spread = np.sqrt(n / np.maximum(n - 1, 1))
    return np.asarray(mean + (resampled - mean) * spread)


def band(cost: pd.Series, values: pd.DataFrame, *, higher_is_better: bool = True) -> pd.DataFrame:
    """How far the best value reachable at each cost is known: cost, low, high (95 % over resampled seeds).

    Empty unless every arm that takes part has at least two seeds: one of unknown spread would look certain.
    """
    sign = 1 if higher_is_better else -1
    matrix = values.to_numpy(float) * sign
    n = np.isfinite(matrix).sum(axis=1)
    known = (n > 0) & np.isfinite(cost.to_numpy(float))
    if not known.any() or (n[known] < 2).any():
        return pd.DataFrame({"cost": [], "low": [], "high": []}, dtype=float)
    costs = cost.to_numpy(float)[known]
    resampled = resampled_means(matrix[known], RESAMPLES)
    order = np.argsort(costs, kind="stable")
    best = np.maximum.accumulate(resampled[:, order], axis=1)
    last = np.append(np.diff(costs[order]) > 0, True)
    tail = (1 - LEVEL) / 2
    ends = sign * np.quantile(best[:, last], [tail, 1 - tail], axis=0)
    return pd.DataFrame({"cost": costs[order][last], "low": ends.min(axis=0), "high": ends.max(axis=0)})
