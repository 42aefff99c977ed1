from __future__ import annotations

import pandas as pd
import pytest

from dashboards.analysis.failures import accounting, causes, unfinished
from dashboards.analysis.learning import curves

TRIALS = pd.DataFrame(
    {"arm_id": ["a", "a", "b"], "seed": [0, 1, 0], "state": ["finished", "failed", "running"]},
    index=["t0", "t1", "t2"],
)
ATTEMPTS = pd.DataFrame(
    [
        ("t0", 1, 0.0, 10.0, "lost", "lost", "worker died"),
        ("t0", 2, 10.0, 30.0, "finished", None, None),
        ("t1", 1, 0.0, 5.0, "failed", "bug", "ValueError"),
        ("t2", 1, 0.0, None, None, None, None),
    ],
    columns=["trial_id", "number", "started_at", "ended_at", "outcome", "cause", "message"],
)


def test_seconds_are_split_into_useful_and_lost() -> None:
    table = accounting(ATTEMPTS, TRIALS)
    assert table.loc["a"].to_dict() == {"useful_seconds": 20.0, "lost_seconds": 15.0, "attempts": 3, "retries": 1}
    assert table.loc["b"].to_dict() == {"useful_seconds": 0.0, "lost_seconds": 0.0, "attempts": 1, "retries": 0}


def test_causes_are_counted_with_an_example() -> None:
    table = causes(ATTEMPTS, TRIALS).set_index("cause")
    assert table.loc["lost", ["attempts", "trials", "seconds", "example"]].tolist() == [1, 1, 10.0, "worker died"]
    assert set(table.index) == {"lost", "bug"}


def test_unfinished_trials_carry_their_last_message() -> None:
    table = unfinished(ATTEMPTS, TRIALS)
    assert list(table.index) == ["t1"]
    assert table.loc["t1", ["state", "cause", "message"]].tolist() == ["failed", "bug", "ValueError"]


def test_nothing_attempted_costs_nothing() -> None:
    table = accounting(ATTEMPTS.iloc[:0], TRIALS)
    assert (table == 0).all(axis=None)
    assert causes(ATTEMPTS.iloc[:0], TRIALS).empty


def test_curves_have_a_band_where_there_are_two_seeds() -> None:
    epochs = pd.DataFrame({"arm_id": "a", "epoch": [0, 1], "n": [2, 1], "mean": [10.0, 20.0], "sd": [1.0, None]})
    found = curves(epochs.astype({"sd": float}))
    assert found["high"][0] - 10.0 == pytest.approx(12.7062 / 2**0.5, rel=1e-5)  # t with one degree of freedom
    assert found[["low", "high"]].loc[1].isna().all()
