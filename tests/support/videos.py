"""Tiny videos whose frames can be told apart, and data sets made of them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

_DARKEST, _STEP = 20, 5


def grey_of(number: int) -> int:
    """The brightness of frame `number`."""
    return _DARKEST + _STEP * number


def numbers_of(frames: NDArray[np.uint8]) -> list[int]:
    """Which frames these are, `[t, H, W, C]`, by their brightness."""
    means = frames.reshape(len(frames), -1).mean(axis=1)
    return np.rint((means - _DARKEST) / _STEP).astype(int).tolist()


def plain_frames(count: int, size: tuple[int, int] = (48, 64)) -> list[NDArray[np.uint8]]:
    """Frame i is evenly grey, `[H, W, 3]`; at most 47 can be told apart."""
    return [np.full((*size, 3), grey_of(number), np.uint8) for number in range(count)]


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    key_every: int = 8,
    times: Sequence[int] | None = None,
    rotation: int = 0,
    rate: str = "10",
    **options: str,
) -> Path:
    """Encode frames `[H, W, 3]` at 10 per second, or at `times` in hundredths of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=int(rate), options={"g": str(key_every), **options})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format=pixels, interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND)
            picture.time_base = Fraction(1, 100)
            picture.pts = times[number] if times is not None else 10 * number
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        silence.sample_rate = 8000
        output.mux(stream.encode(silence))
        output.mux(stream.encode(None))
    return path


def write_image(path: Path, pixels: NDArray[np.uint8], *, codec: str = "png", kind: str = "rgb24") -> Path:
    """Encode one frame `[H, W, 3]`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = pixels.shape[:2]
    context.pix_fmt, context.time_base = kind, Fraction(1, 10)
    picture = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=kind)
    path.write_bytes(b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None))))
    return path


def moving_square(direction: str, start: int, *, frames: int = 8, side: int = 32) -> list[NDArray[np.uint8]]:
    """A bright square that moves `left` or `right`: one frame does not tell which."""
    made = []
    for number in range(frames):
        picture = np.full((side, side, 3), 30, np.uint8)
        step = number if direction == "right" else frames - 1 - number
        column = (start + 3 * step) % (side - 8)
        picture[8:20, column : column + 8] = 220
        made.append(picture)
    return made


def make_folder(root: Path, *, train: int = 6, validation: int = 3) -> Path:
    """A data set of two classes, `left` and `right`, with so many clips per class."""
    for split, count in (("train", train), ("val", validation)):
        for label in ("left", "right"):
            for number in range(count):
                write_video(root / split / label / f"{number:03d}.mp4", moving_square(label, number))
    return root
