"""Count one piece three ways, which have to agree:

    closed form    the block's `closed_form`; for a stage, the formulas of `workloads.counting.ops`
    torch          FlopCounterMode on the meta device, at full size
    fvcore         on real tensors, at full size if the piece is small, else on a smaller map, where the other two
                   are asked again: its graph holds the same operations at every size

Blocks are counted by definition (`implementation="reference"`), so a faster implementation costs the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from blocks.configs import BlockConfig, Shape
from blocks.registry import block_type, closed_form
from workloads.backbones.base import Backbone
from workloads.backbones.config import BackboneConfig
from workloads.counting import executed, ops, tracing
from workloads.counting.executed import Tally
from workloads.counting.pieces import Piece
from workloads.counting.rules import with_products

TRACED_MACS = 100_000_000
"""The third opinion is asked at full size up to this many MACs (a few milliseconds)."""
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


def count_stages(config: BackboneConfig) -> dict[str, Piece]:
    """Stage name -> piece; see `stage_pieces`."""
    with torch.device("meta"):
        network = config.build().eval()
        clip = torch.empty((1, config.channels, config.frames, config.size, config.size))
    if not isinstance(network, Backbone):
        raise ValueError(f"backbone {config.name!r} must build a Backbone, built a {type(network).__name__}")
    chain = network.chain()
    places = {stage: [unit.long_range for unit in network.units(stage)] for stage in chain if stage != "stem"}
    tallies = executed.count(chain, clip, config.name, places)
    pieces = {stage: _piece(nn.Sequential(*chain[stage]), tally) for stage, tally in tallies.items()}
    for stage, tally in tallies.items():
        _ask_about_stage(nn.Sequential(*chain[stage]), tally, f"{config.name} {stage}")
    params = sum(parameter.numel() for parameter in network.parameters())
    assert params == sum(piece.params for piece in pieces.values()), f"{config.name}: stages miss or share parameters"
    return pieces


def _ask_about_stage(module: nn.Module, tally: Tally, where: str) -> None:
    """Compare fvcore's count of a stage, on a smaller map if it is expensive; `module` is left on the CPU."""
    *lead, height, width = shape = tally.given
    while tally.macs * height * width > TRACED_MACS * shape[-2] * shape[-1] and min(height, width) >= 2 * SMALLEST_SIDE:
        height, width = height // 2, width // 2
    small = (*lead, height, width)
    layers = f"{type(module)} {module}"
    if (layers, small) in _agreed:
        return
    expected = tally.macs
    if small != shape:
        expected = executed.count({"": [module]}, torch.empty(small, device="meta"), where)[""].macs
    _agree(module, small, f"{where}, traced at {height} x {width}", expected)
    _agreed.add((layers, small))


def _smaller(config: BlockConfig, shape: Shape) -> Shape:
    """`shape`, or a smaller one that this block fits and that costs at most `TRACED_MACS` if there is one."""
    while closed_form(config, shape).macs > TRACED_MACS:
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
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=tally.macs,
        product_macs=tally.product_macs,
        peak_bytes=tally.peak_bytes,
        rules=with_products(tally.rules, tally.product_macs, tally.product_outputs),
        outside=tally.outside,
    )
