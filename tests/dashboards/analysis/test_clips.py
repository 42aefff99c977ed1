from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from dashboards.analysis.clips import compare_clips, merged_p, paired_bootstrap
from dashboards.analysis.per_class import per_class


def correct(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, neither]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_mcnemar_is_r_s() -> None:
    """Agresti's approval ratings, R's ?mcnemar.test: chi-squared 34.712, p = 3.822e-09."""
    one, two = correct(794, 150, 86, 570)
    found = compare_clips({0: one}, {0: two})
    assert found is not None
    assert found.p == pytest.approx(stats.chi2.sf(((150 - 86) - 1) ** 2 / (150 + 86), 1))
    assert found.p == pytest.approx(float(mcnemar([[794, 150], [86, 570]], exact=False).pvalue))
    assert (found.only_first, found.only_second) == (150, 86)
    assert found.difference == pytest.approx(100 * (150 - 86) / 1600)


def test_few_discordant_clips_use_the_exact_test() -> None:
    one, two = correct(50, 8, 1, 41)
    found = compare_clips({0: one}, {0: two})
    assert found is not None
    assert found.p == pytest.approx(stats.binomtest(1, 9).pvalue)


def test_equal_networks_are_not_different() -> None:
    one, _ = correct(50, 8, 1, 41)
    found = compare_clips({0: one}, {0: one})
    assert found is not None
    assert (found.p, found.difference, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)


def test_no_common_seed_is_no_comparison() -> None:
    one, two = correct(5, 1, 1, 1)
    assert compare_clips({0: one}, {1: two}) is None


def test_the_bootstrap_over_clips_is_scipy_s() -> None:
    gains = np.random.default_rng(0).choice([-1.0, -0.5, 0.0, 0.5, 1.0], 400, p=[0.05, 0.1, 0.5, 0.2, 0.15])
    expected = stats.bootstrap((gains,), np.mean, n_resamples=5000, method="percentile", rng=np.random.default_rng(1))
    assert paired_bootstrap(gains) == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_merged_p_values_stay_valid_and_one_stays_itself() -> None:
    assert merged_p([0.03]) == 0.03
    assert merged_p([0.01, 0.03]) == pytest.approx(0.04)
    assert merged_p([0.9, 0.8]) == 1.0


def test_merged_p_values_rarely_reject_under_the_null_even_if_equal() -> None:
    same = np.random.default_rng(0).uniform(size=4000)
    assert np.mean([merged_p([p, p, p]) < 0.05 for p in same]) <= 0.05


def test_seeds_are_averaged_per_clip() -> None:
    first = {0: np.array([True, True]), 1: np.array([True, False])}
    second = {0: np.array([False, True]), 1: np.array([False, False]), 2: np.array([True, True])}
    found = compare_clips(first, second)
    assert found is not None
    assert found.seeds == (0, 1)
    assert found.difference == 50.0


def test_per_class_gains_by_hand() -> None:
    labels = np.array([0, 0, 1, 1, 1], dtype=np.int32)
    first = {3: np.array([True, True, False, True, False])}
    second = {3: np.array([False, False, True, True, False])}
    table = per_class(labels, first, second)
    assert list(table.index) == [0, 1]
    assert list(table["name"]) == ["class 0", "class 1"]
    assert list(per_class(labels, first, second, ("left", "right"))["name"]) == ["left", "right"]
    assert list(table["difference"]) == pytest.approx([100.0, -100 / 3])
    assert list(table["clips"]) == [2, 3]
    assert (table["low"] <= table["difference"]).all()
    assert (table["difference"] <= table["high"]).all()


def test_one_clip_of_a_class_tells_no_spread() -> None:
    table = per_class(np.array([0, 1, 1], np.int32), {0: np.array([True, True, False])}, {0: np.array([False] * 3)})
    assert np.isnan(table.loc[0, ["low", "high"]].astype(float)).all(), "an interval of no width would look certain"
    assert np.isfinite(table.loc[1, ["low", "high"]].astype(float)).all()


def test_per_class_without_common_seed_is_empty() -> None:
    labels = np.array([0], dtype=np.int32)
    assert per_class(labels, {0: np.array([True])}, {1: np.array([True])}).empty
