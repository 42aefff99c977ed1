"""Small data sets decoded once: every frame of every clip in one file on disk, mapped into memory by all trials.

A data set is small if all its frames, at the size and in the colour that training reads, fit in `LIMIT_BYTES`. That
is estimated from a few clips; larger ones are decoded as they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from workloads.cache import made_once
from workloads.data.pictures import Choose, Pixels, UnreadableVideo

LIMIT_BYTES = 2**30
_LOOKED_AT = 16  # clips that the estimate rests on

Read = Callable[[str, Choose], Pixels]


class Store:
    """All frames of the clips of a data set.

    Args:
        file: written by `make_store`.
    """

    def __init__(self, file: Path) -> None:
        held = load_file(file)
        self._pixels: Pixels = held["pixels"].numpy()
        self._starts: NDArray[np.int64] = held["starts"].numpy()
        self._shapes: NDArray[np.int64] = held["shapes"].numpy()

    @property
    def readable(self) -> NDArray[np.bool_]:
        """`[n]`: which of the clips could be decoded to their end."""
        return self._shapes[:, 0] > 0

    def read(self, at: int, choose: Choose) -> Pixels:
        """The chosen frames of clip number `at`, `[t, H, W, channels]`."""
        shape = self._shapes[at]
        start = self._starts[at]
        frames = self._pixels[start : start + int(shape.prod())].reshape(shape)
        return frames[choose(int(shape[0]))]


def is_small(paths: Sequence[str], frame_bytes: Callable[[str], int]) -> bool:
    """Whether all clips together fit, judged by a few spread over the list.

    Args:
        paths: of all clips.
        frame_bytes: decoded size of one clip, without decoding it; raises `UnreadableVideo`.
    """
    looked_at = [paths[at] for at in np.linspace(0, len(paths) - 1, min(_LOOKED_AT, len(paths))).astype(int)]
    found = []
    for path in looked_at:
        try:
            found.append(frame_bytes(path))
        except UnreadableVideo:
            continue
    return bool(found) and sum(found) / len(found) * len(paths) <= LIMIT_BYTES


def make_store(file: Path, paths: Sequence[str], read: Read, *, workers: int) -> Store:
    """The store of these clips, decoded now unless `file` is there. A clip that cannot be decoded takes no space.

    Args:
        file: its name must identify the clips and what is done to them.
        paths: of the clips, in order.
        read: decodes one clip.
        workers: threads that decode at once.

    Raises:
        OSError: `file` cannot be written.
    """

    def make(aside: Path) -> None:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            _save(aside, pool.map(lambda path: _every_frame(path, read), paths))

    return Store(made_once(file, make))


def _every_frame(path: str, read: Read) -> Pixels:
    try:
        return read(path, np.arange)
    except UnreadableVideo:
        return np.empty((0, 0, 0, 0), np.uint8)


def _save(aside: Path, clips: Iterable[Pixels]) -> None:
    held = list(clips)
    lengths = np.array([0, *(clip.size for clip in held)])
    tensors = {
        "pixels": torch.from_numpy(np.concatenate([clip.ravel() for clip in held])),
        "starts": torch.from_numpy(np.cumsum(lengths)[:-1]),
        "shapes": torch.tensor([clip.shape for clip in held]),
    }
    save_file(tensors, aside)
