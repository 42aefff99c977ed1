"""Averaging scores: numbers done by hand, invariances, and a search that finds what was hidden."""

from __future__ import annotations

import numpy as np
import pytest

from workloads import ensemble, metrics

A = np.array([[0.8, 0.2], [0.5, 0.5]])
B = np.array([[0.2, 0.8], [0.9, 0.1]])


def noisy(generator: np.random.Generator, labels: np.ndarray, strength: float, classes: int = 7) -> np.ndarray:
    logits = generator.normal(0, 1, (len(labels), classes))
    logits[np.arange(len(labels)), labels] += strength
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float16)


def test_probabilities_are_averaged_after_the_softmax() -> None:
    np.testing.assert_allclose(ensemble.combine([A, B], [3, 1], "softmax"), [[0.65, 0.35], [0.6, 0.4]])


def test_logits_are_averaged_before_the_softmax() -> None:
    """Whatever constant a clip's logits had, which probabilities do not tell."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (2, 11, 5)) + generator.normal(0, 9, (2, 11, 1))

    def softmax(values: np.ndarray) -> np.ndarray:
        exponents = np.exp(values - values.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)

    wanted = softmax(0.25 * logits[0] + 0.75 * logits[1])
    np.testing.assert_allclose(ensemble.combine([*softmax(logits)], [1, 3], "logits"), wanted, rtol=1e-6)
    by_hand = ensemble.combine([A[:1], np.array([[0.5, 0.5]])], [1, 1], "logits")
    np.testing.assert_allclose(by_hand, [[2 / 3, 1 / 3]])  # sqrt(0.8 / 0.2) = 2


def test_what_float16_rounds_to_zero_is_not_impossible() -> None:
    sure, unsure = np.array([[1.0, 0.0]], np.float16), np.array([[0.1, 0.9]], np.float16)
    found = ensemble.combine([sure, unsure], [1, 1], "logits")
    assert np.isfinite(found).all()
    assert 0 < found[0, 1] < 0.01


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_only_ratios_of_weights_matter_and_zero_leaves_a_member_out(average: ensemble.Average) -> None:
    one, ten = (ensemble.combine([A, B], [w, 2 * w], average) for w in (1, 10))
    np.testing.assert_allclose(one, ten)
    np.testing.assert_allclose(ensemble.combine([A, B], [1, 0], average), A)


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [0, 0], [-1, 2], [float("nan"), 1], [float("inf"), 1]])
def test_weights_that_cannot_be_used_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        ensemble.combine([A, B], weights, "softmax")


def test_the_search_takes_what_helps_and_leaves_what_does_not() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 7, 600)
    good, other, useless = noisy(generator, labels, 2.5), noisy(generator, labels, 2.5), noisy(generator, labels, 0.0)
    found = ensemble.search_weights([useless, good, other], labels, "softmax")
    assert sum(found) == pytest.approx(1)
    assert found[0] < 0.15 < min(found[1:])
    both = ensemble.combine([useless, good, other], found, "softmax")
    best = max(metrics.top_k_percent(one, labels, 1) for one in (good, other))
    assert metrics.top_k_percent(both, labels, 1) > best + 3


def test_halves_have_the_same_classes_and_share_no_clip() -> None:
    labels = np.array([0] * 10 + [1] * 6 + [2] * 3)
    one, two = ensemble.halves(labels, 3)
    assert sorted([*one, *two]) == list(range(19))
    assert np.bincount(labels[one], minlength=3)[:2].tolist() == [5, 3]
    assert (one == ensemble.halves(labels, 3)[0]).all()
    assert len(one) != len(ensemble.halves(labels, 4)[0]) or (one != ensemble.halves(labels, 4)[0]).any()


def test_metrics_are_the_means_of_what_clips_add() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 7, 50)
    scores = noisy(generator, labels, 1.0)
    means = ensemble.per_clip(scores, labels).mean(axis=0)
    wanted = [
        metrics.top_k_percent(scores, labels, 1),
        metrics.top_k_percent(scores, labels, 5),
        metrics.averaged_error_percent(scores, labels),
    ]
    assert means.tolist() == pytest.approx(wanted)


def test_the_bootstrap_agrees_with_the_normal_interval() -> None:
    gains = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], (2000, 1), p=[0.1, 0.7, 0.2])
    (interval,) = ensemble.paired_bootstrap(gains)
    half = 1.96 * gains.std() / np.sqrt(2000)
    assert interval.low == pytest.approx(gains.mean() - half, abs=0.003)
    assert interval.high == pytest.approx(gains.mean() + half, abs=0.003)
    wider = ensemble.paired_bootstrap(gains, level=0.99)[0]
    assert wider.low < interval.low < interval.high < wider.high
