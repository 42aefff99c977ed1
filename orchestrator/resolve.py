"""One setting of a sweep, made a complete trial and checked. No torch here.

Typing mistakes (unknown keys, blocks, stages) are errors of the file and are collected; configurations that cannot
exist (groups that do not divide, scales too small) are reasons for a rejection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from blocks.configs import InvalidChoice
from blocks.registry import parse_config
from orchestrator.errors import SweepError
from orchestrator.explain import explain
from orchestrator.sweep import Sweep, merge, set_path, with_name
from workloads.backbones.insertion import insertion_points
from workloads.fits import misfits
from workloads.protocols import parse_protocol
from workloads.recipes import parse_recipe
from workloads.registry import WorkloadConfig, parse_backbone, parse_workload
from workloads.spec import ModelSpec, TrialSpec

PARTS: Mapping[str, Callable[[Any], Any]] = {
    "backbone": parse_backbone,
    "block": parse_config,
    "recipe": parse_recipe,
    "protocol": parse_protocol,
}


def resolve(sweep: Sweep, setting: Mapping[str, Any], *, control: bool = False) -> dict[str, Any]:
    """One configuration of a sweep as a complete trial (seed 0): base, control or setting, and the workload's defaults.

    Raises:
        SweepError: the workload is missing or wrong; lists what is wrong with the other parts too.
    """
    given = merge(merge({}, sweep.base), sweep.control if control else {})
    for path, value in setting.items():
        set_path(given, path, value)
    workload = _workload(given, sweep.name)
    content = merge(workload.defaults(), given)
    # A wrong kind of value (a number for a block) goes on as it is: `check` says what is wrong with it.
    backbone = with_name(content.get("backbone", {}))
    shape = {"classes": workload.classes, "channels": workload.channels}
    content["backbone"] = {**shape, **backbone} if isinstance(backbone, Mapping) else backbone
    content["block"] = with_name(content.get("block", "none"))
    content["recipe"] = _complete(content.get("recipe", {}), parse_recipe)
    content["protocol"] = _complete(content.get("protocol", {}), parse_protocol)
    # Without a block the places mean nothing: all such arms are one.
    content["insertion"] = {} if content["block"] == {"name": "none"} else content.get("insertion", {})
    content["seed"] = 0
    return content


def check(content: Mapping[str, Any]) -> tuple[TrialSpec | None, list[str]]:
    """The validated trial, or the reasons why this configuration cannot exist.

    Raises:
        SweepError: typing mistakes: unknown keys, wrong types, unknown names or stages; lists all of them.
    """
    try:
        spec = TrialSpec.model_validate(content)
    except ValidationError as error:
        causes = [item.get("ctx", {}).get("error") for item in error.errors()]
        wrong_places = _insertion_mistakes(content)
        if not wrong_places and all(isinstance(cause, InvalidChoice) for cause in causes):
            return None, [str(cause) for cause in causes]
        raise SweepError("trial", [*explain(error), *wrong_places]) from None
    return (None, reasons) if (reasons := model_problems(spec) or misfits(spec)) else (spec, [])


def model_problems(spec: ModelSpec) -> list[str]:
    """Why the blocks of this network do not fit the maps they are inserted at.

    Raises:
        SweepError: the insertion names stages or units that do not exist.
    """
    found = spec.backbone.problems()
    if found:
        return found
    try:
        points = insertion_points(spec.backbone, spec.insertion)
    except ValueError as error:
        raise SweepError("trial", [f"insertion: {error}"]) from None
    if not points and spec.block.name != "none":
        raise SweepError(
            "trial", [f"insertion: block {spec.block.name!r} needs a place, e.g. insertion: {{res3: [1]}}"]
        )
    by_reason: dict[str, list[str]] = {}
    for point in points:
        for reason in spec.block.problems(point.shape):
            by_reason.setdefault(reason, []).append(str(point))
    return [f"{spec.block.name} at {', '.join(places)}: {reason}" for reason, places in by_reason.items()]


def _workload(given: Mapping[str, Any], source: str) -> WorkloadConfig:
    if "workload" not in given:
        problems = ["base.workload: required, but not given"]
    else:
        try:
            return parse_workload(given["workload"])
        except ValidationError as error:
            problems = explain(error, ("workload",))
        except ValueError as error:
            problems = [f"workload: {error}"]
    # Without a workload there is no complete trial, but its parts can be judged one by one.
    for key in PARTS:
        if key in given:
            problems += _part_mistakes(key, with_name(given[key]))
    raise SweepError(source, problems)


def _part_mistakes(key: str, given: Any) -> list[str]:
    try:
        PARTS[key](given)
    except InvalidChoice:
        return []
    except ValidationError as error:
        return explain(error, (key,))
    except ValueError as error:
        return [f"{key}: {error}"]
    return []


def _insertion_mistakes(content: Mapping[str, Any]) -> list[str]:
    """Stages and units that do not exist, in a trial that is wrong elsewhere too."""
    try:
        backbone = parse_backbone(content["backbone"])
        spec = ModelSpec(backbone=backbone, block=parse_config({"name": "none"}), insertion=content["insertion"])
    except ValueError:
        return []  # reported with the rest of the trial
    if backbone.problems():
        return []
    try:
        insertion_points(backbone, spec.insertion)
    except ValueError as error:
        return [f"insertion: {error}"]
    return []


def _complete(given: Any, parse: Callable[[Any], Any]) -> Any:
    """A recipe or protocol with its preset's values, so that conditions can ask for them."""
    try:
        return parse(given or {}).to_json()
    except ValueError:
        return given
