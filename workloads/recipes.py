"""How a model is trained: every value that changes the result, one frozen config, named presets from the papers.

A recipe is complete: the training loop takes nothing else. No torch here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workloads.frozen import Frozen


class Recipe(Frozen):
    """One training recipe.

    Attributes:
        name: where the values come from; changes nothing.
        epochs: passes over the training clips.
        batch: effective batch over all devices, whatever the micro-batch.
        optimizer: with its momentum (SGD) or betas (AdamW) below.
        lr: peak learning rate at `batch`, for newly added blocks.
        backbone_lr: peak learning rate of everything else; None is `lr`.
        weight_decay: decoupled for AdamW, L2 for SGD.
        schedule: `step` multiplies by `gamma` at `milestones`, `cosine` decays to 0, `onecycle` warms up for
            `warmup_epochs` and anneals, `constant` stays.
        warmup_epochs: linear warm-up; fractions allowed.
        freeze: stages (in network order, from the stem) that are not trained; their batch statistics stay fixed.
        divergence: a loss above this, or not finite, ends the trial as diverged.
    """

    name: str = "quick"
    epochs: int = Field(4, ge=1)
    batch: int = Field(32, ge=1)
    optimizer: Literal["sgd", "adamw"] = "adamw"
    lr: float = Field(1e-2, gt=0)
    backbone_lr: float | None = Field(None, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(1e-2, ge=0)
    schedule: Literal["constant", "step", "cosine", "onecycle"] = "onecycle"
    milestones: tuple[int, ...] = ()
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_grad_norm: float | None = Field(None, gt=0)
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    engine: Literal["plain", "deepspeed"] = "plain"
    zero_stage: Literal[0, 1, 2, 3] = 0
    freeze: tuple[str, ...] = ()
    divergence: float = Field(1e4, gt=0)


RECIPES: dict[str, Recipe] = {
    "quick": Recipe(name="quick", backbone_lr=1e-3, freeze=("stem", "res2"), warmup_epochs=0.4),
}
