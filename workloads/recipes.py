"""How a model is trained: every value that changes the result, one frozen config, named presets from the papers.

A recipe is complete: the training loop takes nothing else. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from workloads.frozen import Frozen


class Change(Frozen):
    """Other values of a recipe from an epoch on: those with which a network can go on training. The rest stays.

    Attributes:
        epoch: 0-based; the first that is trained with them.
    """

    epoch: int = Field(ge=1)
    lr: float | None = Field(None, gt=0)
    backbone_lr: float | None = Field(None, gt=0)
    momentum: float | None = Field(None, ge=0, lt=1)
    weight_decay: float | None = Field(None, ge=0)
    dropout: float | None = Field(None, ge=0, lt=1)
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    clip_grad_norm: float | None = Field(None, gt=0)

    @model_serializer(mode="wrap")
    def _given_alone(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        return {key: value for key, value in values.items() if value is not None}

    @property
    def values(self) -> dict[str, float]:
        """Field of the recipe -> its new value."""
        return {key: value for key, value in self if key != "epoch" and value is not None}


CHANGEABLE = tuple(name for name in Change.model_fields if name != "epoch")


class Recipe(Frozen):
    """One training recipe.

    Attributes:
        name: the preset it started from, `custom` for none; changes nothing.
        epochs: passes over the training clips.
        batch: effective batch over all devices, whatever the micro-batch.
        lr_batch: the batch that the learning rates below belong to. Where `batch` differs they are scaled linearly
            by `batch / lr_batch`, and the result's notes say so. None: never scaled.
        optimizer: SGD with `momentum`, or AdamW with betas (0.9, 0.999).
        lr: peak learning rate of the inserted blocks.
        backbone_lr: peak learning rate of everything else; None is `lr`.
        weight_decay: decoupled for AdamW, L2 for SGD; of every trained parameter, norms and biases included (no paper
            prints an exception).
        schedule: `step` multiplies by `gamma` at `milestones` (epochs), `cosine` decays to 0, `onecycle` warms up by
            a cosine from 1/25 and decays by a cosine to 1/250,000, `constant` stays.
        warmup_epochs: linear warm-up (`onecycle`: its rising part); fractions allowed.
        dropout: before the classifier; takes the place of the backbone's own when above 0.
        label_smoothing: mass spread evenly over all classes.
        clip_grad_norm: bound of the gradient's norm over all parameters.
        ema: decay per step of the averaged weights and batch statistics that are evaluated; None evaluates the
            network itself.
        precision: `bf16` and `fp16` are automatic mixed precision with float32 weights.
        engine: who runs the steps.
        zero_stage: what DeepSpeed partitions: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too.
        freeze: stages (in network order, from the stem) that are not trained; their batch statistics stay fixed.
            Blocks inserted in them are trained.
        divergence: a training loss above this, or not finite, ends the trial as diverged.
        changes: other values from some epochs on, in their order; `schedule` goes on over all epochs.
    """

    name: str = "custom"
    epochs: int = Field(4, ge=1)
    batch: int = Field(32, ge=1)
    lr_batch: int | None = Field(None, ge=1)
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
    changes: tuple[Change, ...] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes without changes keep the ids they had before there were any.
        values: dict[str, Any] = write(self)
        return {key: value for key, value in values.items() if key != "changes" or value}

    @model_validator(mode="after")
    def _values_go_together(self) -> Self:
        wrong = self._schedule_problems() + self._engine_problems() + self._change_problems()
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def lr_scale(self) -> float:
        """What both learning rates are multiplied by because `batch` is not the one they belong to."""
        return self.batch / self.lr_batch if self.lr_batch else 1.0

    def at(self, epoch: int) -> Recipe:
        """The recipe by which `epoch` (0-based) is trained, without changes."""
        values: dict[str, Any] = {"changes": ()}
        for change in self.changes:
            values |= change.values if change.epoch <= epoch else {}
        return self.model_copy(update=values)

    def until(self, epoch: int, step: int = 0) -> Recipe:
        """The recipe with those changes alone that were used in the first `epoch` epochs and `step` steps more."""
        used = tuple(change for change in self.changes if (change.epoch, 0) < (epoch, step))
        return self.model_copy(update={"changes": used})

    def _change_problems(self) -> list[str]:
        epochs = [change.epoch for change in self.changes]
        wrong = []
        if epochs != sorted(set(epochs)) or any(epoch >= self.epochs for epoch in epochs):
            wrong.append(f"changes must be at rising epochs below epochs={self.epochs}, given {epochs}")
        if any(not change.values for change in self.changes):
            wrong.append(f"a change changes something, one of: {', '.join(CHANGEABLE)}")
        if self.optimizer != "sgd" and any(change.momentum is not None for change in self.changes):
            wrong.append(f"momentum is for optimizer 'sgd', given changes of it under {self.optimizer!r}")
        if self.engine != "plain" and any(change.clip_grad_norm is not None for change in self.changes):
            wrong.append(f"changes of clip_grad_norm need engine 'plain', given {self.engine!r}")
        return wrong

    def _schedule_problems(self) -> list[str]:
        wrong = []
        if self.schedule == "step" and not self.milestones:
            wrong.append("schedule 'step' needs milestones: give the epochs at which the learning rate drops")
        if self.schedule != "step" and self.milestones:
            wrong.append(f"milestones {list(self.milestones)} are for schedule 'step', given {self.schedule!r}")
        if list(self.milestones) != sorted(set(self.milestones)) or any(at < 1 for at in self.milestones):
            wrong.append(f"milestones must be positive and rising, given {list(self.milestones)}")
        if self.warmup_epochs >= self.epochs:
            wrong.append(
                f"warmup_epochs={self.warmup_epochs:g} must be less than epochs={self.epochs}: "
                f"give recipe.warmup_epochs too, 0 for none or such as {self.epochs / 10:g}"
            )
        return wrong

    def _engine_problems(self) -> list[str]:
        if self.engine == "plain" and self.zero_stage:
            return [f"zero_stage={self.zero_stage} needs engine 'deepspeed', given 'plain'"]
        if self.zero_stage == 3 and self.ema is not None:
            return ["ema needs whole weights on every device: use zero_stage <= 2"]
        if self.engine == "deepspeed" and self.precision == "fp16":
            return ["engine 'deepspeed' has no fp16 with float32 weights here: use precision 'bf16', or engine 'plain'"]
        return []


# SGD with momentum 0.9 and weight decay 1e-4 is what every paper prints or inherits from non-local networks.
_SGD = Recipe(optimizer="sgd", momentum=0.9, weight_decay=1e-4, schedule="constant")


def _preset(base: Recipe, **values: Any) -> Recipe:
    return Recipe.model_validate({**base.model_dump(), **values})


# RNL sec. IV: "we train our models for 50 epochs, starting with a learning rate of 0.01 with a 10 times reduction at
# every 20 epochs"; batch 64, dropout 0.5. Weight decay is not printed: non-local networks' 1e-4.
_RNL = _preset(
    _SGD, name="rnl", epochs=50, batch=64, lr_batch=64, lr=0.01, schedule="step", milestones=(20, 40), dropout=0.5
)
# HG-NL sec. 3.1: 40 epochs, 0.001, divided by 10 at 20 and 30. Batch 256, dropout 0.8 and weight decay 5e-4 are not
# printed: they are those of TSN, whose set-up the paper follows.
_HGNL_TSN = _preset(
    _SGD,
    name="hgnl_tsn",
    epochs=40,
    batch=256,
    lr_batch=256,
    lr=0.001,
    weight_decay=5e-4,
    schedule="step",
    milestones=(20, 30),
    dropout=0.8,
)
# BAT sec. 4: 90 epochs, 0.1, divided by 10 after 30, 60 and 80, batch 256, SGD. Momentum and decay are not printed.
_BAT_IMAGENET = _preset(
    _SGD,
    name="bat_imagenet",
    epochs=90,
    batch=256,
    lr_batch=256,
    lr=0.1,
    schedule="step",
    milestones=(30, 60, 80),
)
# BAT sec. 4: 100 epochs, 0.01, divided by 10 after 40 and 80; 64 clips, dropout 0.5, weight decay 1e-4.
_BAT_KINETICS = _preset(
    _SGD,
    name="bat_kinetics",
    epochs=100,
    batch=64,
    lr_batch=64,
    lr=0.01,
    schedule="step",
    milestones=(40, 80),
    dropout=0.5,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(),
        # Seconds on a laptop, for the embedded workload: found by experiment, not taken from a paper.
        Recipe(name="quick", backbone_lr=3e-3, freeze=("stem", "res2"), warmup_epochs=0.4),
        _RNL,
        _preset(_RNL, name="rnl_100", epochs=100, milestones=(20, 40, 60, 80)),
        _HGNL_TSN,
        # HG-NL sec. 3.2: fine-tuned from the TSN weights for 8 epochs, divided by 10 at 4 and 6.
        _preset(_HGNL_TSN, name="hgnl_finetune", epochs=8, milestones=(4, 6)),
        # PNL sec. 4.1.2 prints 0.01, momentum 0.9, weight decay 1e-4 and (sec. 4.3) batch 64, but neither epochs nor
        # schedule: 50 epochs of cosine, as BAT has it for the same data set, is our choice.
        _preset(_SGD, name="pnl", epochs=50, batch=64, lr_batch=64, lr=0.01, schedule="cosine"),
        _BAT_IMAGENET,
        _BAT_KINETICS,
        # BAT sec. 4, Mini-Kinetics: 50 epochs, linear warm-up in the first 2, cosine decay.
        _preset(_BAT_KINETICS, name="bat_mini", epochs=50, schedule="cosine", milestones=(), warmup_epochs=2.0),
    )
}


def parse_recipe(given: Any) -> Recipe:
    """A recipe from `{"name": ..., **fields}` or a bare name; the named preset fills what is not given.

    Raises:
        ValueError: unknown preset or field, wrong type, or values that do not go together.
    """
    if isinstance(given, Recipe):
        return given
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping):
        raise ValueError(f"a recipe is a name or a mapping, given {given!r}; known: {', '.join(RECIPES)}")
    name = fields.get("name", "custom")
    if not isinstance(name, str) or name not in RECIPES:
        close = get_close_matches(str(name), RECIPES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; use 'custom' and give your own values"
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}{hint}")
    return Recipe.model_validate({**RECIPES[name].model_dump(), **_consistent(RECIPES[name], fields)})


def _consistent(preset: Recipe, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Given another schedule, a step preset's milestones have no meaning and are dropped."""
    other = fields.get("schedule", preset.schedule) != preset.schedule
    return {"milestones": (), **fields} if other else dict(fields)
