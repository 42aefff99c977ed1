"""A network from its spec: the backbone with blocks at the places its insertion names."""

from __future__ import annotations

from typing import Any, cast

from blocks import BlockConfig, build
from workloads.backbones.base import Backbone
from workloads.backbones.insertion import Insertion, insertion_points
from workloads.spec import ModelSpec


def build_model(spec: ModelSpec) -> Backbone[Any]:
    """The network of `spec`, randomly initialised from torch's global generator.

    The backbone draws its weights before any block does: with the same seed, models that differ only in their blocks
    start from the same backbone.

    Raises:
        ValueError: the backbone cannot be built, the insertion names places that do not exist, or the block does not
            fit there; all problems of one kind in one message.
    """
    model = cast("Backbone[Any]", spec.backbone.build())
    insert_blocks(model, spec.block, spec.insertion)
    return model


def insert_blocks(model: Backbone[Any], block: BlockConfig, insertion: Insertion) -> None:
    """Put one new block of this kind at every place that `insertion` names; all or none.

    No key of the backbone changes; the new keys start with `<unit>.long_range.<place>.`. The block `none` leaves the
    network as it is.

    Raises:
        ValueError: as `build_model`, or a place is taken already.
    """
    points = insertion_points(model.config, insertion)
    if block.name == "none":
        return
    holders = [model.units(point.stage)[point.unit].long_range for point in points]
    wrong = [f"{point}: {problem}" for point in points for problem in block.problems(point.shape)]
    taken = zip(points, holders, strict=True)
    wrong += [f"{point} holds a block already" for point, holder in taken if point.place in holder]
    if wrong:
        raise ValueError(f"block {block.name!r} cannot be inserted in {model.config.name}: " + "; ".join(wrong))
    for point, holder in zip(points, holders, strict=True):
        holder[point.place] = build(block, point.shape)
