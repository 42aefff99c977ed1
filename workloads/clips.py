"""What the training loop asks of a workload's data: clips by index, in the order the loop draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from workloads import protocols

Indices = NDArray[np.int64]


class Batch(NamedTuple):
    """Some clips.

    Attributes:
        inputs: `[b, C, T, H, W]` in training, `[b, views, C, T, H, W]` in validation.
        labels: `[b]` class indices.
        indices: `[b]` which clips these are; fewer than were asked for where some could not be read.
    """

    inputs: Tensor
    labels: Tensor
    indices: Indices


class ClipSource(Protocol):
    """The training and validation clips of one workload, each in a fixed order.

    What training clip `index` looks like in `epoch` may depend on the trial's seed, the epoch and the index, and on
    nothing else: not on the batch it is in, the number of workers, or what was read before.

    Attributes:
        key: identifies the training clips where every epoch shows the same ones (no augmentation), so that frozen
            features can be kept; empty where epochs differ.
        train_clips: number of training clips.
        names: names of the validation clips.
        labels: `[n]` their classes.

    A source may also say `class_names`, the classes' names in order: figures then show them instead of numbers.
    """

    key: str
    train_clips: int
    names: Sequence[str]
    labels: NDArray[np.int64]

    def training(self, epoch: int, batches: Sequence[Indices]) -> Iterator[Batch]:
        """The training clips of `epoch` at these indices, one `Batch` for each.

        Raises:
            BadData: more clips are unreadable than a trial may skip.
        """

    def validation(self, protocol: protocols.Protocol, batches: Sequence[Indices]) -> Iterator[Batch]:
        """The validation clips at these indices in all views of the protocol.

        Raises:
            BadData: more clips are unreadable than a trial may skip.
        """

    def notes(self) -> tuple[str, ...]:
        """What a reader must know to judge the numbers, e.g. how many clips were skipped."""
