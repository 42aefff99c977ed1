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
# What the control's like should share with it, first things first.
ALIKE = ("backbone", "recipe", "protocol", "insertion")


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
    found: dict[str, str | None] = {data_of(control): controls[0]}
    for data in map(data_of, specs.values()):
        if data not in found:
            like = [arm for arm, spec in specs.items() if data_of(spec) == data and spec["block"] == control["block"]]
            found[data] = min(like, key=lambda arm: _unlike(specs[arm], control), default=None)
    return {arm: found[data_of(spec)] for arm, spec in specs.items()}


def data_of(spec: Mapping[str, Any]) -> str:
    """What an arm's accuracies are of, in words: its data set, and which split of it where there are several."""
    workload = spec.get("workload") or {}
    name, split = workload.get("name"), workload.get("split")
    return str(name) if split is None else f"{name} split {split}"


def of_reference(table: pd.DataFrame, column: str) -> pd.Series:
    """Per arm of `Sweep.table`: a number of the arm it is compared with, NaN where there is none."""
    return table["compared_with"].map(table[column]).astype(float)


def best_first(table: pd.DataFrame, *, higher_is_better: bool) -> pd.DataFrame:
    """Rows of `Sweep.table` by their mean, those without one last; the control's data before others, never mixed."""
    ranked = table.sort_values("mean", ascending=not higher_is_better, na_position="last", kind="stable")
    first = [*table.loc[table["is_control"], "data"], *table["data"]]
    places = {data: at for at, data in enumerate(dict.fromkeys(first))}
    return ranked.sort_values("data", key=lambda column: column.map(places), kind="stable")


def cannot_compare(first: str, second: str, data: tuple[str, str]) -> str:
    """Why two arms, by label, have no difference."""
    return (
        f"{first} was judged on {data[0]}, {second} on {data[1]}: an accuracy on one says nothing about one on the "
        "other, so they cannot be compared. Choose two arms on the same data."
    )


def _unlike(spec: Mapping[str, Any], control: Mapping[str, Any]) -> tuple[bool, ...]:
    return tuple(spec.get(part) != control.get(part) for part in ALIKE)
