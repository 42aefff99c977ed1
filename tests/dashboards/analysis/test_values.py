from __future__ import annotations

import numpy as np
import pandas as pd

from dashboards.analysis.values import joined, scores
from dashboards.metrics import AVERAGED_ERROR, TOP1, TOP5
from orchestrator.records.schema import State

ARMS = pd.DataFrame({"classes": [10.0, 4.0]}, index=["a", "b"])


def trials(*rows: tuple[str, int, State, float | None]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["arm_id", "seed", "state", "top1_percent"])
    frame.index = pd.Index([f"t{i}" for i in range(len(rows))], name="trial_id")
    return frame.assign(state=frame["state"].astype(str))


def test_each_state_counts_as_documented() -> None:
    found = scores(
        ARMS,
        trials(
            ("a", 0, State.FINISHED, 90.0),
            ("a", 1, State.DIVERGED, None),
            ("a", 2, State.FAILED, None),
            ("a", 3, State.RUNNING, None),
            ("b", 0, State.FINISHED, None),  # its accuracy was NaN
            ("b", 1, State.INFEASIBLE, None),
            ("b", 2, State.FINISHED, 50.0),
        ),
        TOP1,
    )
    np.testing.assert_array_equal(found.values.loc["a"], [90.0, 10.0, np.nan, np.nan])
    np.testing.assert_array_equal(found.values.loc["b"], [25.0, np.nan, 50.0, np.nan])
    assert list(found.at_chance) == [1, 1]
    assert list(found.missing) == [1, 1]
    assert list(found.waiting) == [1, 0]


def test_chance_is_the_level_of_guessing() -> None:
    classes = pd.Series([10.0, 4.0])
    assert list(TOP1.chance(classes)) == [10.0, 25.0]
    assert list(TOP5.chance(classes)) == [50.0, 100.0]
    assert list(AVERAGED_ERROR.chance(classes)) == [70.0, 37.5]


def test_a_metric_nobody_recorded_is_missing_not_chance() -> None:
    found = scores(ARMS, trials(("a", 0, State.FINISHED, 90.0)), TOP5)
    assert found.values.isna().all(axis=None)
    assert list(found.missing) == [1, 0]
    assert list(found.at_chance) == [0, 0]


def test_averaged_error_is_derived_from_both_accuracies() -> None:
    table = trials(("a", 0, State.FINISHED, None)).drop(columns="top1_percent")
    results = pd.DataFrame({"top1_percent": [80.0], "top5_percent": [94.0]}, index=["t0"])
    assert joined(table, results)["averaged_error_percent"].iloc[0] == (20.0 + 6.0) / 2


def test_arms_without_trials_stay_in_the_matrix() -> None:
    found = scores(ARMS, trials(("a", 0, State.FINISHED, 90.0)), TOP1)
    assert list(found.values.index) == ["a", "b"]
    assert found.values.loc["b"].isna().all()
