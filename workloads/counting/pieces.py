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
from workloads.backbones.families import PRESETS
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

    The head is cached apart: networks that differ in their classes share all other stages.

    Raises:
        ValueError: the config cannot be built; `UnknownOperation` and `Disagreement` name what cannot be counted.
    """

    def body() -> dict[str, dict[str, object]]:
        from workloads.counting.three_ways import count_body

        return {stage: asdict(piece) for stage, piece in count_body(config).items()}

    def head() -> dict[str, object]:
        from workloads.counting.three_ways import count_head

        return asdict(count_head(config))

    found = cache.cached(body_key(config), type(config), body)
    return {
        **{stage: Piece(**piece) for stage, piece in found.items()},
        "head": Piece(**cache.cached(head_key(config), type(config), head)),
    }


def body_key(config: BackboneConfig) -> dict[str, object]:
    """What the stages before the head depend on."""
    network = config.to_json() | {"dropout": 0.0}
    # Somebody else's backbone may use its classes anywhere.
    return {"body": network | {"classes": None} if config.name in PRESETS else network}


def head_key(config: BackboneConfig) -> dict[str, object]:
    """What the head depends on."""
    return {"head": config.to_json() | {"dropout": 0.0}}


def stages_are_known(config: BackboneConfig) -> bool:
    """Whether `stage_pieces` has only to read."""
    return all(cache.known(key, type(config)) for key in (body_key(config), head_key(config)))


@lru_cache(maxsize=65536)
def block_piece(config: BlockConfig, shape: Shape) -> Piece:
    """The piece of one block at a map of `shape`, counted by definition.

    Raises:
        ValueError: the config does not fit the shape; `UnknownOperation` and `Disagreement` name what is wrong.
    """
    config = by_definition(config)

    def compute() -> dict[str, object]:
        from workloads.counting.three_ways import count_block

        return asdict(count_block(config, shape))

    return Piece(**cache.cached(_block_key(config, shape), _owner(config), compute))


def block_is_known(config: BlockConfig, shape: Shape) -> bool:
    """Whether `block_piece` has only to read."""
    config = by_definition(config)
    return cache.known(_block_key(config, shape), _owner(config))


def _block_key(config: BlockConfig, shape: Shape) -> dict[str, object]:
    return {"block": config_dict(config), "shape": list(shape)}


def _owner(config: BlockConfig) -> type:
    return type(config) if config.name in BUILTIN else block_type(config.name)


def by_definition(config: BlockConfig) -> BlockConfig:
    """The same block, evaluated as the paper writes it."""
    if any(field.name == "implementation" for field in fields(config)):
        return replace(config, implementation="reference")  # type: ignore[call-arg]
    return config
