from __future__ import annotations

import numpy as np
import pytest

import dashboards
from dashboards.analysis.predictions import frame, guesses
from dashboards.errors import UnknownChoice


def test_best_guesses_come_first_and_equal_ones_by_class() -> None:
    scores = np.array([[0.1, 0.2, 0.6, 0.1], [0.3, 0.3, 0.1, 0.3]], dtype=np.float32)
    found = guesses(scores, np.array([2, 0], dtype=np.int32), [1, 0])
    assert [(guess.clip, guess.rank, guess.number, guess.correct) for guess in found] == [
        (1, 1, 0, True),
        (1, 2, 1, False),
        (1, 3, 3, False),
        (0, 1, 2, True),
        (0, 2, 1, False),
        (0, 3, 0, False),
    ]
    columns = ["arm_id", "seed", "clip", "label", "rank", "class", "score", "correct", "label_name", "class_name"]
    assert list(frame([]).columns) == columns


def test_stored_predictions_of_chosen_arms(quickstart: dashboards.Sweep) -> None:
    found = quickstart.top_predictions([7, 3], ["none"])
    assert set(found["arm_id"]) == {quickstart.arm_id("none")}
    assert set(found["clip"]) == {"clip0003", "clip0007"}
    group = quickstart.clip_results[0]
    trials = quickstart.trials[quickstart.trials["arm_id"] == found["arm_id"][0]]
    trial = trials.index[trials["seed"] == found["seed"][0]][0]
    first = found[(found["rank"] == 1) & (found["seed"] == found["seed"][0])].set_index("clip")["correct"]
    assert bool(first["clip0007"]) == bool(group.correct[str(trial)][7])
    with pytest.raises(UnknownChoice, match=r"unknown clip '300'.*0\.\.299"):
        quickstart.top_predictions([300])
