"""Labelled clips on disk as the training loop's `ClipSource`, and the workload that trains on them.

A clip is read, cropped and turned into a tensor on its own; what it looks like in training depends on the trial's
seed, the epoch and its index. Threads do the reading: FFmpeg and torch let go of Python's lock while they work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from workloads import protocols
from workloads.backbones.config import BackboneConfig
from workloads.cache import content_key
from workloads.clips import Batch, Indices
from workloads.data import annotations as lists
from workloads.data import augment, sampling
from workloads.data.annotations import Clip
from workloads.data.augment import Draw, Window
from workloads.data.folder_config import MAY_SKIP, FolderConfig
from workloads.data.pictures import Choose, Pixels, Scale, UnreadableVideo
from workloads.data.readers import Reader
from workloads.data.store import Store, is_small, make_store
from workloads.fits import misfits
from workloads.progress import BadData, Progress
from workloads.spec import RunContext, TrialSpec
from workloads.train import train

_VERSION = 2  # of what this folder's files make of a clip; part of the store's name
_RESIZED = 8 / 7  # frames' shorter side over the network's input: 256 for 224
_AHEAD = 2  # batches in the making while one is used

T = TypeVar("T")


class _Loaded(NamedTuple):
    """A clip as bytes, `[C, T, H, W]` or `[views, C, T, H, W]`, and which one it is."""

    pixels: Tensor
    at: int


class FolderClips:
    """See `workloads.clips.ClipSource`.

    Where all clips fit in memory they are decoded once, kept in `context.cache_dir`, and those that cannot be decoded
    are left out from the start. Otherwise they are decoded as needed: in training the next readable clip takes the
    place of an unreadable one, in validation it is left out.

    Args:
        config: which clips, and how they are sampled.
        backbone: the network's input.
        context: cache, threads, device.
        seed: the trial's.
    """

    def __init__(self, config: FolderConfig, backbone: BackboneConfig, context: RunContext, *, seed: int) -> None:
        self._config, self._size, self._frames, self._seed = config, backbone.size, backbone.frames, seed
        self._workers, self._device = context.data_workers, torch.device(context.device)
        listing = config.listing()
        self._listed = len(listing.train) + len(listing.validation)
        self._missing = len(listing.missing)
        self._unreadable: dict[str, str] = {}
        self._side = round(_RESIZED * self._size)
        self._store = self._open_store([clip.path for clip in (*listing.train, *listing.validation)], context)
        self._places = {clip.path: at for at, clip in enumerate((*listing.train, *listing.validation))}
        self._train, self._validation = self._usable(listing.train), self._usable(listing.validation)
        self.train_clips = len(self._train)
        self.names: Sequence[str] = [clip.path for clip in self._validation]
        self.class_names: Sequence[str] = listing.classes
        self.labels = lists.indices(self._validation, listing.classes)
        self._train_labels = lists.indices(self._train, listing.classes)
        self.key = "" if config.augment or self._store is None else content_key(*self._identity(), self._frames)

    def training(self, epoch: int, batches: Sequence[Indices]) -> Iterator[Batch]:
        for loaded in self._in_order(partial(self._training_clip, epoch), batches):
            indices = np.array([clip.at for clip in loaded])
            yield self._batch([clip.pixels for clip in loaded], self._train_labels, indices)

    def validation(self, protocol: protocols.Protocol, batches: Sequence[Indices]) -> Iterator[Batch]:
        for loaded in self._in_order(partial(self._validation_clip, protocol), batches):
            readable = [clip for clip in loaded if clip is not None]
            if len({clip.pixels.shape for clip in readable}) > 1:
                raise ValueError(
                    f"protocol {protocol.name!r} takes whole frames and these clips differ in shape: "
                    "set protocol.batch=1"
                )
            indices = np.array([clip.at for clip in readable], np.int64)
            yield self._batch([clip.pixels for clip in readable], self.labels, indices)

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._missing:
            notes.append(f"{self._missing} listed clips are not on disk")
        if self._unreadable:
            shown = lists.examples("", sorted(self._unreadable))
            notes.append(f"{len(self._unreadable)} of {self._listed} clips could not be read and were skipped: {shown}")
        return tuple(notes)

    def _training_clip(self, epoch: int, index: int) -> _Loaded:
        for at in [*range(index, self.train_clips), *range(index)]:
            try:
                return _Loaded(self._augmented(epoch, at), at)
            except UnreadableVideo as error:
                self._skip(self._train[at], error)
        raise BadData(f"none of the {self.train_clips} training clips can be read")

    def _augmented(self, epoch: int, index: int) -> Tensor:
        config = self._config
        if not config.augment:
            views = self._views(self._train[index], protocols.Protocol())
            return views[0]
        frames = self._read(self._train[index], self._training_choice(epoch, index), self._side)
        generator = sampling.generator_for(self._seed, epoch, index, "window")
        draw = Draw(config.crop, config.jitter, config.flip)
        window = augment.training_window(_shape(frames), self._size / self._side, draw, generator)
        return augment.to_clip(augment.crop(frames, window), self._size)

    def _validation_clip(self, protocol: protocols.Protocol, index: int) -> _Loaded | None:
        try:
            return _Loaded(self._views(self._validation[index], protocol), index)
        except UnreadableVideo as error:
            self._skip(self._validation[index], error)
            return None

    def _views(self, clip: Clip, protocol: protocols.Protocol) -> Tensor:
        """All views of a clip under a protocol, `[views, C, T, H, W]`."""
        size = protocol.size or self._size
        frames = self._read(
            clip, self._view_choice(protocol), size if protocol.crops == "full" else max(self._side, size)
        )
        windows = _windows(_shape(frames), size, protocol)
        views = [
            augment.as_tensor(augment.crop(part, window))
            for part in np.split(frames, protocol.clips)
            for window in windows
        ]
        return torch.stack(views)

    def _training_choice(self, epoch: int, index: int) -> Choose:
        """Frames of a training clip, given how many there are; the same ones however often it is asked."""
        config = self._config

        def choose(count: int) -> sampling.Frames:
            generator = sampling.generator_for(self._seed, epoch, index, "frames")
            return sampling.training_frames(
                count, self._frames, config.sampling, stride=config.stride, generator=generator
            )

        return choose

    def _view_choice(self, protocol: protocols.Protocol) -> Choose:
        """Frames of all views of a protocol, one view after the other, given how many there are."""
        config, frames = self._config, protocol.frames or self._frames
        return lambda count: sampling.views(
            count, frames, config.sampling, stride=config.stride, clips=protocol.clips
        ).ravel()

    def _read(self, clip: Clip, choose: Choose, side: int) -> Pixels:
        if self._store is not None and side == self._side:
            return self._store.read(self._places[clip.path], choose)
        return self._reader(side).read(clip.path, choose)

    def _reader(self, side: int) -> Reader:
        config = self._config
        return Reader(config.folder, config.kind, Scale(side, grey=config.colour == "grey"))

    def _open_store(self, paths: Sequence[str], context: RunContext) -> Store | None:
        reader = self._reader(self._side)
        if not is_small(paths, reader.frame_bytes):
            return None
        file = context.cache_dir / "folder" / f"frames-{content_key(*self._identity())}.safetensors"
        return make_store(file, paths, reader.read, workers=max(context.data_workers, context.threads))

    def _identity(self) -> tuple[object, ...]:
        """What the decoded frames of all clips depend on."""
        changes_pixels = self._config.model_dump(mode="json", exclude={"root", "name", "dataset", "class_count"})
        return ("folder", _VERSION, self._config.fingerprint(), changes_pixels, self._size)

    def _usable(self, clips: Sequence[Clip]) -> list[Clip]:
        """Without those that the store could not decode."""
        if self._store is None:
            return list(clips)
        readable = self._store.readable
        for clip in clips:
            if not readable[self._places[clip.path]]:
                self._skip(clip, UnreadableVideo(f"{clip.path}: cannot be decoded to its end"))
        return [clip for clip in clips if readable[self._places[clip.path]]]

    def _skip(self, clip: Clip, error: UnreadableVideo) -> None:
        """Count a clip that cannot be read.

        Raises:
            BadData: there are too many.
        """
        self._unreadable[clip.path] = str(error)
        if len(self._unreadable) > MAY_SKIP * self._listed:
            listed = "\n".join(f"  {reason}" for reason in self._unreadable.values())
            raise BadData(
                f"{len(self._unreadable)} of {self._listed} clips could not be read, more than {MAY_SKIP:.0%} "
                f"(`longrange data check {self._config.root} --full` finds all):\n{listed}"
            ) from error

    def _batch(self, clips: Sequence[Tensor], labels: Indices, indices: Indices) -> Batch:
        config = self._config
        # Bytes travel to the device, floats are made there.
        inputs = augment.normalise(torch.stack(list(clips)).to(self._device), config.input_mean, config.input_std)
        return Batch(inputs, torch.from_numpy(labels[indices]), indices)

    def _in_order(self, load: Callable[[int], T], batches: Sequence[Indices]) -> Iterator[list[T]]:
        """Every batch's clips, in order, with some in the making ahead."""
        if not self._workers:
            for indices in batches:
                yield [load(index) for index in indices.tolist()]
            return
        with ThreadPoolExecutor(self._workers) as pool:
            waiting: deque[list[Future[T]]] = deque()
            try:
                for indices in batches:
                    waiting.append([pool.submit(load, index) for index in indices.tolist()])
                    if len(waiting) > _AHEAD:
                        yield [future.result() for future in waiting.popleft()]
                while waiting:
                    yield [future.result() for future in waiting.popleft()]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _shape(frames: Pixels) -> tuple[int, int]:
    """Height and width."""
    return frames.shape[1], frames.shape[2]


def _windows(shape: tuple[int, int], size: int, protocol: protocols.Protocol) -> list[Window]:
    height, width = shape
    if protocol.crops == "full":
        return [Window(0, 0, height, width)]
    if protocol.crops == "three":
        return augment.three(height, width, size)
    return [augment.centre(height, width, size)]


class Folder:
    """The workload.

    Args:
        config: which clips.
    """

    clips: ClassVar[type[FolderClips]] = FolderClips

    def __init__(self, config: FolderConfig) -> None:
        self.config = config

    def prepare(self, context: RunContext) -> None:
        """Nothing: what trials share depends on the network's input size, and is made by the first that needs it."""

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        """See `workloads.registry.Workload`.

        Raises:
            ValueError: the data is not usable, or the backbone does not fit it.
        """
        wrong = [*self.config.problems(), *misfits(spec)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return train(spec, context, self.source(spec, context))

    def source(self, spec: TrialSpec, context: RunContext) -> FolderClips:
        """The clips as a trial of `spec` sees them."""
        return self.clips(self.config, spec.backbone, context, seed=spec.seed)
