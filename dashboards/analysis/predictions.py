"""What networks took clips for: the most probable classes per clip (PNL, Fig. 5), from stored scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MOST = 3


class Guess(NamedTuple):
    """One of a trial's best guesses for a clip; `rank` 1 is the best, `clip` its number or name."""

    arm_id: str
    seed: int
    clip: int | str
    label: int
    rank: int
    number: int
    score: float
    correct: bool
    label_name: str = ""
    class_name: str = ""


def guesses(
    scores: NDArray[np.float32], labels: NDArray[np.int32], clips: Sequence[int], most: int = MOST
) -> list[Guess]:
    """The `most` best classes of some clips, best first; of equal scores the lower class.

    Args:
        scores: `[clips, classes]` of one trial.
        labels: `[clips]`.
        clips: which ones.
        most: how many guesses per clip.
    """
    order = np.argsort(-scores[list(clips)], axis=1, kind="stable")[:, :most]
    return [
        Guess("", 0, at, int(labels[at]), rank, int(number), float(scores[at, number]), bool(number == labels[at]))
        for at, best in zip(clips, order, strict=True)
        for rank, number in enumerate(best, start=1)
    ]


def frame(found: Sequence[Guess]) -> pd.DataFrame:
    """Guesses as a frame, with all its columns also where there are none."""
    return pd.DataFrame(found, columns=list(Guess._fields)).rename(columns={"number": "class"})
