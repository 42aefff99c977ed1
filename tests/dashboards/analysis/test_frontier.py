from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.analysis.frontier import (
    DOMINATED,
    NEAR,
    ON,
    UNKNOWN,
    band,
    dominates,
    frontier,
    resampled_means,
    undominated,
)

COST = pd.Series({"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0, "e": 4.0})
VALUES = pd.DataFrame.from_dict(
    {
        "a": [50.0, 51.0, 49.0],
        "b": [90.0, 91.0, 89.0],
        "c": [70.0, 71.0, 69.5],
        "d": [90.1, 89.0, 90.2],  # dearer than b, and within its noise
        "e": [95.0, 94.0, 96.0],
    },
    orient="index",
)


def test_standing_by_hand() -> None:
    table = frontier(COST, VALUES)
    assert dict(table["standing"]) == {"a": ON, "b": ON, "c": DOMINATED, "d": NEAR, "e": ON}
    assert dict(table["dominated_by"].dropna()) == {"c": "b", "d": "b"}
    assert table.loc["c", "probability"] == 0
    assert table.loc["e", "probability"] == 1
    assert 0.05 < table.loc["d", "probability"] < 0.6


def test_errors_are_better_low() -> None:
    table = frontier(COST, 100 - VALUES, higher_is_better=False)
    assert list(table["standing"]) == list(frontier(COST, VALUES)["standing"])


def test_one_seed_has_no_probability_and_unknown_costs_take_no_part() -> None:
    values = VALUES.copy()
    values.loc["e", 1:] = np.nan
    table = frontier(COST.where(COST.index != "a"), values)
    assert table.loc["a", "standing"] == UNKNOWN
    assert table.loc["e", "standing"] == ON
    assert np.isnan(table.loc["e", "probability"])


def test_nothing_known_is_unknown() -> None:
    table = frontier(COST * np.nan, VALUES)
    assert set(table["standing"]) == {UNKNOWN}
    assert band(COST * np.nan, VALUES).empty


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_walk_finds_what_the_definition_says(points: list[tuple[int, int]]) -> None:
    cost, value = (np.array(axis, dtype=float) for axis in zip(*points, strict=True))
    by_definition = ~dominates(cost, value).any(axis=0)
    np.testing.assert_array_equal(undominated(cost, value[None, :])[0], by_definition)


def test_resampled_means_spread_like_the_standard_error() -> None:
    sample = np.random.default_rng(0).normal(90, 2, (1, 5))
    means = resampled_means(sample, 20_000)[:, 0]
    assert means.mean() == pytest.approx(sample.mean(), abs=0.05)
    assert means.std() == pytest.approx(sample.std(ddof=1) / np.sqrt(5), rel=0.03)


def test_shared_luck_does_not_blur_a_paired_difference() -> None:
    """All arms move with the seed; the order never changes, so neither may the frontier."""
    luck = np.array([-5.0, 0.0, 5.0, 2.0])
    values = pd.DataFrame([90 + luck, 89.9 + luck], index=["cheap", "dear"])
    table = frontier(pd.Series({"cheap": 1.0, "dear": 2.0}), values)
    assert table.loc["cheap", "probability"] == 1
    assert table.loc["dear", "probability"] == 0


def test_the_band_holds_the_frontier_and_never_falls_with_cost() -> None:
    found = band(COST, VALUES)
    assert list(found["cost"]) == [1.0, 2.0, 3.0, 4.0]
    reached = [50.0, 90.0, 90.0, 95.0]
    assert (found["low"] <= reached).all()
    assert (found["high"] >= reached).all()
    assert found["low"].is_monotonic_increasing
    assert found["high"].is_monotonic_increasing


def test_one_single_seed_leaves_the_band_undefined() -> None:
    values = VALUES.copy()
    values.loc["a", 1:] = np.nan
    assert band(COST, values).empty
