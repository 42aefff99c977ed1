"""The axes of a sweep as a design: which arm has which value on which axis, spelled as on charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from dashboards.text import setting

ATOMIC = ("insertion",)  # mappings that are one choice, not several


def design(arms: pd.DataFrame) -> pd.DataFrame:
    """`[arms, axes]` of texts: every path that the sweep's settings name, resolved in each arm's full configuration.

    A path an arm's configuration does not have (another block's setting) is None.
    """
    paths = dict.fromkeys(path for settings in arms["settings"] for path in _paths(settings))
    columns = {path: [_spell(_at(spec, path)) for spec in arms["spec"]] for path in paths}
    return pd.DataFrame(columns, index=arms.index, dtype=object)


def varying(table: pd.DataFrame) -> list[str]:
    """The axes of a design on which its arms differ and all have a value."""
    return [str(path) for path in table if table[path].notna().all() and table[path].nunique() > 1]


def families(arms: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Block name -> design of its arms on the axes that vary among them; blocks with one arm are left out."""
    table, found = design(arms), {}
    for block, group in arms.groupby("block", sort=False):
        part = table.loc[group.index]
        axes = varying(part)
        if len(group) > 1 and axes:
            found[str(block)] = part[axes]
    return found


def short(path: str, value: str) -> str:
    """One axis value as a chart's row names it: "n=4", "@res3[0]"."""
    return f"@{value}" if path == "insertion" else f"{plain(path)}={value}"


def plain(path: str) -> str:
    """An axis without the prefix that all of a block's settings share; which block it is, is called "block"."""
    return path.removesuffix(".name").removeprefix("block.")


def _paths(settings: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for path, value in settings.items():
        if isinstance(value, Mapping) and path not in ATOMIC:
            found += [f"{path}.{key}" for key in value]
        elif path in ("block", "backbone", "workload"):
            found.append(f"{path}.name")
        else:
            found.append(path)
    return found


def _at(spec: Mapping[str, Any], path: str) -> Any:
    node: Any = spec
    for key in path.split("."):
        if not isinstance(node, Mapping) or key not in node:
            return None
        node = node[key]
    return node


def _spell(value: Any) -> str | None:
    return None if value is None else setting(value)
