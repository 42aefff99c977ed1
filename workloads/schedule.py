"""The learning rate of every step as one pure function: nothing to store, nothing to restore. No torch here."""

from __future__ import annotations

from math import cos, pi

from workloads.recipes import Recipe

# One-cycle as in Smith & Topin 2018 with the constants of torch.optim.lr_scheduler.OneCycleLR.
_ONECYCLE_START = 1 / 25
_ONECYCLE_END = _ONECYCLE_START / 1e4


def lr_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """What the peak learning rates are multiplied by at optimizer step `step` (0-based, counted over all epochs)."""
    warmup = recipe.warmup_epochs * steps_per_epoch
    last = recipe.epochs * steps_per_epoch - 1
    if recipe.schedule == "onecycle":
        return _onecycle(step, max(warmup - 1, 0.0), last)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if recipe.schedule == "step":
        return recipe.gamma ** sum(step >= at * steps_per_epoch for at in recipe.milestones)
    if recipe.schedule == "cosine":
        return _cosine(1.0, 0.0, (step - warmup) / max(last + 1 - warmup, 1))
    return 1.0


def _onecycle(step: int, top: float, last: int) -> float:
    if step < top:
        return _cosine(_ONECYCLE_START, 1.0, step / top)
    return _cosine(1.0, _ONECYCLE_END, (step - top) / max(last - top, 1e-9))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + cos(pi * min(share, 1.0))) / 2
