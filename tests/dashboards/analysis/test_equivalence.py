from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dashboards.analysis.equivalence import cheaper, equivalent


def test_tost_is_two_one_sided_t_tests() -> None:
    best, arm = np.array([93.0, 93.5, 92.8, 93.2, 93.9]), np.array([92.9, 93.3, 92.9, 93.0, 93.6])
    found = equivalent(pd.DataFrame([best, arm], index=["best", "arm"]), "best", margin=0.5).loc["arm"]
    lower = stats.ttest_1samp(arm - best, -0.5, alternative="greater").pvalue
    upper = stats.ttest_1samp(arm - best, 0.5, alternative="less").pvalue
    assert found["p"] == pytest.approx(max(lower, upper))
    assert found["equivalent"]


def test_undecided_is_not_equivalent() -> None:
    values = pd.DataFrame([[93.0, 92.0, 94.0], [92.0, 94.0, 92.5]], index=["best", "arm"])
    assert not equivalent(values, "best").loc["arm", "equivalent"]


def test_too_little_to_test_is_not_equivalent() -> None:
    values = pd.DataFrame([[93.0, 92.0], [93.0, np.nan], [92.5, 91.5]], index=["best", "one", "constant"])
    found = equivalent(values, "best")
    assert found["p"].isna().all()
    assert not found["equivalent"].any()
    assert list(found["n"]) == [1, 2]


def test_a_table_of_the_best_alone_is_empty() -> None:
    assert equivalent(pd.DataFrame([[93.0, 92.0]], index=["best"]), "best").empty


def test_cheaper_keeps_equivalent_arms_that_cost_less_cheapest_first() -> None:
    equal = pd.DataFrame({"equivalent": [True, True, False, True]}, index=["a", "b", "c", "d"])
    cost = pd.Series({"best": 10.0, "a": 8.0, "b": 5.0, "c": 1.0, "d": 12.0})
    found = cheaper(equal, cost, "best")
    assert list(found.index) == ["b", "a"]
    assert list(found["cost_ratio"]) == [0.5, 0.8]


def test_where_nothing_is_equivalent_nothing_is_as_good_but_cheaper() -> None:
    """Pandas gives a frame without rows the rows of whatever column is added to it."""
    equal = pd.DataFrame({"equivalent": [False, False]}, index=["a", "b"])
    assert cheaper(equal, pd.Series({"best": 10.0, "a": 8.0, "b": 5.0}), "best").empty
    alone = equivalent(pd.DataFrame([[93.0, 92.0]], index=["best"]), "best")
    assert cheaper(alone, pd.Series({"best": 10.0}), "best").empty
