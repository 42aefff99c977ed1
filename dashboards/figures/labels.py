"""Which points of a chart are named, and on which side of them the name stands, so that no two names overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HEIGHT, ABOVE = 0.055, 0.02  # of a line of text, and of the gap below it, as shares of the plot's height
BELOW = 0.05  # how far below a name another point seems to be meant
ROOM = 0.03  # how far a name may reach beyond the outermost points


@dataclass(frozen=True)
class Place:
    """Where a point lies, as shares of the plot's width and height, and its name."""

    x: float
    y: float
    name: str


@dataclass(frozen=True)
class Label:
    """`at` is the place of the named point in the list; the name runs to the right of it, or to the left."""

    at: int
    rightwards: bool


Box = tuple[float, float, float, float]  # left, bottom, right, top


def arrange(places: Sequence[Place], named: Sequence[int], fits: int, most: int) -> list[Label]:
    """Name as many points as fit without overlap, the first first.

    Args:
        places: every point of the chart; names avoid them where they can.
        named: indices of those that should be named, in order of importance.
        fits: how many characters go across the plot.
        most: so many names at most.
    """
    taken: list[Box] = []
    found: list[Label] = []
    for at in named:
        free = [
            (_covered(box, places, at), label.rightwards == (places[at].x > 0.5), label, box)
            for label, box in _sides(places[at], at, fits)
            if not any(_overlap(box, other) for other in taken)
        ]
        if free and len(found) < most:
            _, _, label, box = min(free, key=lambda each: each[:2])
            taken.append(box)
            found.append(label)
    return found


def _sides(place: Place, at: int, fits: int) -> Iterator[tuple[Label, Box]]:
    """Both sides on which the name stays inside the plot."""
    width = len(place.name) / fits
    bottom = place.y + ABOVE
    for rightwards, left in ((True, place.x), (False, place.x - width)):
        if left >= -ROOM and left + width <= 1 + ROOM:
            yield Label(at, rightwards), (left, bottom, left + width, bottom + HEIGHT)


def _covered(box: Box, places: Sequence[Place], own: int) -> int:
    """How many other points the name would cover, or stand above as if it were theirs."""
    left, bottom, right, top = box
    return sum(left < each.x < right and bottom - BELOW < each.y < top for at, each in enumerate(places) if at != own)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
