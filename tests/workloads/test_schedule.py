"""The learning rate as a function of the step, against hand numbers and torch's own schedulers."""

import pytest
import torch

from workloads.recipes import Recipe
from workloads.schedule import lr_factor


def test_step_schedule_drops_at_each_milestone():
    recipe = Recipe(epochs=50, schedule="step", milestones=(20, 40))
    factors = [lr_factor(recipe, epoch * 10, 10) for epoch in (0, 19, 20, 39, 40, 49)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert [lr_factor(recipe, step, 10) for step in (199, 200)] == pytest.approx([1, 0.1])


def test_warm_up_rises_linearly_and_ends_at_the_peak():
    recipe = Recipe(epochs=4, schedule="constant", warmup_epochs=1.0)
    assert [lr_factor(recipe, step, 4) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_cosine_after_warm_up_by_hand():
    recipe = Recipe(epochs=3, schedule="cosine", warmup_epochs=1.0)
    factors = [lr_factor(recipe, step, 2) for step in range(2, 6)]
    assert factors == pytest.approx([1.0, (1 + 2**-0.5) / 2, 0.5, (1 - 2**-0.5) / 2])


def test_onecycle_is_torchs():
    recipe = Recipe(epochs=4, schedule="onecycle", warmup_epochs=0.4)
    steps = 25
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=4 * steps, pct_start=0.1)
    for step in range(4 * steps):
        assert lr_factor(recipe, step, steps) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()
