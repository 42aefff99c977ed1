"""Which arm each arm is compared with: one that was judged on the same data.

A sweep may hold several data sets (a table of a paper does), or several splits of one. An accuracy on one says nothing
about an accuracy on another, so an arm on other data than the sweep's control is compared with the control's like
there: the arm that has the control's block and differs least from it otherwise. Where there is none, there is nothing
to compare it with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

NO_CONTROL = "on other data than the control, and nothing there to compare it with"
ALIKE = (
    "backbone",
    "recipe",
    "protocol",
    "insertion",
)  # what the control's like should share with it, first things first


def references(arms: pd.DataFrame) -> dict[str, str | None]:
    """arm_id -> the arm it is compared with; None where there is none.

    Args:
        arms: in the plan's order, with `is_control` and `spec`.
    """
    controls = [str(arm) for arm in arms.index[arms["is_control"]]]
    if not controls:
        return dict.fromkeys(map(str, arms.index))
    specs: dict[str, Mapping[str, Any]] = {str(arm): spec for arm, spec in arms["spec"].items()}
    control = specs[controls[0]]
    found: dict[tuple[Any, Any], str | None] = {_data(control): controls[0]}
    for data in map(_data, specs.values()):
        if data not in found:
            like = [arm for arm, spec in specs.items() if _data(spec) == data and spec["block"] == control["block"]]
            found[data] = min(like, key=lambda arm: _unlike(specs[arm], control), default=None)
    return {arm: found[_data(spec)] for arm, spec in specs.items()}


def _data(spec: Mapping[str, Any]) -> tuple[Any, Any]:
    workload = spec.get("workload") or {}
    return workload.get("name"), workload.get("split")


def _unlike(spec: Mapping[str, Any], control: Mapping[str, Any]) -> tuple[bool, ...]:
    return tuple(spec.get(part) != control.get(part) for part in ALIKE)
