"""What the clips say: are two sets of trained networks different on the clips they were evaluated on?

This is about the networks at hand: unlike the comparison over seeds (`significance.py`) it says nothing about training
once more. It is the only test there is with one seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar

from dashboards.text import LEVEL

RESAMPLES = 10_000
EXACT_BELOW = 25  # discordant clips below which McNemar's test is the exact binomial one


@dataclass(frozen=True)
class ClipComparison:
    """One arm against another on the same clips, in percentage points of top-1.

    Attributes:
        clips: number of clips.
        seeds: seeds that both arms have.
        only_first: clips only the first arm gets right, averaged over seeds.
        only_second: clips only the second arm gets right, averaged over seeds.
        difference: first - second.
        low: lower end of the 95 % paired bootstrap interval over clips.
        high: upper end.
        p: McNemar's test; over several seeds twice the mean of their p-values, which is valid however they depend on
            each other (Vovk and Wang, Biometrika 2020).
    """

    clips: int
    seeds: tuple[int, ...]
    only_first: float
    only_second: float
    difference: float
    low: float
    high: float
    p: float


def compare_clips(
    first: Mapping[int, NDArray[np.bool_]], second: Mapping[int, NDArray[np.bool_]]
) -> ClipComparison | None:
    """Compare two arms on one list of clips; None if they share no seed.

    Args:
        first: seed -> `[clips]`, True where top-1 is right.
        second: the same for the other arm.
    """
    seeds = tuple(sorted(set(first) & set(second)))
    if not seeds:
        return None
    one, two = (np.stack([side[seed] for seed in seeds]) for side in (first, second))
    gains = (one.astype(int) - two.astype(int)).mean(axis=0)
    low, high = paired_bootstrap(gains)
    only_first, only_second = (one & ~two).sum(axis=1), (two & ~one).sum(axis=1)
    return ClipComparison(
        clips=one.shape[1],
        seeds=seeds,
        only_first=float(only_first.mean()),
        only_second=float(only_second.mean()),
        difference=100 * float(gains.mean()),
        low=100 * low,
        high=100 * high,
        p=merged_p([_mcnemar(int(a), int(b)) for a, b in zip(only_first, only_second, strict=True)]),
    )


def paired_bootstrap(gains: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile interval of the mean of `[clips]` paired differences, clips resampled.

    The differences take few distinct values, so resampling clips is drawing how often each value occurs: the same
    distribution as drawing clips one by one, at a thousandth of the work.
    """
    values, counts = np.unique(gains, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(gains), counts / len(gains), size=RESAMPLES)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn @ values / len(gains), [tail, 1 - tail])
    return float(low), float(high)


def merged_p(p_values: Sequence[float]) -> float:
    """One p-value for several dependent ones; of one it is the value itself."""
    if len(p_values) == 1:
        return p_values[0]
    return min(1.0, 2 * float(np.mean(p_values)))


def _mcnemar(only_first: int, only_second: int) -> float:
    if only_first + only_second == 0:
        return 1.0
    exact = only_first + only_second < EXACT_BELOW
    return float(mcnemar([[0, only_first], [only_second, 0]], exact=exact, correction=True).pvalue)
