"""Crops, mirroring and normalisation of decoded frames `[T, H, W, C]`; every choice is drawn before pixels are touched.

Paper: non-local networks (Wang et al. 2018) for scale jitter with random crops; TSN (Wang et al. 2016) for corner
crops of several scales. Code consulted: none.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

Pixels = NDArray[np.uint8]
Crops = Literal["random", "corners", "area", "centre"]

TSN_SCALES = (1.0, 0.875, 0.75, 0.66)
_AREA = (0.08, 1.0)  # of the frame
_ASPECT = 4 / 3
_TRIES = 10  # windows that do not fit are drawn again


class Window(NamedTuple):
    """A part of a frame.

    Attributes:
        top: first row.
        left: first column.
        height: rows.
        width: columns.
        mirrored: left and right are swapped.
    """

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False


class Draw(NamedTuple):
    """How training crops are drawn.

    Attributes:
        crop: `random` places a window anywhere; `corners` takes one of four corners and the centre, at one of TSN's
            scales of the shorter side; `area` takes a window of random area and shape, as image classifiers are
            trained (Szegedy et al. 2015); `centre` takes the middle.
        jitter: range of the factor by which the frame is enlarged before `random` and `centre` crops.
        flip: mirror every other clip.
    """

    crop: Crops
    jitter: tuple[float, float]
    flip: bool


def training_window(shape: tuple[int, int], share: float, draw: Draw, generator: np.random.Generator) -> Window:
    """One training crop, the same for all frames of a clip.

    Args:
        shape: height and width of the frames.
        share: the network's input size over the frames' shorter side, at most 1.
        draw: how.
        generator: draws the window.
    """
    height, width = shape
    mirrored = draw.flip and bool(generator.random() < 0.5)
    if draw.crop == "area":
        return _area_window(height, width, generator)._replace(mirrored=mirrored)
    scale, down, right = generator.random(3)
    short = min(height, width)
    if draw.crop == "corners":
        side = round(short * TSN_SCALES[int(scale * len(TSN_SCALES))])
        places = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
        down, right = places[int(down * len(places))]
    else:
        low, high = draw.jitter
        side = round(short * share / (low + scale * (high - low)))
        if draw.crop == "centre":
            down = right = 0.5
    return Window(round(down * (height - side)), round(right * (width - side)), side, side, mirrored)


def _area_window(height: int, width: int, generator: np.random.Generator) -> Window:
    for _ in range(_TRIES):
        area = height * width * generator.uniform(*_AREA)
        ratio = np.exp(generator.uniform(-np.log(_ASPECT), np.log(_ASPECT)))
        tall, wide = round(np.sqrt(area / ratio)), round(np.sqrt(area * ratio))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = generator.integers(0, (height - tall + 1, width - wide + 1)).tolist()
            return Window(top, left, tall, wide)
    return centre(height, width, min(height, width))


def centre(height: int, width: int, side: int) -> Window:
    """The middle of a frame."""
    return Window((height - side) // 2, (width - side) // 2, side, side)


def three(height: int, width: int, side: int) -> list[Window]:
    """Three windows along the longer side: its two ends and the middle."""
    tops = [round(place * (height - side)) for place in (0.0, 0.5, 1.0)]
    lefts = [round(place * (width - side)) for place in (0.0, 0.5, 1.0)]
    return [Window(top, left, side, side) for top, left in zip(tops, lefts, strict=True)]


def crop(frames: Pixels, window: Window) -> Pixels:
    """The window of every frame; a view where nothing is mirrored."""
    top, left, height, width, mirrored = window
    cut = frames[:, top : top + height, left : left + width]
    return cut[:, :, ::-1] if mirrored else cut


def as_tensor(frames: Pixels) -> Tensor:
    """Frames `[T, H, W, C]` as `[C, T, H, W]`."""
    return torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2)))


def to_clip(frames: Pixels, size: int) -> Tensor:
    """Frames `[T, H, W, C]` as `[C, T, size, size]`, resized (bilinear, antialiased) if they have another size."""
    moved = as_tensor(frames)
    if moved.shape[2:] == (size, size):
        return moved
    channels, count = moved.shape[:2]
    resized = interpolate(moved.flatten(0, 1)[:, None].float(), (size, size), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8).view(channels, count, size, size)


def normalise(clips: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Bytes `[..., C, T, H, W]` to float32 with the given mean and deviation in [0, 1] taken out, on their device."""
    shape = (len(mean), 1, 1, 1)
    scale = torch.tensor([1 / (255 * deviation) for deviation in std], device=clips.device).view(shape)
    shift = torch.tensor([m / deviation for m, deviation in zip(mean, std, strict=True)], device=clips.device)
    values = clips.to(torch.float32, copy=True)  # our own, so that the rest needs no more memory
    return values.mul_(scale).sub_(shift.view(shape))
