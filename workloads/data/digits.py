"""Digit recall: making the clips, pre-training on still images, and running trials. See `DigitsConfig` for the task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from workloads import protocols
from workloads.backbones.base import Backbone
from workloads.backbones.config import BackboneConfig
from workloads.cache import content_key, made_once
from workloads.clips import Batch, Indices
from workloads.data.digits_config import CLASSES, FRAMES, SIZE, DigitsConfig
from workloads.progress import Progress
from workloads.recipes import Recipe
from workloads.registry import parse_backbone
from workloads.reproducible import reproducible, seed_for, seed_torch
from workloads.schedule import lr_factor
from workloads.spec import RunContext, TrialSpec
from workloads.train import train

_TRAIN_SCANS = 1200
_SIDE = 8  # of a scan
_BACKGROUND = 0.1
_VERSION = 1  # of what this file makes; part of every cached file's name

# Still images: every digit in the frame is to be named; the counterpart of ImageNet weights.
_STILL = Recipe(epochs=1, batch=64, lr=8e-3, schedule="onecycle", warmup_epochs=0.3)

Frames = NDArray[np.float32]


class Clips(NamedTuple):
    """Clips `[n, T, H, W]` in [0, 1] with labels `[n]`."""

    frames: Frames
    labels: NDArray[np.int64]


class Scans:
    """The scans of one split, by class.

    Args:
        images: `[n, 8, 8]` in [0, 1].
        digits: `[n]` what they show.
        generator: draws the scans.
    """

    def __init__(self, images: Frames, digits: NDArray[np.int64], generator: np.random.Generator) -> None:
        self._images = images
        self._by_class = [np.flatnonzero(digits == digit) for digit in range(CLASSES)]
        self._generator = generator

    def draw(self, digits: NDArray[np.int64]) -> Frames:
        """An independent scan of each of these digits, `[..., 8, 8]`."""
        counts = np.array([len(scans) for scans in self._by_class])
        table = np.full((CLASSES, counts.max()), -1)
        for digit, scans in enumerate(self._by_class):
            table[digit, : len(scans)] = scans
        chosen = (self._generator.random(digits.shape) * counts[digits]).astype(np.int64)
        drawn: Frames = self._images[table[digits, chosen]]
        return drawn


def make_clips(config: DigitsConfig, part: str) -> Clips:
    """The `train` or `validation` clips of a config; the same ones every time."""
    count, seed = (config.train_clips, config.seed) if part == "train" else (config.validation_clips, config.seed + 1)
    generator = np.random.default_rng(seed)
    scans = Scans(*_scans(part, config.validation_scans), generator)
    keys = _distinct(generator, count, config.keys)
    values = _distinct(generator, count, CLASSES)
    asked = generator.integers(0, 2, count)
    everyone = np.arange(count)

    frames = _background(generator, (count, FRAMES))
    for pair in range(2):
        y = generator.integers(0, SIZE - _SIDE + 1, count)
        paste(frames[:, pair], scans.draw(keys[:, pair]), y, np.zeros_like(y))
        paste(frames[:, pair], scans.draw(values[:, pair]), y, np.full_like(y, _SIDE))
    for query in range(2, FRAMES):
        y, x = generator.integers(0, SIZE - _SIDE + 1, (2, count))
        paste(frames[:, query], scans.draw(keys[everyone, asked]), y, x)
    order = generator.permuted(np.tile(np.arange(FRAMES), (count, 1)), axis=1)
    return Clips(np.take_along_axis(frames, order[:, :, None, None], axis=1), values[everyone, asked])


def make_still_images(config: DigitsConfig) -> tuple[Frames, Frames]:
    """Single frames `[n, H, W]` of one digit anywhere or two side by side, and which classes they show, `[n, 10]`."""
    count = config.still_images
    generator = np.random.default_rng(seed_for(config.still_seed, "still images"))
    scans = Scans(*_scans("train", config.validation_scans), generator)
    digits = generator.integers(0, CLASSES, (count, 2))
    y, x = generator.integers(0, SIZE - _SIDE + 1, (2, count))
    two = generator.random(count) < 0.5
    frames = _background(generator, (count,))
    paste(frames, scans.draw(digits[:, 0]), y, np.where(two, 0, x))
    paste(frames, scans.draw(digits[:, 1]) * two[:, None, None].astype(np.float32), y, np.full_like(y, _SIDE))
    shown = np.zeros((count, CLASSES), np.float32)
    shown[np.arange(count), digits[:, 0]] = 1
    shown[two, digits[two, 1]] = 1
    return frames, shown


def paste(frames: Frames, scans: Frames, y: NDArray[np.int64], x: NDArray[np.int64]) -> None:
    """Put each scan into its frame (`[n, H, W]`, changed in place) at row `y` and column `x`; the brighter wins."""
    every = np.arange(len(frames))[:, None, None]
    rows, columns = (start[:, None] + np.arange(_SIDE) for start in (y, x))
    at = (every, rows[:, :, None], columns[:, None, :])
    frames[at] = np.maximum(frames[at], scans)


@cache
def _load_digits() -> tuple[Frames, NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # a second to import, needed only where nothing is cached yet

    bunch = load_digits()
    return (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)


def _scans(part: str, validation: str) -> tuple[Frames, NDArray[np.int64]]:
    images, digits = _load_digits()
    held_out = np.arange(len(images)) >= _TRAIN_SCANS
    if validation == "first":
        held_out = held_out[::-1]
    mine = held_out if part == "validation" else ~held_out
    return images[mine], digits[mine]


def _distinct(generator: np.random.Generator, count: int, choices: int) -> NDArray[np.int64]:
    """Two different numbers below `choices`, in random order, `[count, 2]`."""
    first = generator.integers(0, choices, count)
    return np.stack([first, (first + generator.integers(1, choices, count)) % choices], axis=1)


def _background(generator: np.random.Generator, leading: tuple[int, ...]) -> Frames:
    return _BACKGROUND * generator.random((*leading, SIZE, SIZE), dtype=np.float32)


class DigitClips:
    """The clips of a config as the training loop's `ClipSource`, kept in `folder`.

    Args:
        config: which clips.
        folder: shared between trials.
    """

    def __init__(self, config: DigitsConfig, folder: Path) -> None:
        self.key = content_key("digits", _VERSION, config.to_json())
        path = made_once(folder / f"clips-{self.key}.safetensors", lambda aside: _save_clips(config, aside))
        self._held = load_file(path)
        self.train_clips = len(self._held["train_labels"])
        self.labels = self._held["validation_labels"].numpy()
        self.names: Sequence[str] = [f"validation-{index:05d}" for index in range(len(self.labels))]
        self.class_names: Sequence[str] = [f"digit {label}" for label in range(config.classes)]

    def training(self, epoch: int, batches: Sequence[Indices]) -> Iterator[Batch]:
        for indices in batches:
            yield self._batch("train", indices)

    def validation(self, protocol: protocols.Protocol, batches: Sequence[Indices]) -> Iterator[Batch]:
        if not protocol.same_views(protocol.curve()):
            raise ValueError(f"digits has one view per clip: use protocol 'centre', given {protocol}")
        for indices in batches:
            batch = self._batch("validation", indices)
            yield batch._replace(inputs=batch.inputs.unsqueeze(1))

    def notes(self) -> tuple[str, ...]:
        return ()

    def _batch(self, part: str, indices: Indices) -> Batch:
        at = torch.from_numpy(indices)
        frames = self._held[part].index_select(0, at).unsqueeze(1)
        return Batch(frames, self._held[f"{part}_labels"].index_select(0, at), indices)


def _save_clips(config: DigitsConfig, path: Path) -> None:
    tensors: dict[str, Tensor] = {}
    for part in ("train", "validation"):
        clips = make_clips(config, part)
        tensors |= {part: torch.from_numpy(clips.frames), f"{part}_labels": torch.from_numpy(clips.labels)}
    save_file(tensors, path)


class Digits:
    """The workload.

    Args:
        config: which clips and which pre-training.
    """

    def __init__(self, config: DigitsConfig) -> None:
        self.config = config

    def prepare(self, context: RunContext) -> None:
        """Make the clips and the pre-trained weights of the default backbone; seconds, once."""
        DigitClips(self.config, _folder(context))
        self._pretrained(parse_backbone(self.config.defaults()["backbone"]), context)

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        """See `workloads.registry.Workload`.

        Raises:
            ValueError: the backbone or the protocol does not fit these clips.
        """
        fits = {"frames": FRAMES, "size": SIZE, "classes": CLASSES, "channels": 1}
        wrong = {name: value for name in fits if (value := getattr(spec.backbone, name)) != fits[name]}
        if wrong:
            raise ValueError(f"digits needs a backbone with {fits}, given {wrong}")
        weights = self._pretrained(spec.backbone, context)
        source = self.source(spec, context)
        return train(spec, context, source, initialise=None if weights is None else lambda m: _start(m, weights))

    def source(self, _: TrialSpec, context: RunContext) -> DigitClips:
        """The clips, the same ones for every trial."""
        return DigitClips(self.config, _folder(context))

    def _pretrained(self, backbone: BackboneConfig, context: RunContext) -> dict[str, Tensor] | None:
        if not self.config.still_images:
            return None
        still = backbone.model_copy(update={"frames": 1})
        chosen = self.config.model_dump(include={"still_images", "still_seed", "validation_scans"})
        key = content_key("still", _VERSION, _STILL.to_json(), chosen, still.to_json(), torch.__version__)
        path = _folder(context) / f"pretrained-{key}.safetensors"
        return load_file(made_once(path, lambda aside: save_file(pretrain(self.config, still), aside)))


def pretrain(config: DigitsConfig, still: BackboneConfig) -> dict[str, Tensor]:
    """The weights, classifier included, of a single-frame network that names the digits of still images.

    Args:
        config: which images.
        still: the backbone with `frames=1`.
    """
    frames, shown = make_still_images(config)
    with reproducible(torch.device("cpu"), threads=1):
        seed_torch(seed_for(config.still_seed, "still weights"), torch.device("cpu"))
        model = still.build().train()
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=_STILL.weight_decay, fused=True)
        order = np.random.default_rng(seed_for(config.still_seed, "still order")).permutation(len(frames))
        steps = max(1, len(order) // _STILL.batch)
        for step, clips in enumerate(np.array_split(order, steps)):
            inputs = torch.from_numpy(frames[clips])[:, None, None]
            loss = binary_cross_entropy_with_logits(model(inputs), torch.from_numpy(shown[clips]))
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimizer.param_groups:
                group["lr"] = _STILL.lr * lr_factor(_STILL, step, steps)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return {name: tensor.contiguous() for name, tensor in model.state_dict().items()}


def _start(model: Backbone[Any], weights: dict[str, Tensor]) -> None:
    """Load pre-trained weights; only blocks keep their own."""
    found = model.load_state_dict(weights, strict=False)
    left_out = [name for name in found.missing_keys if ".long_range." not in f".{name}"]
    if left_out or found.unexpected_keys:
        raise ValueError(
            f"{model.config.name} has other weights for one frame than for {FRAMES}, so digits cannot pre-train it "
            f"({', '.join([*left_out, *found.unexpected_keys])}): set workload.still_images to 0"
        )


def _folder(context: RunContext) -> Path:
    return context.cache_dir / "digits"
