"""What takes minutes starts first, on every worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from order import long_first


class Item:
    def __init__(self, name: str, *marks: Any) -> None:
        self.name, self.marks = name, marks

    def iter_markers(self, name: str) -> Iterator[Any]:
        return (mark.mark for mark in self.marks if mark.name == name)

    def get_closest_marker(self, name: str) -> Any:
        return next(self.iter_markers(name), None)


def a_run(quick: int) -> list[Any]:
    long = [
        Item("compiled", pytest.mark.slow, pytest.mark.slow(seconds=200)),
        Item("chaos", pytest.mark.slow(seconds=70), pytest.mark.ray),
        Item("lost", pytest.mark.slow(seconds=110), pytest.mark.ray),
        Item("resumed", pytest.mark.slow(seconds=50)),
        Item("browser", pytest.mark.slow),
    ]
    return [item for number in range(quick) for item in (Item(f"quick {number}"), *long[number : number + 1])]


def names(items: list[Any], workers: int) -> list[list[str]]:
    """What xdist's worksteal gives each worker at first."""
    told, parts = [item.name for item in long_first(items, workers)], []
    for left in range(workers, 0, -1):
        parts.append(told[: len(told) // left])
        told = told[len(told) // left :]
    return parts


def test_clusters_are_on_one_worker_and_the_others_share_the_rest() -> None:
    parts = names(a_run(quick=12), 3)
    assert [part[:2] for part in parts] == [["lost", "chaos"], ["compiled", "quick 3"], ["resumed", "quick 7"]]
    assert parts[0][2:] == ["quick 0", "quick 1", "quick 2"]


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
def test_every_test_runs_once_and_those_without_seconds_keep_their_order(workers: int) -> None:
    items = a_run(quick=9)
    told = [item.name for item in long_first(items, workers)]
    assert sorted(told) == sorted(item.name for item in items)
    kept = [item.name for item in items if item.name.startswith(("quick", "browser"))]
    assert [name for name in told if name in kept] == kept
