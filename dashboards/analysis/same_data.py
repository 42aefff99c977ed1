"""Which arm each arm is compared with: one that was judged on the same data.

A sweep may hold several data sets (a table of a paper does), or several splits or draws of one. An accuracy on one
says nothing about an accuracy on another, so an arm on other data than the sweep's control is compared with the
control's like there: the arm that has the control's block and differs least from it otherwise. Where there is none,
there is nothing to compare it with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.judged import JUDGED_ON, judged_on

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
    data = dict(zip(specs, data_of(list(specs.values())), strict=True))
    found: dict[str, str | None] = {data[controls[0]]: controls[0]}
    for each in data.values():
        if each not in found:
            like = [arm for arm, spec in specs.items() if data[arm] == each and spec["block"] == control["block"]]
            found[each] = min(like, key=lambda arm: _unlike(specs[arm], control), default=None)
    return {arm: found[each] for arm, each in data.items()}


def data_of(specs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the accuracies of each arm of a sweep are of, in words: the same words where it is the same.

    That is the data set, which split of it where there are several, and what else differs among the arms on it that
    says which clips are judged: `digits keys=3`.
    """
    found = [judged_on(spec.get("workload") or {}) for spec in specs]
    values: dict[tuple[str, str], set[str]] = {}
    for judged in found:
        for name in JUDGED_ON:
            values.setdefault((str(judged.get("name")), name), set()).add(_written(judged.get(name)))

    def words(judged: Mapping[str, Any]) -> str:
        data = str(judged.get("name"))
        split = f" split {judged['split']}" if "split" in judged else ""
        rest = (name for name in JUDGED_ON if name not in ("name", "split") and len(values[data, name]) > 1)
        return data + split + "".join(f" {name}={_written(judged.get(name))}" for name in rest)

    return [words(judged) for judged in found]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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
