"""In which order the tests of a run start: what takes minutes first, so that none of it is left alone at the end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import pytest


def long_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """The items as xdist should have them, which gives every worker an equal part of the list, in order.

    Each part begins with some of the tests that say `slow(seconds=...)`. Those that start clusters are all in the
    first: they mostly wait, and would starve each other. All other tests keep their order, and so what modules share.
    """
    lanes: list[list[pytest.Item]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for item in sorted(filter(_seconds, items), key=lambda item: (not _starts_cluster(item), -_seconds(item))):
        lane = 0 if _starts_cluster(item) else loads.index(min(loads))
        lanes[lane].append(item)
        loads[lane] += _seconds(item)
    others = (item for item in items if not _seconds(item))
    left = len(items)
    for number, lane in enumerate(lanes):
        size = left // (workers - number)
        lane.extend(islice(others, max(0, size - len(lane))))
        left -= size
    return [item for lane in lanes for item in lane] + list(others)


def _seconds(item: pytest.Item) -> float:
    """How long it takes alone, roughly, as far as it says so."""
    return max((mark.kwargs.get("seconds", 0.0) for mark in item.iter_markers("slow")), default=0.0)


def _starts_cluster(item: pytest.Item) -> bool:
    return item.get_closest_marker("ray") is not None
