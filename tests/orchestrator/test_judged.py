"""Which settings of a workload say what is judged: every setting of the built-in ones is on one side."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.judged import JUDGED_ON, judged_on
from workloads.registry import WORKLOADS, workload_type

# Settings that change what is trained on or how clips are shown to the network: the same clips are judged.
SHOWN = {
    "root", "class_count", "colour", "sampling", "stride", "augment", "jitter", "crop", "flip", "mean", "std",
    "draw_train", "train_clips", "still_images", "still_seed", "frames_folder", "videos_folder", "width",
}  # fmt: skip


@pytest.mark.parametrize("name", WORKLOADS)
def test_every_setting_of_a_workload_is_on_one_side(name: str) -> None:
    settings = set(workload_type(name).model_fields)
    assert settings <= set(JUDGED_ON) | SHOWN, "say in orchestrator/judged.py or here what the new setting changes"
    assert not set(JUDGED_ON) & SHOWN


@pytest.mark.parametrize(
    ("workload", "judged"),
    [
        ({"name": "digits", "keys": 3, "train_clips": 9, "seed": 1}, {"name": "digits", "keys": 3, "seed": 1}),
        ({"name": "folder", "splits": ["a", "b"], "draw_seed": 4}, {"name": "folder", "splits": "b"}),
        ({"name": "folder", "annotation": ("a", "b")}, {"name": "folder", "annotation": "b"}),
        (
            {"name": "folder", "annotation": "list.csv", "draw_classes": 5, "draw_seed": 0},
            {"name": "folder", "annotation": "list.csv", "draw_classes": 5, "draw_seed": 0},
        ),
        (
            {"name": "mine", "splits": [], "annotation": ["a", "b", "c"]},
            {"name": "mine", "splits": [], "annotation": ["a", "b", "c"]},
        ),
        ({}, {}),
    ],
)
def test_what_is_judged(workload: dict[str, Any], judged: dict[str, Any]) -> None:
    assert judged_on(workload) == judged
