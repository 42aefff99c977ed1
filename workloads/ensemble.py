"""Several networks as one: weighted averages of the scores that each gave to the same clips. No torch here.

Shapes: `m` members, `n` clips, `k` classes. Stored scores are probabilities. Their logits are known up to one number
per clip, which no softmax sees: so averaging before the softmax is the normalised, weighted geometric mean of the
probabilities, exact but for what float16 rounds away (probabilities below 6e-8 are stored as 0 and count as 3e-8).

Paper: HG-NL sec. 3.4 (HG-NL + TSN + StNet) and TSM (Lin et al. 2019, 8 + 16 frames) average scores; neither prints
its weights. Weights are searched by ensemble selection (Caruana et al., ICML 2004). Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workloads.metrics import Labels, Scores, cross_entropy, top_k_hits

Average = Literal["softmax", "logits"]

ROUNDS = 40  # of the search: weights are multiples of 1 / 40
RESAMPLES = 10_000
_SMALLEST = 2.0**-25  # half of what float16 can hold above 0
METRICS = ("top1_percent", "top5_percent", "averaged_error_percent")


class Interval(NamedTuple):
    """Bounds of a mean."""

    low: float
    high: float


def combine(scores: Sequence[Scores], weights: Sequence[float], average: Average) -> NDArray[np.float64]:
    """Probabilities of the ensemble, `[n, k]`.

    Args:
        scores: `m` arrays `[n, k]` of probabilities.
        weights: `m` numbers, not negative and not all 0; only their ratios matter.
        average: `softmax` averages probabilities, `logits` averages what comes before the softmax.

    Raises:
        ValueError: another number of weights, or weights that cannot be used.
    """
    shares = normalised(weights, len(scores))
    if average == "softmax":
        return _weighted(scores, shares)
    logits = _weighted([np.log(np.maximum(one.astype(np.float64), _SMALLEST)) for one in scores], shares)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    averaged: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return averaged


def normalised(weights: Sequence[float], members: int) -> tuple[float, ...]:
    """The weights with a sum of 1.

    Raises:
        ValueError: another number of weights than members, or weights that cannot be used.
    """
    if len(weights) != members:
        raise ValueError(f"{members} members need {members} weights, given {len(weights)}")
    total = float(sum(weights))
    if not np.isfinite(total) or total <= 0 or min(weights) < 0:
        raise ValueError(f"weights must not be negative and not all 0, given {', '.join(f'{w:g}' for w in weights)}")
    return tuple(weight / total for weight in weights)


def search_weights(scores: Sequence[Scores], labels: Labels, average: Average) -> tuple[float, ...]:
    """Weights that do well on these clips: measure the ensemble on others.

    Starts from nothing and adds, `ROUNDS` times, the member that makes the ensemble best; members may be added again.
    Best is the highest top-1, then the lowest cross-entropy, then the first.

    Args:
        scores: `m` arrays `[n, k]` of probabilities.
        labels: `[n]`.
        average: as in `combine`.

    Returns:
        Weights with a sum of 1, those of the best round.
    """
    counts = np.zeros(len(scores))
    best, kept = (-np.inf, -np.inf), counts
    for _ in range(ROUNDS):
        tried = [counts + one for one in np.eye(len(scores))]
        ratings = [_rating(combine(scores, one.tolist(), average), labels) for one in tried]
        first = max(range(len(tried)), key=lambda at: ratings[at])
        counts = tried[first]
        if ratings[first] > best:
            best, kept = ratings[first], counts
    return normalised(kept.tolist(), len(scores))


def halves(labels: Labels, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two parts of `[n]` clips with, but for one clip, equally many of each class; drawn by `seed`."""
    order = np.random.default_rng(seed).permutation(len(labels))
    grouped = order[np.argsort(labels[order], kind="stable")]
    return np.sort(grouped[::2]), np.sort(grouped[1::2])


def per_clip(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """What each clip adds to the `METRICS`, in percent, `[n, 3]`; the metrics are the means."""
    first, fifth = (top_k_hits(scores, labels, k).astype(np.float64) for k in (1, 5))
    return 100.0 * np.stack([first, fifth, 1 - (first + fifth) / 2], axis=1)


def paired_bootstrap(gains: NDArray[np.float64], level: float = 0.95) -> list[Interval]:
    """Percentile intervals of the means of paired differences `[n, q]`, one for each of `q` quantities.

    Clips are resampled, all quantities together. Differences take few distinct values, so drawing how often each row
    occurs is the same as drawing clips one by one.

    Args:
        gains: differences per clip.
        level: of each interval.
    """
    rows, counts = np.unique(gains, axis=0, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(gains), counts / len(gains), size=RESAMPLES)
    tail = (1 - level) / 2
    low, high = np.quantile(drawn @ rows / len(gains), [tail, 1 - tail], axis=0)
    return [Interval(float(one), float(other)) for one, other in zip(low, high, strict=True)]


def _weighted(arrays: Sequence[Scores], shares: Sequence[float]) -> NDArray[np.float64]:
    total = np.zeros(arrays[0].shape, np.float64)
    for array, share in zip(arrays, shares, strict=True):
        if share:
            total += share * array.astype(np.float64)
    return total


def _rating(scores: Scores, labels: Labels) -> tuple[float, float]:
    return float(top_k_hits(scores, labels, 1).mean()), -cross_entropy(scores, labels)
