"""Stages that are not trained: their parameters and batch statistics stay fixed, and what comes before the first
trainable layer is computed once per clip and kept.

A network is cut in front of the first layer that is trained: the first stage that is not frozen, or a block inserted
in a frozen stage. Layers behind the cut run in every step even if their stage is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from blocks.base import Block
from workloads.backbones.base import Backbone
from workloads.backbones.layers import LongRange
from workloads.fits import freeze_problems


class Cut(NamedTuple):
    """A network in two parts that give the whole when called one after the other.

    Attributes:
        before: fixed layers; maps clips to features.
        after: the rest; maps features to scores.
    """

    before: Before
    after: nn.Module


class Before:
    """The fixed front of a network.

    Args:
        layers: in order.
        borrowed: the holder of a block that ends the last layer; that block belongs to the part behind the cut.
    """

    def __init__(self, layers: Sequence[nn.Module], borrowed: LongRange | None) -> None:
        self.layers, self.borrowed = tuple(layers), borrowed

    def __call__(self, x: Tensor) -> Tensor:
        with _emptied(self.borrowed):
            for layer in self.layers:
                x = layer(x)
        return x


class After(nn.Module):
    """The network behind the cut; knows the whole model so that it moves and switches modes with it.

    Args:
        model: the whole network.
        layers: of `model`, in order.
    """

    def __init__(self, model: nn.Module, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self._layers = tuple(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._layers:
            x = layer(x)
        return x


def freeze_stages(model: Backbone[Any], freeze: Sequence[str]) -> None:
    """Exclude the parameters of these stages from training; blocks inserted in them stay trainable.

    Raises:
        ValueError: `freeze` does not name the first stages of the network.
    """
    modules = model.stage_modules()
    if problems := freeze_problems(list(modules), freeze):
        raise ValueError("; ".join(problems))
    for name in freeze:
        modules[name].requires_grad_(False)
    for block in inserted_blocks(model):
        block.requires_grad_(True)


def train_mode(model: Backbone[Any], freeze: Sequence[str]) -> None:
    """`model.train()`, but frozen stages keep their batch statistics."""
    model.train()
    modules = model.stage_modules()
    for name in freeze:
        modules[name].eval()
    for block in inserted_blocks(model):
        block.train()


def inserted_blocks(model: nn.Module) -> Iterator[Block[Any]]:
    """Every long-range block of a network."""
    return (module for module in model.modules() if isinstance(module, Block))


def cut(model: Backbone[Any], freeze: Sequence[str]) -> Cut:
    """Cut `model` in front of its first trainable layer."""
    layers = [(name in freeze, layer) for name, stage in model.stage_modules().items() for layer in _flat(stage)]
    fixed = 0
    while layers[fixed][0] and not any(inserted_blocks(layers[fixed][1])):
        fixed += 1
    before = [layer for _, layer in layers[:fixed]]
    after = [layer for _, layer in layers[fixed:]]
    frozen, first = layers[fixed]
    ending = _ending_blocks(first) if frozen else None
    if ending is None:
        return Cut(Before(before, None), After(model, after))
    return Cut(Before([*before, first], ending), After(model, [ending["unit"], *after[1:]]))


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    if type(module) is nn.Sequential:
        for part in module:
            yield from _flat(part)
    else:
        yield module


def _ending_blocks(unit: nn.Module) -> LongRange | None:
    """The holder of a unit's only block if that comes last in the unit; a cut may then go between the two."""
    holder = getattr(unit, "long_range", None)
    alone = isinstance(holder, LongRange) and list(holder) == ["unit"]
    return holder if alone and len(list(inserted_blocks(unit))) == 1 else None


@contextmanager
def _emptied(holder: LongRange | None) -> Iterator[None]:
    held = dict(holder.items()) if holder is not None else {}
    if holder is not None:
        holder.clear()
    try:
        yield
    finally:
        if holder is not None:
            holder.update(held)
