"""Is the difference to the control real? Paired by seed, corrected over the whole table.

The verdict comes from seeds alone: they are what another run of the study would change. `better` or `worse` needs an
adjusted p below 5 % (Holm over every comparison of the table); everything else is `undecided`, with the reason.
`clips.py` adds what the clips say about the trained networks at hand.

Diverged trials take part at chance level (`values.py`). One common seed has no spread, so nothing can be decided; n = 2
is a t test with one degree of freedom, rightly hard to pass. Where every difference is the same number the t test is
undefined: the seed seems to change nothing, which is said instead of a p of 0. Without two common seeds, two arms
with two seeds each are compared by Welch's test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.power import ttest_power

from dashboards import frames
from dashboards.analysis.arms import t_half_width
from dashboards.text import LEVEL, count

Numbers = NDArray[np.float64]
Reference = str | Mapping[Any, str | None]

ALPHA = 1 - LEVEL
POWER = 0.8
MOST_SEEDS = 100
PAIRED, WELCH, NONE = "paired t", "Welch t", ""
BETTER, WORSE, UNDECIDED, CONTROL = "better", "worse", "undecided", "control"
ROUNDING = 1e-9  # relative: differences closer than this are one number


def compare(values: pd.DataFrame, control: Reference, *, higher_is_better: bool = True) -> pd.DataFrame:
    """Every arm against `control`, with the reason of each verdict and how many more seeds would help.

    Args:
        values: `[arms, seeds]`, NaN where missing.
        control: the arm_id the others are compared with, or for each arm its own (None: with nothing).
        higher_is_better: which direction is an improvement.

    Returns:
        What `judge` returns, and: more_seeds (about how many more for 80 % power; NaN if not asked, infinite if over
        100), reason.
    """
    table = judge(values, control, higher_is_better=higher_is_better)
    tests = max(1, int(table["p"].notna().sum()))
    table["more_seeds"] = _more(table, ALPHA / tests)
    table["reason"] = [_reason(row, tests) for row in frames.records(table)]
    return table


def judge(values: pd.DataFrame, control: Reference, *, higher_is_better: bool = True) -> pd.DataFrame:
    """The tests and verdicts of `compare`.

    Returns:
        Per arm: n (pairs), difference (arm - control), sd (of differences), low, high (95 %, not corrected), p, method,
        p_holm, p_bh, verdict. A control's own row has verdict "control" and no numbers.
    """
    matrix, at = values.to_numpy(float), _positions(values.index, control)
    reference = np.where((at >= 0)[:, None], matrix[at], np.nan)
    numbers = _paired(matrix - reference)
    numbers["method"] = np.where(numbers["n"] > 0, PAIRED, NONE).astype(object)
    counts, others = (np.isfinite(rows).sum(axis=1) for rows in (matrix, reference))
    for arm in np.flatnonzero((numbers["n"] < 2) & (counts > 1) & (others > 1)):
        for name, value in _welch(matrix[arm], reference[arm]).items():
            numbers[name][arm] = value
    is_control = at == np.arange(len(at))
    for name in ("difference", "sd", "low", "high", "p"):
        numbers[name][is_control] = np.nan
    numbers["p_holm"], numbers["p_bh"] = holm(numbers["p"]), benjamini_hochberg(numbers["p"])
    better = numbers["difference"] > 0 if higher_is_better else numbers["difference"] < 0
    certain = numbers["p_holm"] < ALPHA
    numbers["verdict"] = np.select([certain & better, certain], [BETTER, WORSE], UNDECIDED).astype(object)
    numbers["verdict"][is_control] = CONTROL
    return pd.DataFrame(numbers, index=values.index)


def _positions(arms: pd.Index, control: Reference) -> NDArray[np.int64]:
    """Where each arm's control is, -1 without one."""
    wanted = control if isinstance(control, Mapping) else dict.fromkeys(arms, control)
    return np.array([-1 if wanted[arm] is None else arms.get_loc(wanted[arm]) for arm in arms], dtype=np.int64)


def holm(p: Numbers) -> Numbers:
    """p-values corrected over the table by Holm; undefined ones stay NaN and are not counted.

    Own arithmetic because statsmodels' `multipletests` collects garbage on every call, a quarter of a second each.
    """
    order = np.argsort(p, kind="stable")[: int(np.isfinite(p).sum())]  # NaN sorts last
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1.0)
    return adjusted


def benjamini_hochberg(p: Numbers) -> Numbers:
    """p-values corrected for the false discovery rate; undefined ones stay NaN and are not counted."""
    known = np.isfinite(p)
    adjusted = np.full(len(p), np.nan)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def seeds_needed(effect_size: float, alpha: float) -> float:
    """Smallest n for which a paired t test finds `effect_size` (mean / sd of differences) with 80 % power.

    Infinite above `MOST_SEEDS`. As the effect is itself an estimate, this is a rough guide.
    """
    return float(_seeds_needed(np.array([effect_size]), alpha)[0])


