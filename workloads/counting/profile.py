"""A model's price before it exists: parameters, executed MACs, activation memory, and the published rules' counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from workloads.backbones.insertion import InsertionPoint, Place, insertion_points
from workloads.counting.pieces import RULES, Piece, Rule, block_piece, stage_pieces
from workloads.frozen import Frozen
from workloads.spec import ModelSpec


class StageProfile(Frozen):
    """One stage with the blocks in it.

    Attributes:
        stage: `stem`, `res2` .. `res5`, `head`.
        params: parameters.
        executed_macs: multiply-accumulates of one clip.
        peak_activation_bytes: see `Profile`; the peak while this stage runs.
        rules: published rule -> GFLOPs.
    """

    stage: str
    params: int
    executed_macs: int
    peak_activation_bytes: int
    rules: dict[str, float]


class BlockProfile(Frozen):
    """One inserted block.

    Attributes:
        stage: where, see `InsertionPoint`.
        unit: residual unit, 0-based.
        place: place in the unit.
        block: name.
        params: parameters.
        executed_macs: multiply-accumulates of one clip, by the block's definition.
        product_macs: the part of them in products of two activations (attention).
        peak_activation_bytes: of the block alone, its input included.
        rules: published rule -> GFLOPs.
    """

    stage: str
    unit: int
    place: Place
    block: str
    params: int
    executed_macs: int
    product_macs: int
    peak_activation_bytes: int
    rules: dict[str, float]


class Profile(Frozen):
    """What one model costs for one clip; the stages (blocks included) add up to it.

    Attributes:
        params: parameters, frozen ones included.
        executed_macs: multiply-accumulates that really run, attention products included (1 MAC = 2 FLOPs).
        peak_activation_bytes: the most bytes of tensors alive at one moment of a forward pass of one clip in float32
            without gradients, every block evaluated by definition; the clip is included, weights are not.
        rules: published rule -> GFLOPs as that paper would print them; never comparable with `executed_macs`.
        per_stage: in network order.
        per_block: in network order.
    """

    params: int
    executed_macs: int
    peak_activation_bytes: int
    rules: dict[str, float]
    per_stage: tuple[StageProfile, ...]
    per_block: tuple[BlockProfile, ...]


def profile(spec: ModelSpec, *, rules: Sequence[Rule] = RULES) -> Profile:
    """Count a model without building it: its distinct pieces are counted on the meta device and cached.

    Args:
        spec: backbone, block and insertion.
        rules: the published rules to report.

    Raises:
        ValueError: the model cannot be built (every place where the block does not fit is listed), the counters
            disagree, or an operation is unknown; the message names it.
    """
    stages = stage_pieces(spec.backbone)
    points = insertion_points(spec.backbone, spec.insertion) if spec.block.name != "none" else []
    _check_fit(spec, points)
    inserted: dict[str, list[tuple[InsertionPoint, Piece]]] = defaultdict(list)
    for point in points:
        inserted[point.stage].append((point, block_piece(spec.block, point.shape)))
    per_stage = [_stage(name, piece, inserted[name], rules) for name, piece in stages.items()]
    per_block = [_block(spec, point, piece, rules) for name in stages for point, piece in inserted[name]]
    pieces = [*stages.values(), *(piece for name in stages for _, piece in inserted[name])]
    return Profile(
        params=sum(stage.params for stage in per_stage),
        executed_macs=sum(stage.executed_macs for stage in per_stage),
        peak_activation_bytes=max(stage.peak_activation_bytes for stage in per_stage),
        rules=_giga(pieces, rules),
        per_stage=tuple(per_stage),
        per_block=tuple(per_block),
    )


def _check_fit(spec: ModelSpec, points: Iterable[InsertionPoint]) -> None:
    wrong = [f"{point} ({point.shape}): {problem}" for point in points for problem in spec.block.problems(point.shape)]
    if wrong:
        raise ValueError(f"block {spec.block.name!r} does not fit {spec.backbone.name}: " + "; ".join(wrong))


def _stage(
    name: str, piece: Piece, inserted: Sequence[tuple[InsertionPoint, Piece]], rules: Sequence[Rule]
) -> StageProfile:
    blocks = [block for _, block in inserted]
    peaks = [piece.outside[f"{point.unit}/{point.place}"] + block.peak_bytes for point, block in inserted]
    return StageProfile(
        stage=name,
        params=piece.params + sum(block.params for block in blocks),
        executed_macs=piece.macs + sum(block.macs for block in blocks),
        peak_activation_bytes=max([piece.peak_bytes, *peaks]),
        rules=_giga([piece, *blocks], rules),
    )


def _block(spec: ModelSpec, point: InsertionPoint, piece: Piece, rules: Sequence[Rule]) -> BlockProfile:
    return BlockProfile(
        stage=point.stage,
        unit=point.unit,
        place=point.place,
        block=spec.block.name,
        params=piece.params,
        executed_macs=piece.macs,
        product_macs=piece.product_macs,
        peak_activation_bytes=piece.peak_bytes,
        rules=_giga([piece], rules),
    )


def _giga(pieces: Iterable[Piece], rules: Sequence[Rule]) -> dict[str, float]:
    pieces = list(pieces)
    return {rule: sum(piece.rules[rule] for piece in pieces) / 1e9 for rule in rules}
