"""What a running trial tells: plain values without torch, so that they travel between processes and machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class EpochDone:
    """One epoch of training is over (0-based). Metric names carry their unit, e.g. `top1_percent`."""

    epoch: int
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True)
class CheckpointWritten:
    """The state after `epoch` is complete on disk at `path`; a later attempt may start there."""

    epoch: int
    path: Path


@dataclass(frozen=True)
class Predictions:
    """Per-clip results of the last evaluation, in the order of the workload's validation list.

    Attributes:
        clips: `[n]` names of the clips.
        labels: `[n]` true class indices.
        scores: `[n, classes]` averaged scores as the protocol states them (float16 is enough).
        class_names: of the classes, in order; empty where the workload does not say.
    """

    clips: tuple[str, ...]
    labels: NDArray[np.int64]
    scores: NDArray[np.float16]
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The trial's result.

    Attributes:
        metrics: final values, e.g. `top1_percent`, `top5_percent`, `train_loss`, `train_seconds`.
        predictions: per-clip results, for paired tests.
        samples: raw repeated measurements, e.g. `latency_ms` -> one value per repetition.
        notes: what a reader must know to judge the numbers (skipped clips, scaled learning rate, ...).
    """

    metrics: Mapping[str, float]
    predictions: Predictions | None = None
    samples: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Progress = EpochDone | CheckpointWritten | Finished


class Diverged(ArithmeticError):
    """The loss became NaN or infinite, or left the recipe's bound; says where."""


class BadData(OSError):
    """More clips are unreadable than a trial may skip; lists them."""


class Stopped(Exception):
    """The trial was asked to stop (SIGTERM, cancel) and has written its checkpoint."""
