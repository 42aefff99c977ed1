"""Accuracy and calibration from scores: pure functions of arrays.

Shapes: `n` clips, `k` classes. Scores are any values that rank the classes (probabilities where a docstring says so).
Of classes with equal scores the one of lower index comes first, as in argmax: constant scores are right for class 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Labels = NDArray[np.int64]


def top_k_percent(scores: Scores, labels: Labels, k: int) -> float:
    """Percentage of clips whose label is among the `k` best classes.

    Args:
        scores: `[n, k]`.
        labels: `[n]`.
        k: how many guesses; more than there are classes is all of them.
    """
    return 100.0 * float(np.mean(top_k_hits(scores, labels, k)))


def top_k_hits(scores: Scores, labels: Labels, k: int) -> NDArray[np.bool_]:
    """Which clips' labels are among the `k` best classes, `[n]`; arguments as `top_k_percent`."""
    hits: NDArray[np.bool_] = _ranks(scores, labels) < k
    return hits


def averaged_error_percent(scores: Scores, labels: Labels) -> float:
    """Mean of the top-1 and the top-5 error, as HG-NL (table 4) and the ActivityNet challenge report it."""
    return 100.0 - (top_k_percent(scores, labels, 1) + top_k_percent(scores, labels, 5)) / 2


def per_class_percent(scores: Scores, labels: Labels) -> NDArray[np.float64]:
    """Top-1 accuracy of each class, `[k]`; NaN for classes without clips."""
    counts = confusion(scores, labels)
    totals = counts.sum(axis=1)
    right = np.full(len(totals), np.nan)
    np.divide(100.0 * np.diag(counts), totals, out=right, where=totals > 0)
    return right


def confusion(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """`[k, k]` counts, true class by predicted class."""
    classes = scores.shape[1]
    flat = labels * classes + scores.argmax(axis=1)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def expected_calibration_error(probabilities: Scores, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 5) over equal-width bins of confidence, in [0, 1].

    Args:
        probabilities: `[n, k]`, each row sums to 1.
        labels: `[n]`.
        bins: number of bins over (0, 1].
    """
    values = probabilities.astype(np.float64)
    confidence = values.max(axis=1)
    right = values.argmax(axis=1) == labels
    of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(of, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(labels))


def cross_entropy(probabilities: Scores, labels: Labels) -> float:
    """Mean negative log-likelihood in nats; probabilities below 1e-12 count as that."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, 1e-12)).mean())


def summary(scores: Scores, labels: Labels) -> dict[str, float]:
    """The metrics that every trial reports.

    Args:
        scores: `[n, k]` probabilities.
        labels: `[n]`.
    """
    return {
        "top1_percent": top_k_percent(scores, labels, 1),
        "top5_percent": top_k_percent(scores, labels, 5),
        "validation_loss": cross_entropy(scores, labels),
        "ece": expected_calibration_error(scores, labels),
    }


def _ranks(scores: Scores, labels: Labels) -> NDArray[np.int64]:
    """How many classes come before the label, `[n]`."""
    own = scores[np.arange(len(labels)), labels][:, None]
    lower_class = np.arange(scores.shape[1])[None, :] < labels[:, None]
    ahead = (scores > own) | ((scores == own) & lower_class)
    ranks: NDArray[np.int64] = ahead.sum(axis=1, dtype=np.int64)
    return ranks
