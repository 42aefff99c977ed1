"""Means over the splits of a data set, as papers print them: arms that differ in nothing but the split, as one.

A seed's number is its mean over the splits, which exists once it has finished on all of them. So the spread over seeds
is that of training; how much the splits differ is no part of it. A group that lacks a split the others have is left
out: a mean over other splits is another number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from dashboards.analysis.same_data import data_of
from orchestrator.judged import judged_on


def groups(arms: pd.DataFrame) -> dict[str, list[str]]:
    """First arm_id of a group -> all of them, in the plan's order; nothing where no arms differ in the split alone.

    Args:
        arms: with `spec`.
    """
    if len({str(_split(spec)) for spec in arms["spec"]}) < 2:
        return {}  # almost every sweep
    found: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    data: dict[str, str] = {}
    every: dict[str, set[str]] = {}
    for arm, spec in zip(map(str, arms.index), arms["spec"], strict=True):
        rest = _without_split(spec)
        splits[arm] = str(_split(spec))
        data[arm] = json.dumps(judged_on(rest["workload"]), sort_keys=True)
        every.setdefault(data[arm], set()).add(splits[arm])
        found.setdefault(json.dumps(rest, sort_keys=True), []).append(arm)
    whole = (members for members in found.values() if {splits[arm] for arm in members} == every[data[members[0]]])
    return {members[0]: members for members in whole if len(members) > 1}


def means(values: pd.DataFrame, members: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """`[groups, seeds]` from `[arms, seeds]`: means over the splits, NaN where one is missing."""
    rows = {first: values.loc[list(arms)].mean(axis=0, skipna=False) for first, arms in members.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=values.columns, dtype=float)


def references(members: Mapping[str, Sequence[str]], compared_with: Mapping[Any, str | None]) -> dict[str, str | None]:
    """Group -> the group it is compared with, by what its arms are compared with; None where that is in no group."""
    of = {arm: first for first, arms in members.items() for arm in arms}
    found = {}
    for first, arms in members.items():
        wanted = {of.get(str(compared_with[arm])) for arm in arms}
        found[first] = wanted.pop() if len(wanted) == 1 else None
    return found


def label(text: str) -> str:
    """An arm's label without what it says about the split."""
    return re.sub(r"\s*\bworkload\.split=\S+", "", text)


def words(arms: pd.DataFrame, members: Mapping[str, Sequence[str]]) -> list[str]:
    """The data of each group: `ucf101, mean of splits 1, 2, 3`."""
    data = data_of([_without_split(spec) for spec in arms.loc[list(members), "spec"]])
    splits = [sorted({_split(spec) for spec in arms.loc[list(each), "spec"]}, key=_order) for each in members.values()]
    return [f"{name}, mean of splits {', '.join(map(str, each))}" for name, each in zip(data, splits, strict=True)]


def _split(spec: Mapping[str, Any]) -> Any:
    return (spec.get("workload") or {}).get("split")


def _without_split(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec, "workload": {key: value for key, value in (spec.get("workload") or {}).items() if key != "split"}}


def _order(split: Any) -> tuple[bool, Any]:
    return (isinstance(split, str), split)
