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

Place = Literal["conv1", "branch", "unit"]
Insertion = Mapping[str, "Sequence[int] | Literal['all']"]

PLACES: tuple[Place, ...] = get_args(Place)  # in the order in which features pass them


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
        name, slash, place = key.partition("/")
        if name not in stages:
            wrong.append(f"stage {name!r} does not exist in {config.name}: use one of {', '.join(stages)}")
            continue
        found, problems = _points(name, stages[name], place if slash else "unit", units)
        wrong += problems
        wrong += [f"{point} is named twice" for point in found if point in points]
        points += found
    if wrong:
        raise ValueError("; ".join(wrong))
    order = list(stages)
    return sorted(points, key=lambda point: (order.index(point.stage), point.unit, PLACES.index(point.place)))


def places(stage: Stage, name: str) -> tuple[Place, ...]:
    """The places that the units of this stage have."""
    if name == "head":
        return ("unit",)
    return PLACES if stage.first is not None else ("branch", "unit")


def _points(name: str, stage: Stage, place: str, units: Sequence[int] | str) -> tuple[list[InsertionPoint], list[str]]:
    allowed: dict[str, Place] = {known: known for known in places(stage, name)}
    if place not in allowed:
        return [], [f"place {place!r} does not exist in {name}: use {', '.join(allowed)}"]
    if isinstance(units, str) and units != "all":
        return [], [f"{name}: give a list of units or 'all', given {units!r}"]
    wanted = list(range(stage.units)) if isinstance(units, str) else list(units)
    outside = [unit for unit in wanted if not _is_unit(unit, stage)]
    if outside:
        return [], [f"{name} has units 0..{stage.units - 1}, given {outside}"]
    if len(set(wanted)) != len(wanted):
        return [], [f"{name}: the same unit twice in {list(wanted)}"]
    return [InsertionPoint(name, unit, allowed[place], _shape_at(stage, place, unit)) for unit in wanted], []


def _is_unit(unit: object, stage: Stage) -> bool:
    return isinstance(unit, int) and not isinstance(unit, bool) and 0 <= unit < stage.units


def _shape_at(stage: Stage, place: str, unit: int) -> Shape:
    if place != "conv1":
        return stage.shape
    inside = stage.first_of_stage if unit == 0 else stage.first
    assert inside is not None, "a stage with the place conv1 knows the map there"
    return inside
