"""What a decoded frame becomes: upright, scaled pixels, or a typed error. With `decode` the only importer of av."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import local
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Choose = Callable[[int], NDArray[np.int64]]  # number of frames -> the wanted ones, repeats allowed

MAX_PIXELS = 2**26  # per picture as stored: 8192 x 8192
_MAX_ASPECT = 16  # longer to shorter side
# The same bits on every CPU, and colours that are off by rounding only (by up to 2 of 255 without full chroma).
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_mine = local()


class UnreadableVideo(OSError):
    """A file has no usable frames, or not those asked for; says which file and why."""


@dataclass(frozen=True)
class Scale:
    """What decoded frames are turned into.

    Attributes:
        side: the shorter side in pixels; None keeps the size.
        grey: one channel instead of three.
    """

    side: int | None = None
    grey: bool = False

    @property
    def channels(self) -> int:
        """1 or 3."""
        return 1 if self.grey else 3


def to_pixels(frame: Any, scale: Scale) -> Pixels:
    """`[H, W, channels]`, upright and scaled; in memory one channel after the other.

    Raises:
        UnreadableVideo: the picture is too large.
    """
    check_size(frame.width, frame.height)
    width, height = _scaled(frame.width, frame.height, scale.side)
    made = resampled(frame, width, height, "gray" if scale.grey else "gbrp")
    planes = [np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, :width] for plane in made.planes]
    # Plane by plane because that takes a third of the time of interleaved colours, there and in the copies to come.
    channels = np.stack(planes if scale.grey else [planes[2], planes[0], planes[1]])
    return np.rot90(channels, round(frame.rotation / 90), axes=(1, 2)).transpose(1, 2, 0)


def resampled(frame: Any, width: int, height: int, kind: str) -> Any:
    """A frame of another size and pixel format.

    Each thread has a scaler of its own, which keeps its tables from frame to frame.
    """
    if not hasattr(_mine, "scaler"):
        _mine.scaler = VideoReformatter()
    return _mine.scaler.reformat(frame, width, height, kind, interpolation=_EXACT, threads=1)


def _scaled(width: int, height: int, side: int | None) -> tuple[int, int]:
    """Width and height with the shorter one at `side`."""
    if side is None:
        return width, height
    short = min(width, height)
    return max(side, round(width * side / short)), max(side, round(height * side / short))


def stacked(frames: list[Pixels]) -> Pixels:
    """Frames `[H, W, channels]` as `[t, H, W, channels]`; in memory `[t, channels, H, W]`.

    Raises:
        UnreadableVideo: they differ in shape.
    """
    if len({frame.shape for frame in frames}) > 1:
        sizes = sorted({frame.shape[:2] for frame in frames})
        raise UnreadableVideo(f"frames of different shapes: {sizes}")
    return np.stack([frame.transpose(2, 0, 1) for frame in frames]).transpose(0, 2, 3, 1)


def check_size(width: int, height: int) -> None:
    """Refuse pictures that nobody means to train on, before memory is taken for them.

    Raises:
        UnreadableVideo: they are too large, or absurdly long.
    """
    if width * height > MAX_PIXELS:
        raise UnreadableVideo(f"pictures of {width}x{height} are above the limit of {MAX_PIXELS} pixels")
    if width and height and max(width, height) > _MAX_ASPECT * min(width, height):
        raise UnreadableVideo(f"pictures of {width}x{height}: one side is more than {_MAX_ASPECT} times the other")
