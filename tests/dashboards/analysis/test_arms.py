from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dashboards.analysis.arms import bootstrap_interval, summarise

# R: data(sleep), group 1; t.test(extra) prints mean 0.75 and the interval -0.5297804 .. 2.0297804.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]


def test_the_t_interval_is_r_s() -> None:
    row = summarise(pd.DataFrame([SLEEP_1])).iloc[0]
    assert row["n"] == 10
    assert row["mean"] == pytest.approx(0.75)
    assert (row["low"], row["high"]) == pytest.approx((-0.5297804, 2.0297804), abs=1e-6)


def test_intervals_agree_with_scipy_where_seeds_are_missing() -> None:
    table = summarise(pd.DataFrame([[90.0, np.nan, 93.0, 91.5], [1.0, 2.0, 4.0, 8.0]]))
    for row, sample in ((table.iloc[0], [90.0, 93.0, 91.5]), (table.iloc[1], [1.0, 2.0, 4.0, 8.0])):
        expected = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected))
        assert row["sd"] == pytest.approx(np.std(sample, ddof=1))


def test_one_seed_has_a_mean_but_no_interval() -> None:
    row = summarise(pd.DataFrame([[90.0, np.nan]])).iloc[0]
    assert (row["n"], row["mean"]) == (1, 90.0)
    assert row[["sd", "low", "high", "bootstrap_low", "bootstrap_high"]].isna().all()


def test_no_seed_has_nothing() -> None:
    row = summarise(pd.DataFrame([[np.nan, np.nan]])).iloc[0]
    assert row["n"] == 0
    assert np.isnan(row["mean"])


def test_the_bootstrap_interval_is_scipy_s_and_repeatable() -> None:
    sample = np.array(SLEEP_1)
    expected = stats.bootstrap((sample,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    low, high = bootstrap_interval(sample)
    assert (low, high) == pytest.approx(tuple(expected.confidence_interval), abs=0.1)
    assert (low, high) == bootstrap_interval(sample)


def test_equal_seeds_have_a_point_and_two_seeds_no_bootstrap() -> None:
    assert bootstrap_interval(np.array([5.0, 5.0, 5.0])) == (5.0, 5.0)
    assert np.isnan(bootstrap_interval(np.array([5.0, 6.0]))).all()


def test_bimodal_seeds_are_flagged() -> None:
    table = summarise(pd.DataFrame([[47.9, 91.0, 91.7], [90.0, 91.0, 91.7]]))
    assert list(table["seeds_disagree"]) == [True, False]


def test_seeds_disagree_beyond_ten_points() -> None:
    values = pd.DataFrame([[50.0, 59.9], [50.0, 60.5], [50.0, np.nan]], index=["near", "far", "single"])
    assert list(summarise(values)["seeds_disagree"]) == [False, True, False]
