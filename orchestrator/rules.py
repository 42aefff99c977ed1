"""Conditions of `resources` that no arm can meet because what they ask about does not exist. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from blocks.registry import BUILTIN
from orchestrator.explain import did_you_mean
from orchestrator.sweep import ResourceRule, get_path
from workloads.backbones.config import BackboneConfig
from workloads.frozen import Frozen
from workloads.protocols import Protocol
from workloads.recipes import Recipe
from workloads.registry import WorkloadConfig
from workloads.spec import TrialSpec
from workloads.start import Start

MODELS: Mapping[str, type[Frozen]] = {
    "backbone": BackboneConfig,
    "protocol": Protocol,
    "recipe": Recipe,
    "start": Start,
    "workload": WorkloadConfig,
}


def misspelt(rules: Sequence[ResourceRule], arms: Sequence[Mapping[str, Any]], specs: Sequence[TrialSpec]) -> list[str]:
    """Paths in `when` that are no field of anything known, nor of these arms.

    Args:
        rules: of the sweep.
        arms: what conditions are asked about, of every arm.
        specs: of the arms that can exist.
    """
    found = []
    for number, rule in enumerate(rules):
        for path in rule.when:
            root, _, rest = path.partition(".")
            leaf = rest.partition(".")[0].partition("/")[0]
            known = _known(root, arms, specs) if leaf else {leaf}
            if leaf not in known:
                hint = did_you_mean(leaf, known) or f"; there are: {', '.join(sorted(known))}"
                found.append(f"resources[{number}].when: {path}: no {root} has a {leaf!r}{hint}")
    return found


def _known(root: str, arms: Sequence[Mapping[str, Any]], specs: Sequence[TrialSpec]) -> set[str]:
    given = (get_path(arm, root) for arm in arms)
    known = {str(key) for value in given if isinstance(value, Mapping) for key in value}
    if root == "insertion":
        return known | {stage for spec in specs for stage in spec.backbone.stages()}
    if root == "block":
        return known | {field.name for config, _ in BUILTIN.values() for field in fields(config)} | {"name"}
    return known | {name for model in _family(MODELS[root]) for name in model.model_fields}


def _family(model: type[Frozen]) -> Iterable[type[Frozen]]:
    yield model
    for kind in model.__subclasses__():
        yield from _family(kind)
