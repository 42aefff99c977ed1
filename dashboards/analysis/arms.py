"""Each arm on its own: n, mean, spread and intervals over its seeds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dashboards.text import LEVEL

RESAMPLES = 5000
TOGETHER = 100  # arms resampled in one call, to bound memory: 8 bytes x RESAMPLES x seeds each
DISAGREE_POINTS = 10.0  # seeds further apart than this: a mean alone misleads (bimodal arms)


def summarise(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and spread per arm.

    Args:
        values: `[arms, seeds]`, NaN where missing.

    Returns:
        Per arm: n, mean, sd, low, high (95 % t interval), bootstrap_low, bootstrap_high (95 % BCa over seeds, from
        n = 3), min, max, seeds_disagree (they lie more than `DISAGREE_POINTS` apart). Undefined values are NaN: sd
        and intervals need two seeds.
    """
    n = values.notna().sum(axis=1)
    mean, sd = values.mean(axis=1), values.std(axis=1, ddof=1)
    half = t_half_width(sd.to_numpy(float), n.to_numpy(int))
    low, high = values.min(axis=1), values.max(axis=1)
    bootstrap = bootstrap_intervals(values.to_numpy(float))
    columns = {
        "n": n.astype(int),
        "mean": mean,
        "sd": sd,
        "low": mean - half,
        "high": mean + half,
        "bootstrap_low": bootstrap[:, 0],
        "bootstrap_high": bootstrap[:, 1],
        "min": low,
        "max": high,
        "seeds_disagree": (high - low) > DISAGREE_POINTS,
    }
    return pd.DataFrame(columns, index=values.index)


def t_half_width(sd: NDArray[np.float64], n: NDArray[np.int64]) -> NDArray[np.float64]:
    """Half the 95 % t interval of a mean; NaN below two values."""
    enough = n > 1
    degrees = np.where(enough, n - 1, 1)
    half = stats.t.ppf((1 + LEVEL) / 2, degrees) * sd / np.sqrt(np.maximum(n, 1))
    return np.where(enough, half, np.nan)


def bootstrap_interval(sample: NDArray[np.float64]) -> tuple[float, float]:
    """95 % BCa interval of the mean over seeds; NaN below three values, a point where they are all equal."""
    low, high = bootstrap_intervals(sample[None])[0]
    return float(low), float(high)


def bootstrap_intervals(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """`bootstrap_interval` of every row of `[arms, seeds]` (NaN where missing) as `[arms, 2]`.

    Arms with equally many seeds are resampled together: a call of scipy's bootstrap costs more than its arithmetic.
    """
    found = np.full((len(rows), 2), np.nan)
    n = np.isfinite(rows).sum(axis=1)
    for size in np.unique(n[n > 2]):
        at = np.flatnonzero(n == size)
        for part in np.array_split(at, -(-len(at) // TOGETHER)):
            found[part] = _bootstrap(rows[part][np.isfinite(rows[part])].reshape(len(part), size))
    return found


def _bootstrap(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[arms, n]` without gaps to `[arms, 2]`; BCa is not defined where all values are equal."""
    ends = np.stack([samples[:, 0], samples[:, 0]], axis=1)
    varied = np.ptp(samples, axis=1) > 0
    if varied.any():
        rng = np.random.default_rng(0)
        found = stats.bootstrap(
            (samples[varied],), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="BCa", axis=-1, rng=rng
        )
        ends[varied] = np.stack(found.confidence_interval, axis=1)
    return ends
