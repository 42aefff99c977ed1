"""Frames row by row with plain types: what pandas leaves open about keys and cells is settled here once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts; the index is left out."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def rows(frame: pd.DataFrame) -> Iterator[tuple[str, dict[str, Any]]]:
    """(index, row) pairs in order."""
    return zip(map(str, frame.index), records(frame), strict=True)


def row(frame: pd.DataFrame, key: str) -> dict[str, Any]:
    """The row at `key`."""
    return records(frame.loc[[key]])[0]


def seeds_of(values: pd.DataFrame, arm: str) -> tuple[float, ...]:
    """The values an arm has, in the order of its seeds."""
    found = values.to_numpy(float)[values.index.get_loc(arm)]
    return tuple(found[np.isfinite(found)].tolist())
