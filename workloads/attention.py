"""Where the blocks of a trained network look, and what it predicts: clips and maps as plain arrays.

The arrays hold no torch, so dashboards draw them; `save` keeps them as one small file without pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from blocks.base import Block, Position
from workloads import checkpoints
from workloads.backbones.base import Backbone
from workloads.backbones.insertion import insertion_points
from workloads.backbones.model import build_model
from workloads.cache import write_aside
from workloads.checkpoints import Checkpoint
from workloads.clips import Batch, ClipSource
from workloads.data.folder_config import FolderConfig
from workloads.engine_plain import under
from workloads.registry import WorkloadConfig
from workloads.reproducible import reproducible
from workloads.spec import ModelSpec, RunContext, TrialSpec

FORMAT = 1
MOST_PREDICTIONS = 3


@runtime_checkable
class ShowsClips(Protocol):
    """A workload whose clips can be looked at one by one."""

    def source(self, spec: TrialSpec, context: RunContext) -> ClipSource:
        """The clips that a trial of `spec` sees."""


@dataclass(frozen=True)
class Attention:
    """What one network does with n clips.

    Attributes:
        clips: `n` names.
        labels: `[n]` true classes.
        classes: names of all classes.
        frames: `[n, T, H, W, channels]`, the network's input as bytes.
        positions: reference points `(frame, row, column)` of the input clip.
        maps: place of a block (`res3.0`) -> `[n, positions, groups, T', H', W']`, how strongly each position of the
            map there feeds the output at the reference point; blocks without a spatial attention map are left out.
        top_classes: `[n, k]` most probable classes, k at most `MOST_PREDICTIONS`, best first.
        top_scores: `[n, k]` their probabilities.
    """

    clips: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    frames: NDArray[np.uint8]
    positions: tuple[Position, ...]
    maps: Mapping[str, NDArray[np.float32]]
    top_classes: NDArray[np.int64]
    top_scores: NDArray[np.float32]


def trained_model(spec: TrialSpec, folder: Path) -> Backbone[Any] | None:
    """The network that a trial of `spec` left in its checkpoint folder; None if it is not there to the end.

    Raises:
        ValueError: the checkpoint belongs to another network.
    """
    found = checkpoints.newest(folder)
    if found is None or found.values.get("epoch", 0) < spec.recipe.epochs:
        return None
    return load_model(spec, found)


def load_model(spec: ModelSpec, found: Checkpoint) -> Backbone[Any]:
    """The network of a checkpoint as it is evaluated: with averaged weights where the recipe averages them.

    Raises:
        ValueError: the checkpoint belongs to another network.
    """
    model = build_model(spec)
    try:
        model.load_state_dict({**under("model", found.tensors), **under("ema", found.tensors)})
    except RuntimeError as error:
        raise ValueError(f"not a checkpoint of {spec.backbone.name} with {spec.block.name}: {error}") from error
    return model.eval()


def train_again(spec: TrialSpec, context: RunContext) -> Backbone[Any]:
    """Train a trial to its end, from a checkpoint if `context` has one; the same seed gives the same network.

    Raises:
        Diverged, BadData: as the trial itself.
    """
    workload = spec.workload.open()
    workload.prepare(context)
    for _ in workload.run(spec, context):
        pass
    model = trained_model(spec, context.checkpoint_dir)
    if model is None:
        raise ValueError(f"the workload {spec.workload.name!r} writes no checkpoints: give a trained model instead")
    return model


def look(
    spec: TrialSpec,
    weights: nn.Module | Path,
    context: RunContext,
    *,
    clips: Sequence[int],
    positions: Sequence[Position],
) -> Attention:
    """Show validation clips to a trained network, one centre view each.

    Args:
        spec: the trial.
        weights: the trained network, or the file of one of its checkpoints.
        context: cache, device, threads.
        clips: indices into the workload's validation clips.
        positions: reference points `(frame, row, column)` of the input clip, 0-based; each block is asked about the
            cell of its map that holds the point.

    Raises:
        ValueError: a clip or position does not exist, or the workload cannot show clips.
    """
    workload = spec.workload.open()
    if not isinstance(workload, ShowsClips):
        raise ValueError(f"workload {spec.workload.name!r} has no method `source`, so its clips cannot be shown")
    source, device = workload.source(spec, context), torch.device(context.device)
    _check(spec, source, clips, positions)
    model = load_model(spec, checkpoints.load(weights)) if isinstance(weights, Path) else weights
    with reproducible(device, context.threads), torch.no_grad():
        batch = _read(spec, source, clips)
        inputs = batch.inputs[:, 0].to(device)
        model = model.to(device).eval()
        blocks = _blocks(spec, model)
        with _inputs_of(blocks) as seen:
            scores = model(inputs).softmax(dim=-1)
        maps = {where: _maps(blocks[where], x, inputs.shape, positions) for where, x in seen.items()}
    top = scores.cpu().topk(min(MOST_PREDICTIONS, scores.shape[1]))
    return Attention(
        clips=tuple(source.names[at] for at in batch.indices),
        labels=batch.labels.numpy(),
        classes=_class_names(source, scores.shape[1]),
        frames=_as_bytes(batch.inputs[:, 0].cpu(), spec.workload),
        positions=tuple(positions),
        maps={where: each for where, each in maps.items() if each is not None},
        top_classes=top.indices.numpy(),
        top_scores=top.values.numpy(),
    )


def save(found: Attention, path: Path) -> Path:
    """Write the arrays as a compressed .npz; no object in it needs pickle.

    `about` is JSON: format, clips, classes, positions, places. Map k is `map_k`, in the order of `places`.

    Raises:
        OSError: it cannot be written; an older file stays.
    """
    about = {"format": FORMAT, "clips": found.clips, "classes": found.classes, "positions": found.positions}
    arrays = {
        "about": np.array(json.dumps({**about, "places": list(found.maps)})),
        "labels": found.labels,
        "frames": found.frames,
        "top_classes": found.top_classes,
        "top_scores": found.top_scores,
        **{f"map_{number}": each for number, each in enumerate(found.maps.values())},
    }

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, write)
    return path


def _check(spec: TrialSpec, source: ClipSource, clips: Sequence[int], positions: Sequence[Position]) -> None:
    wrong = [at for at in clips if not 0 <= at < len(source.names)]
    if wrong or not clips:
        raise ValueError(f"validation clips are 0..{len(source.names) - 1}, given {wrong or 'none'}")
    shape = (spec.backbone.frames, spec.backbone.size, spec.backbone.size)
    outside = [point for point in positions if not all(0 <= at < size for at, size in zip(point, shape, strict=True))]
    if outside or not positions:
        raise ValueError(
            f"a position is frame,row,column of a clip of {'x'.join(map(str, shape))}, counted from 0; "
            f"given {outside or 'none'}"
        )


def _read(spec: TrialSpec, source: ClipSource, clips: Sequence[int]) -> Batch:
    (batch,) = source.validation(spec.protocol.curve(), [np.array(clips, np.int64)])
    unreadable = sorted(set(clips) - set(batch.indices.tolist()))
    if unreadable:
        raise ValueError(f"clips that cannot be read: {', '.join(source.names[at] for at in unreadable)}")
    return batch


def _blocks(spec: TrialSpec, model: nn.Module) -> dict[str, Block[Any]]:
    """The blocks of a network by place, in network order."""
    if spec.block.name == "none":
        return {}
    network: Any = model
    return {
        str(point): network.units(point.stage)[point.unit].long_range[point.place]
        for point in insertion_points(spec.backbone, spec.insertion)
    }


@contextmanager
def _inputs_of(blocks: Mapping[str, Block[Any]]) -> Iterator[dict[str, Tensor]]:
    """Inside, a forward pass leaves each block's input here, by place."""
    seen: dict[str, Tensor] = {}

    def keeper(where: str) -> Any:
        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            seen[where] = given[0]

        return keep

    hooks = [block.register_forward_pre_hook(keeper(where)) for where, block in blocks.items()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _maps(
    block: Block[Any], x: Tensor, clip: Sequence[int], positions: Sequence[Position]
) -> NDArray[np.float32] | None:
    """`[n, positions, groups, T', H', W']`; None for blocks without a map."""
    found = [block.attention(x, _cell(position, clip[2:], x.shape[2:])) for position in positions]
    known = [each for each in found if each is not None]
    return torch.stack(known, dim=1).float().cpu().numpy() if known else None


def _cell(position: Position, clip: Sequence[int], inside: Sequence[int]) -> Position:
    """The cell of a map that holds a position of the clip."""
    t, h, w = (at * cells // size for at, size, cells in zip(position, clip, inside, strict=True))
    return t, h, w


def _as_bytes(inputs: Tensor, config: WorkloadConfig) -> NDArray[np.uint8]:
    """Inputs `[n, C, T, H, W]` as pictures `[n, T, H, W, C]`, without the normalisation of video clips."""
    if isinstance(config, FolderConfig):
        shape = (-1, 1, 1, 1)
        inputs = inputs * torch.tensor(config.input_std).view(shape) + torch.tensor(config.input_mean).view(shape)
    pictures: NDArray[np.uint8] = (255 * inputs.clamp(0, 1)).round().byte().permute(0, 2, 3, 4, 1).numpy()
    return pictures


def _class_names(source: ClipSource, classes: int) -> tuple[str, ...]:
    named = tuple(getattr(source, "class_names", ()))
    return named + tuple(f"class {label}" for label in range(len(named), classes))
