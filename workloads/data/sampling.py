"""Which frames of a clip are seen: functions of the number of frames there are.

Paper: TSN (Wang et al. 2016) for segments; non-local networks (Wang et al. 2018) for dense clips and for views spread
uniformly over time. Code consulted: none.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from workloads.reproducible import seed_for

Frames = NDArray[np.int64]
Sampling = Literal["segments", "dense"]


def generator_for(seed: int, epoch: int, index: int, purpose: str) -> np.random.Generator:
    """The randomness of one training clip in one epoch; it may depend on nothing else."""
    return np.random.default_rng(seed_for(seed, "clip", epoch, index, purpose))


def training_frames(
    count: int, frames: int, sampling: Sampling, *, stride: int, generator: np.random.Generator
) -> Frames:
    """The frames of a training clip, `[frames]`, from `count` that there are.

    Args:
        count: frames of the video.
        frames: frames the network sees.
        sampling: one random frame of each segment, or a dense clip from a random start.
        stride: of dense clips.
        generator: draws the frames.
    """
    if sampling == "segments":
        return _in_segments(count, frames, generator.random(frames))
    latest = max(0, count - _span(frames, stride))
    return _dense(count, frames, stride, int(generator.integers(0, latest + 1)))


def views(count: int, frames: int, sampling: Sampling, *, stride: int, clips: int) -> Frames:
    """The frames of `clips` views spread uniformly over time, `[clips, frames]`; one view is the centre.

    Args:
        count: frames of the video.
        frames: frames the network sees.
        sampling: `segments` moves through each segment from view to view, `dense` moves the whole clip.
        stride: of dense clips.
        clips: number of views.
    """
    places = (np.arange(clips) + 0.5) / clips
    if sampling == "segments":
        return np.stack([_in_segments(count, frames, np.full(frames, place)) for place in places])
    latest = max(0, count - _span(frames, stride))
    ends = np.array([0.5]) if clips == 1 else np.arange(clips) / (clips - 1)
    return np.stack([_dense(count, frames, stride, round(latest * end)) for end in ends])


def _in_segments(count: int, frames: int, places: NDArray[np.float64]) -> Frames:
    """The frame at `places` in [0, 1) of each of `frames` equal segments; short videos repeat frames."""
    at = (np.arange(frames) + places) * (count / frames)
    return np.minimum(at.astype(np.int64), count - 1)


def _dense(count: int, frames: int, stride: int, start: int) -> Frames:
    return ((start + stride * np.arange(frames)) % count).astype(np.int64)


def _span(frames: int, stride: int) -> int:
    return stride * (frames - 1) + 1
