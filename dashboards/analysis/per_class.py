"""Which classes gain? Per-class accuracy against the control (PNL, Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboards.analysis.clips import paired_bootstrap


def per_class(
    labels: NDArray[np.int32],
    first: Mapping[int, NDArray[np.bool_]],
    second: Mapping[int, NDArray[np.bool_]],
    names: Sequence[str] = (),
) -> pd.DataFrame:
    """Top-1 per class of two arms, averaged over the seeds both have, sorted by gain.

    Args:
        labels: `[clips]` true classes.
        first: seed -> `[clips]`, True where top-1 is right.
        second: the same for the arm to compare with.
        names: of the classes, in order; their numbers where there is none.

    Returns:
        Per class: name, clips, first_percent, second_percent, difference (points), low, high (95 % paired bootstrap
        over the clips of the class, NaN for a single clip; not corrected over classes). Empty if no seed is shared.
    """
    seeds = sorted(set(first) & set(second))
    rows = []
    for label in np.unique(labels) if seeds else []:
        here = labels == label
        one, two = (np.stack([side[seed][here] for seed in seeds]).mean(axis=0) for side in (first, second))
        low, high = paired_bootstrap(one - two) if here.sum() > 1 else (math.nan, math.nan)  # one clip tells no spread
        name = names[label] if label < len(names) else f"class {label}"
        row = {"class": int(label), "name": name, "clips": int(here.sum())}
        row |= {"first_percent": 100 * one.mean(), "second_percent": 100 * two.mean()}
        rows.append(row | {"difference": 100 * (one - two).mean(), "low": 100 * low, "high": 100 * high})
    columns = ["class", "name", "clips", "first_percent", "second_percent", "difference", "low", "high"]
    return (
        pd.DataFrame(rows, columns=columns).sort_values("difference", ascending=False, kind="stable").set_index("class")
    )