def _seeds_needed(effect_sizes: Numbers, alpha: float) -> Numbers:
    """`seeds_needed` of many effects at once: bisection in step, as each call of the non-central t is slow."""
    # Beyond 20 sd the non-central t overflows, and two or three seeds are enough anyway.
    effects = np.minimum(np.abs(effect_sizes), 20.0)

    def enough(n: NDArray[np.int64]) -> NDArray[np.bool_]:
        power = ttest_power(effects, n, alpha, alternative="two-sided")
        return np.asarray(np.nan_to_num(power, nan=1.0) >= POWER)

    least, most = np.full(len(effects), 2), np.full(len(effects), MOST_SEEDS)
    possible = enough(most)
    while (least < most).any():
        middle = (least + most) // 2
        found = enough(middle)
        least, most = np.where(found, least, middle + 1), np.where(found, middle, most)
        least = np.minimum(least, most)
    return np.where(possible, most, np.inf).astype(float)


def _paired(differences: Numbers) -> dict[str, NDArray[Any]]:
    """The paired t test of every row of `[arms, seeds]` at once."""
    n = np.isfinite(differences).sum(axis=1)
    filled = np.where(np.isfinite(differences), differences, 0.0)
    mean = np.where(n > 0, filled.sum(axis=1) / np.maximum(n, 1), np.nan)
    squares = np.where(np.isfinite(differences), (differences - mean[:, None]) ** 2, 0.0).sum(axis=1)
    sd = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    sd = np.where(sd <= ROUNDING * np.maximum(np.abs(mean), 1.0), 0.0, sd)
    varies = (n > 1) & (sd > 0)
    t = np.where(varies, mean / np.where(varies, sd, 1.0) * np.sqrt(np.maximum(n, 1)), np.nan)
    p = np.where(varies, 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1)), np.nan)
    half = np.where(varies, t_half_width(sd, n), np.nan)
    return {"n": n, "difference": mean, "sd": sd, "low": mean - half, "high": mean + half, "p": p}


def _welch(arm: Numbers, reference: Numbers) -> dict[str, Any]:
    arm, reference = arm[np.isfinite(arm)], reference[np.isfinite(reference)]
    found = {"n": min(len(arm), len(reference)), "method": WELCH, "difference": arm.mean() - reference.mean()}
    if np.ptp(arm) == 0 and np.ptp(reference) == 0:
        return found | {"sd": 0.0, "p": np.nan, "low": np.nan, "high": np.nan}
    test = stats.ttest_ind(arm, reference, equal_var=False)
    low, high = test.confidence_interval(LEVEL)
    sd = float(np.sqrt(arm.var(ddof=1) + reference.var(ddof=1)))
    return found | {"sd": sd, "p": test.pvalue, "low": low, "high": high}


def _more(table: pd.DataFrame, alpha: float) -> Numbers:
    """About how many more seeds each undecided arm needs; NaN where that is no question."""
    open_ones = ((table["verdict"] == UNDECIDED) & (table["sd"] > 0) & (table["difference"] != 0)).to_numpy()
    asked = table[open_ones]
    more = np.full(len(table), np.nan)
    needed = _seeds_needed((asked["difference"] / asked["sd"]).to_numpy(float), alpha)
    # The estimate may say that the seeds at hand were enough: then the next one is the least that can help.
    more[open_ones] = np.maximum(needed - asked["n"].to_numpy(float), 1.0)
    return more


def _reason(row: dict[str, Any], tests: int) -> str:
    if row["verdict"] == CONTROL:
        return ""
    if row["verdict"] in (BETTER, WORSE):
        return f"p < {ALPHA:.2g} after Holm's correction over {count(tests, 'comparison')}"
    if row["n"] < 2:
        return "one seed: its spread is unknown" if row["n"] else "no result to compare yet"
    if row["sd"] == 0:
        same = "no difference" if row["difference"] == 0 else "the same difference"
        return f"{same} for every seed: check that the seed changes the run"
    if row["difference"] == 0:
        return "the same mean: the interval holds 0"
    more = row["more_seeds"]
    seeds = f"over {MOST_SEEDS} more seeds" if np.isinf(more) else f"about {count(int(more), 'more seed')}"
    outside = row["low"] > 0 or row["high"] < 0
    where = f"leaves out 0, but not after correction over {tests} comparisons" if outside else "holds 0"
    return f"the interval {where}; {seeds} needed"
