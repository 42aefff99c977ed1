"""Count one piece three ways, which have to agree:

    closed form    the block's `closed_form`; for a stage, the formulas of `workloads.counting.ops`
    torch          FlopCounterMode on the meta device, at full size
    fvcore         on real tensors; stages and expensive blocks on a smaller map, where the other two are asked
                   again: its graph holds the same operations at every size

Blocks are counted by definition (`implementation="reference"`), so a faster implementation costs the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from blocks.configs import BlockConfig, Shape
from blocks.registry import block_type, closed_form
from workloads.backbones.base import Backbone
from workloads.backbones.config import BackboneConfig
from workloads.counting import executed, ops, tracing
from workloads.counting.executed import Tally
from workloads.counting.pieces import Piece
from workloads.counting.rules import with_products
from workloads.counting.shapes import ShapesOnly

TRACED_MACS, TRACED_ELEMENTS = 100_000_000, 1_000_000
"""The third opinion on a block is asked at full size up to this many MACs (a few milliseconds) and this large a map."""
TRACED_CLIP, TRACED_MAP = 32, 4
"""Height and width at which the third opinion on a stem and on other stages is asked."""
SMALLEST_SIDE = 7
"""Maps are not halved below this side, so that pyramids and small transforms still fit."""

_agreed: set[tuple[str, tuple[int, ...]]] = set()  # layers and map of stages that all counters agree on


def count_block(config: BlockConfig, shape: Shape) -> Piece:
    """The piece of a block whose config asks for evaluation by definition; see `block_piece`."""
    where = f"block {config.name!r} at {shape}"
    with torch.device("meta"):
        block = block_type(config.name)(config, shape).eval()
        tally = executed.count({"": [block]}, torch.empty((1, *shape)), where)[""]
    cost = closed_form(config, shape)
    if cost.macs != tally.macs:
        raise ops.Disagreement(where, {"closed form": cost.macs, "torch FlopCounterMode": tally.macs})
    piece = _piece(block, tally)
    if cost.params != piece.params:
        raise ValueError(f"{where}: closed form says {cost.params:,} parameters, the module has {piece.params:,}")
    small = _smaller(config, shape)
    if small != shape:
        with torch.device("meta"):
            block = block_type(config.name)(config, small).eval()
    _agree(block, (1, *small), f"{where}, traced at {small}", closed_form(config, small).macs)
    return piece


def count_body(config: BackboneConfig) -> dict[str, Piece]:
    """Stage name -> piece of every stage but the head; see `stage_pieces`."""
    network, clip = _on_meta(config)
    body = {stage: modules for stage, modules in network.chain().items() if stage != "head"}
    places = {stage: [unit.long_range for unit in network.units(stage)] for stage in body if stage != "stem"}
    return _pieces(body, executed.count(body, clip, config.name, places), config)


def count_head(config: BackboneConfig) -> Piece:
    """The piece of the head, which is given the map that the config says leaves the last stage."""
    network, clip = _on_meta(config)
    chain = network.chain()
    before = [stage.shape for name, stage in config.stages().items() if name != "head"]
    given = torch.empty((1, *before[-1]), device="meta") if before else clip  # frame features are the head's input
    head = {"head": chain["head"]}
    tally = executed.count(
        head, clip, config.name, {"head": [unit.long_range for unit in network.units("head")]}, given
    )
    listed = sum(_params(nn.Sequential(*modules)) for modules in chain.values())
    assert _params(network) == listed, f"{config.name}: stages miss or share parameters"
    return _pieces(head, tally, config)["head"]


def _on_meta(config: BackboneConfig) -> tuple[Backbone[Any], Tensor]:
    """The network in evaluation mode and a clip for it."""
    with torch.device("meta"), ShapesOnly():
        network = config.build().eval()
        clip = torch.empty((1, config.channels, config.frames, config.size, config.size))
    if not isinstance(network, Backbone):
        raise ValueError(f"backbone {config.name!r} must build a Backbone, built a {type(network).__name__}")
    return network, clip


def _pieces(
    chain: Mapping[str, Sequence[nn.Module]], tallies: Mapping[str, Tally], config: BackboneConfig
) -> dict[str, Piece]:
    pieces = {stage: _piece(nn.Sequential(*chain[stage]), tally) for stage, tally in tallies.items()}
    for stage, tally in tallies.items():
        _ask_about_stage(nn.Sequential(*chain[stage]), tally, f"{config.name} {stage}")
    return pieces


def _ask_about_stage(module: nn.Module, tally: Tally, where: str) -> None:
    """Compare fvcore's count of a stage on a small map, the same for every size; `module` is left on the CPU."""
    *lead, height, width = tally.given
    side = TRACED_CLIP if "stem" in where.rpartition(" ")[2] else TRACED_MAP
    small = (*lead, min(height, side), min(width, side))
    layers = f"{type(module)} {module}"
    if (layers, small) in _agreed:
        return
    expected = tally.macs
    if small != tally.given:
        expected = executed.count({"": [module]}, torch.empty(small, device="meta"), where)[""].macs
    _agree(module, small, f"{where}, traced at {small[-2]} x {small[-1]}", expected)
    _agreed.add((layers, small))


def _smaller(config: BlockConfig, shape: Shape) -> Shape:
    """`shape`, or a smaller one that this block fits and that keeps to both limits if there is one."""
    while closed_form(config, shape).macs > TRACED_MACS or prod(shape) > TRACED_ELEMENTS:
        c, t, h, w = shape
        halved = [Shape(c, t, h // 2, w // 2)] if min(h, w) >= 2 * SMALLEST_SIDE else []
        halved += [Shape(c, t // 2, h, w)] if t >= 2 else []
        fitting = [candidate for candidate in halved if not config.problems(candidate)]
        if not fitting:
            break
        shape = fitting[0]
    return shape


def _agree(module: nn.Module, shape: Sequence[int], where: str, expected: int) -> None:
    traced = tracing.traced_macs(tracing.materialised(module), torch.zeros(tuple(shape)), where)
    if traced != expected:
        raise ops.Disagreement(where, {"torch FlopCounterMode": expected, "fvcore": traced})


def _piece(module: nn.Module, tally: Tally) -> Piece:
    return Piece(
        params=_params(module),
        macs=tally.macs,
        product_macs=tally.product_macs,
        peak_bytes=tally.peak_bytes,
        rules=with_products(tally.rules, tally.product_macs, tally.product_outputs),
        outside=tally.outside,
    )


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
