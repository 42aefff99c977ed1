"""What the training loop asks of whoever runs the steps, and what all engines share.

An engine owns the optimizer and the weights' averages, knows how many processes take part, and hides precision and
partitioning. Between two calls of `step` the loop calls `forward` and `backward` once per micro-batch. Losses are
sums over clips divided by the effective batch, so gradients do not depend on how a batch is divided among
micro-batches and processes (up to rounding; batch norms do see the micro-batch).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from workloads.frozen_stages import inserted_blocks
from workloads.recipes import Recipe
from workloads.spec import RunContext

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Engine(Protocol):
    """Runs optimizer steps for one trial.

    Attributes:
        rank: this process among those that train the trial together.
        world: how many they are.
        device: where inputs must be.
    """

    rank: int
    world: int
    device: torch.device

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores `[b, classes]` for training, in the recipe's precision."""

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Accumulate gradients of `loss`, this process's share of the batch's loss.

        Args:
            loss: summed over the clips of the micro-batch, divided by the effective batch over all processes.
            last: the micro-batch completes the effective batch.
        """

    def step(self, lr_factor: float) -> None:
        """One optimizer step at the peak learning rates times `lr_factor`; gradients are zero afterwards."""

    def adopt(self, recipe: Recipe) -> None:
        """Go on with another recipe's learning rates, weight decay, momentum and bound of the gradient's norm."""

    def evaluating(self) -> AbstractContextManager[nn.Module]:
        """The network in evaluation mode, with the weights that are evaluated (averaged, if the recipe says so)."""

    def total(self, values: Tensor) -> Tensor:
        """The sum of `values` over all processes, on all of them."""

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, whole tensors by name; all processes call it together."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""


def learning_rates(recipe: Recipe) -> dict[str, float]:
    """Peak learning rates of `blocks` and `backbone`, scaled to the recipe's batch."""
    scaled = recipe.lr * recipe.lr_scale
    return {"blocks": scaled, "backbone": (recipe.backbone_lr or recipe.lr) * recipe.lr_scale}


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, `blocks` and `backbone`, each with its peak learning rate.

    A group's `peak_lr` stays; its `lr` moves with the schedule. Empty groups are left out.
    """
    in_blocks = {id(parameter) for block in inserted_blocks(model) for parameter in block.parameters()}
    groups = []
    for name, lr in learning_rates(recipe).items():
        mine = [p for p in model.parameters() if p.requires_grad and (id(p) in in_blocks) == (name == "blocks")]
        if mine:
            groups.append({"params": mine, "lr": lr, "peak_lr": lr, "name": name})
    return groups


def make_optimizer(model: nn.Module, recipe: Recipe, *, fused: bool) -> torch.optim.Optimizer:
    """The recipe's optimizer over `parameter_groups`."""
    groups = parameter_groups(model, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            groups, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=fused, foreach=False
        )
    return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=fused, foreach=False)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's `lr` = its peak times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


def set_recipe(optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
    """Every group's peak learning rate, weight decay and momentum = the recipe's; what it remembers stays."""
    rates = learning_rates(recipe)
    for group in optimizer.param_groups:
        group.update(peak_lr=rates[group["name"]], weight_decay=recipe.weight_decay)
        if "momentum" in group:
            group["momentum"] = recipe.momentum


def world_size() -> int:
    """Processes that train a trial together, as torchrun, DeepSpeed and Ray announce them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def open_engine(
    model: nn.Module, network: nn.Module, recipe: Recipe, *, batch: int, micro_batch: int, context: RunContext
) -> Engine:
    """The engine that the recipe names.

    Args:
        model: the whole network.
        network: `model`, or the part of it that is trained.
        recipe: what to do.
        batch: effective batch.
        micro_batch: clips per forward pass and process, at most.
        context: where.

    Raises:
        ValueError: the engine is not installed or cannot run this recipe here.
    """
    device = torch.device(context.device)
    if recipe.engine == "plain":
        from workloads.engine_plain import PlainEngine

        return PlainEngine(model, network, recipe, device)
    from workloads.engine_deepspeed import DeepSpeedEngine

    return DeepSpeedEngine(model, network, recipe, device, batch=batch, micro_batch=micro_batch)


def micro_batches(clips: int, *, bound: int | None, least: int) -> int:
    """In how many parts, as equal as can be, a process takes its clips of a step: within `bound`, none below `least`.

    Where no number does both, a part may exceed the bound, and the failure table decides whether that fitted.
    """
    return max(1, min(-(-clips // min(clips, bound or clips)), clips // least))
