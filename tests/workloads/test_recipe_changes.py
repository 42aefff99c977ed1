"""Recipes that change on their way: what may, from when on, and that trials share what came before they differ."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_trial import SPEC

from orchestrator.trial import identity
from workloads import checkpoints
from workloads.lineage import hand_on, trained_epochs
from workloads.progress import CheckpointWritten, EpochDone, Finished, Progress
from workloads.recipes import Recipe, parse_recipe
from workloads.spec import RunContext, TrialSpec

EPOCHS = 4
RECIPE = {
    "name": "custom",
    "epochs": EPOCHS,
    "batch": 32,
    "optimizer": "sgd",
    "lr": 0.05,
    "schedule": "cosine",
    "ema": 0.9,
}
CHANGES = [{"epoch": 2, "lr": 0.01, "momentum": 0.5, "weight_decay": 0.1, "dropout": 0.3, "label_smoothing": 0.1}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"changes": [{"epoch": 4, "lr": 0.1}]}, "changes must be at rising epochs below epochs=4, given [4]"),
        ({"changes": [{"epoch": 2, "lr": 0.1}, {"epoch": 2, "lr": 0.2}]}, "rising epochs below epochs=4, given [2, 2]"),
        ({"changes": [{"epoch": 1}]}, "a change changes something, one of: lr, backbone_lr, momentum"),
        ({"changes": [{"epoch": 1, "batch": 8}]}, "changes.0.batch"),
        ({"changes": [{"epoch": 1, "momentum": 0.1}], "optimizer": "adamw"}, "momentum is for optimizer 'sgd'"),
        ({"changes": [{"epoch": 1, "clip_grad_norm": 1.0}], "engine": "deepspeed"}, "need engine 'plain'"),
    ],
)
def test_a_change_that_cannot_be_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_recipe({**RECIPE, **given})


def test_a_recipe_says_by_what_an_epoch_is_trained() -> None:
    recipe = Recipe(epochs=6, changes=({"epoch": 2, "lr": 0.1}, {"epoch": 4, "lr": 0.2, "dropout": 0.5}))  # type: ignore[arg-type]
    assert [(recipe.at(epoch).lr, recipe.at(epoch).dropout) for epoch in range(6)] == [
        (0.01, 0.0),
        (0.01, 0.0),
        (0.1, 0.0),
        (0.1, 0.0),
        (0.2, 0.5),
        (0.2, 0.5),
    ]
    assert [len(recipe.until(epoch).changes) for epoch in range(6)] == [0, 0, 0, 1, 1, 2]
    assert len(recipe.until(2, 1).changes) == 1


def test_recipes_without_changes_are_what_they_were() -> None:
    assert "changes" not in Recipe().to_json()
    content = TrialSpec.model_validate({**SPEC, "recipe": RECIPE}).to_json()
    assert identity(content) == identity({**content, "recipe": {**content["recipe"]}})
    changed = TrialSpec.model_validate({**SPEC, "recipe": {**RECIPE, "changes": CHANGES}}).to_json()
    assert changed["recipe"]["changes"] == CHANGES
    assert identity(changed) != identity(content)


def run(folder: Path, cache: Path, *, pause_after: int | None = None, **recipe: Any) -> list[Progress]:
    spec = TrialSpec.model_validate({**SPEC, "recipe": {**RECIPE, **recipe}})
    return list(spec.workload.open().run(spec, RunContext(cache, folder, pause_after=pause_after)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.newest(folder)
    assert found is not None
    return found.tensors


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def metrics(events: list[Progress]) -> dict[int, Any]:
    return {event.epoch: event.metrics for event in events if isinstance(event, EpochDone)}


@pytest.mark.slow
def test_who_goes_on_from_a_handed_checkpoint_is_who_trained_it_all(tmp_path: Path) -> None:
    cache, parent, heir, alone = tmp_path / "cache", tmp_path / "parent", tmp_path / "heir", tmp_path / "alone"
    begun = run(parent, cache, pause_after=2)
    assert isinstance(begun[-1], CheckpointWritten)
    assert not any(isinstance(event, Finished) for event in begun)
    assert run(parent, cache, pause_after=2) == [], "it is there already"
    assert not hand_on(parent, heir, 3)
    assert hand_on(parent, heir, 2)
    assert_same(weights(heir), weights(parent))
    unchanged = run(parent, cache)
    went_on = run(heir, cache, changes=CHANGES)
    whole = run(alone, cache, changes=CHANGES)
    assert_same(weights(heir), weights(alone))
    expected = metrics(whole)
    assert metrics(went_on) == {epoch: expected[epoch] for epoch in (2, 3)}
    assert metrics(begun) == {epoch: expected[epoch] for epoch in (0, 1)}
    assert metrics(unchanged)[3] != expected[3], "the change makes a difference"
    assert isinstance(whole[-1], Finished)
    assert "from epoch 2 (0-based) on: lr 0.01, momentum 0.5" in " ".join(whole[-1].notes)


@pytest.mark.slow
def test_a_checkpoint_that_was_trained_otherwise_is_refused(tmp_path: Path) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "trial"
    run(folder, cache, pause_after=3)
    assert trained_epochs(next(iter(sorted(folder.glob("step-*"))))) == 2
    with pytest.raises(ValueError, match="checkpoints of another trial"):
        run(folder, cache, changes=CHANGES)
