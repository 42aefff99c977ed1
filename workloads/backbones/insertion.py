"""Where blocks go: the insertion grammar, resolved against a backbone's stages. No torch here.

``{res3: [1, 3], res4: [1, 3, 5]}`` puts a block after those residual units (0-based). A place inside the unit is
named after a slash: ``res3/conv1`` is after the unit's first convolution (CGD), ``res3/branch`` is on the residual
branch before the addition (SE). ``all`` means every unit of the stage. ``head: [0]`` is on the frame features in
front of the classifier (HG-NL and NL as aggregators).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

from blocks.configs import Shape
from workloads.backbones.config import BackboneConfig, Stage

Place = Literal["unit", "conv1", "branch"]
Insertion = Mapping[str, "Sequence[int] | Literal['all']"]


class InsertionPoint(NamedTuple):
    """One block's place: stage, residual unit (0-based), place in the unit, and the map there."""

    stage: str
    unit: int
    place: Place
    shape: Shape

    def __str__(self) -> str:
        return f"{self.stage}.{self.unit}" + ("" if self.place == "unit" else f"/{self.place}")


def insertion_points(config: BackboneConfig, insertion: Insertion) -> list[InsertionPoint]:
    """Every place that `insertion` names in this backbone, in network order.

    Raises:
        ValueError: unknown stage or place, or units that do not exist; all problems in one message.
    """
    stages = config.stages()
    points: list[InsertionPoint] = []
    wrong: list[str] = []
    for key, units in insertion.items():
        name, _, place = key.partition("/")
        place = place or "unit"
        if name not in stages:
            wrong.append(f"stage {name!r} does not exist in {config.name}: use one of {', '.join(stages)}")
        elif place not in get_args(Place):
            wrong.append(f"place {place!r} in {key!r} does not exist: use {', '.join(get_args(Place))}")
        else:
            found, problems = _units(name, stages[name], place, units)
            points += found
            wrong += problems
    if wrong:
        raise ValueError("; ".join(wrong))
    order = list(stages)
    return sorted(points, key=lambda point: (order.index(point.stage), point.unit, get_args(Place)[::-1].index(point.place)))


def _units(name: str, stage: Stage, place: str, units: Sequence[int] | str) -> tuple[list[InsertionPoint], list[str]]:
    if isinstance(units, str) and units != "all":
        return [], [f"{name}: give a list of units or 'all', given {units!r}"]
    wanted = range(stage.units) if units == "all" else list(units)
    outside = [unit for unit in wanted if not isinstance(unit, int) or not 0 <= unit < stage.units]
    if outside:
        return [], [f"{name} has units 0..{stage.units - 1}, given {outside}"]
    if len(set(wanted)) != len(wanted):
        return [], [f"{name}: the same unit twice in {list(wanted)}"]
    points = []
    for unit in wanted:
        shape = _shape_at(stage, place, unit)
        if shape is None:
            return [], [f"{name} has no place {place!r} in its units"]
        points.append(InsertionPoint(name, unit, place, shape))  # type: ignore[arg-type]
    return points, []


def _shape_at(stage: Stage, place: str, unit: int) -> Shape | None:
    if place == "conv1":
        return stage.first_of_stage if unit == 0 else stage.first
    return stage.shape
