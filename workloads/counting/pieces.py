"""The pieces a network is priced from: every stage of a backbone, and every block at the map it is inserted at.

Pieces are cached in the process and on disk, so that only distinct ones that nobody counted before cost anything.
Torch is imported only to count one: `workloads.counting.three_ways`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Literal

from blocks.configs import BlockConfig, Shape
from blocks.registry import BUILTIN, block_type, config_dict
from workloads.backbones.config import BackboneConfig
from workloads.counting import cache

Rule = Literal["thop-2001", "thop-1909", "thop-1909+matmul", "thop-2004", "hgnl"]
RULES: tuple[Rule, ...] = ("thop-2001", "thop-1909", "thop-1909+matmul", "thop-2004", "hgnl")


@dataclass(frozen=True)
class Piece:
    """What one stage (without blocks) or one block costs for one clip.

    Attributes:
        params: parameters, frozen ones included.
        macs: executed multiply-accumulates.
        product_macs: the part of them in products of two activations.
        peak_bytes: the most bytes of activations alive at one moment, input (and for a stage the clip) included.
        rules: published rule -> operations.
        outside: for a stage, `unit/place` -> bytes alive there besides the map that a block would be given.
    """

    params: int
    macs: int
    product_macs: int
    peak_bytes: int
    rules: dict[str, int]
    outside: dict[str, int]


@lru_cache(maxsize=1024)
def stage_pieces(config: BackboneConfig) -> dict[str, Piece]:
    """Stage name -> its piece, `stem` to `head`, for one clip as `config` describes it.

    Raises:
        ValueError: the config cannot be built; `UnknownOperation` and `Disagreement` name what cannot be counted.
    """

    def compute() -> dict[str, dict[str, object]]:
        from workloads.counting.three_ways import count_stages

        return {stage: asdict(piece) for stage, piece in count_stages(config).items()}

    found = cache.cached({"backbone": config.to_json() | {"dropout": 0.0}}, type(config), compute)
    return {stage: Piece(**piece) for stage, piece in found.items()}


@lru_cache(maxsize=65536)
def block_piece(config: BlockConfig, shape: Shape) -> Piece:
    """The piece of one block at a map of `shape`, counted by definition.

    Raises:
        ValueError: the config does not fit the shape; `UnknownOperation` and `Disagreement` name what is wrong.
    """
    config = by_definition(config)
    owner = type(config) if config.name in BUILTIN else block_type(config.name)

    def compute() -> dict[str, object]:
        from workloads.counting.three_ways import count_block

        return asdict(count_block(config, shape))

    return Piece(**cache.cached({"block": config_dict(config), "shape": list(shape)}, owner, compute))


def by_definition(config: BlockConfig) -> BlockConfig:
    """The same block, evaluated as the paper writes it."""
    if any(field.name == "implementation" for field in fields(config)):
        return replace(config, implementation="reference")  # type: ignore[call-arg]
    return config
