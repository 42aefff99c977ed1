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


def groups(arms: pd.DataFrame) -> dict[str, list[str]]:
    """First arm_id of a group -> all of them, in the plan's order; nothing where no arms differ in the split alone.

    Args:
        arms: with `spec`.
    """
    if len({str((spec.get("workload") or {}).get("split")) for spec in arms["spec"]}) < 2:
        return {}  # almost every sweep
    found: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    data: dict[str, str] = {}
    for arm, spec in zip(map(str, arms.index), arms["spec"], strict=True):
        workload = dict(spec.get("workload") or {})
        splits[arm] = str(workload.pop("split", None))
        data[arm] = json.dumps(workload, sort_keys=True)
        found.setdefault(json.dumps({**spec, "workload": workload}, sort_keys=True), []).append(arm)
    every: dict[str, set[str]] = {}
    for arm, split in splits.items():
        every.setdefault(data[arm], set()).add(split)
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


def words(arms: pd.DataFrame, members: Sequence[str]) -> str:
    """The data of a group: `ucf101, mean of splits 1, 2, 3`."""
    workloads = [spec["workload"] for spec in arms.loc[list(members), "spec"]]
    return f"{workloads[0]['name']}, mean of splits {', '.join(str(each['split']) for each in workloads)}"
