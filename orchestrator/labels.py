"""Short names of arms: the block, what varies among the arms of that block, and where it sits if that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LONGEST_NUMBER = 7


def labels(items: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """One label per `(resolved content, setting of the axes)`; two arms may still get the same one."""
    names = [_name(content) for content, _ in items]
    shown = [_shown(setting) for _, setting in items]
    places = [_place(content["insertion"]) for content, _ in items]
    varied = _varied(names, shown)
    moved = len({place for place, name in zip(places, names, strict=True) if name != "none"}) > 1
    found = []
    for name, parts, place in zip(names, shown, places, strict=True):
        chosen = [f"{path}={value}" for path, value in parts.items() if (name, path) in varied]
        found.append(" ".join([name, *chosen, *([f"@{place}"] if moved and place else [])]))
    return found


def _name(content: Mapping[str, Any]) -> str:
    block = content["block"]
    return str(block.get("name", "?")) if isinstance(block, Mapping) else str(block)


def _varied(names: Sequence[str], shown: Sequence[Mapping[str, str]]) -> set[tuple[str, str]]:
    """`(block, path)` where not all arms of that block have one value; not set counts as a value."""
    counts: dict[str, int] = {}
    values: dict[tuple[str, str], list[str]] = {}
    for name, parts in zip(names, shown, strict=True):
        counts[name] = counts.get(name, 0) + 1
        for path, value in parts.items():
            values.setdefault((name, path), []).append(value)
    varied = {key for key, found in values.items() if len(set(found)) > 1 or len(found) < counts[key[0]]}
    return varied - {key for key in varied if _told_by_name(key, varied, names, shown)}


def _told_by_name(
    key: tuple[str, str], varied: set[tuple[str, str]], names: Sequence[str], shown: Sequence[Mapping[str, str]]
) -> bool:
    """Whether the name of the backbone (recipe, ...) tells this field of it in every arm of the block."""
    block, path = key
    root, dot, _ = path.partition(".")
    if not dot or (block, root) not in varied:
        return False
    told: dict[str | None, set[str | None]] = {}
    for name, parts in zip(names, shown, strict=True):
        if name == block:
            told.setdefault(parts.get(root), set()).add(parts.get(path))
    return all(len(found) == 1 for found in told.values())


def _shown(setting: Mapping[str, Any]) -> dict[str, str]:
    """What an axis setting chose, by short path, as text; the block's name and place are shown otherwise."""
    flat: dict[str, Any] = {}
    for path, value in setting.items():
        if isinstance(value, Mapping) and path != "insertion":
            flat.update({f"{path}.{key}": item for key, item in value.items()})
        else:
            flat[path] = value
    hidden = [path for path in flat if path in ("block", "block.name") or path.partition(".")[0] == "insertion"]
    return {_short_path(path): _short(value) for path, value in flat.items() if path not in hidden}


def _short_path(path: str) -> str:
    """`block.k` is `k`, `backbone.name` is `backbone`."""
    return path.removeprefix("block.").removesuffix(".name")


def _place(insertion: Any) -> str:
    if not isinstance(insertion, Mapping):
        return str(insertion)
    return "+".join(f"{stage}{_units(units)}" for stage, units in insertion.items())


def _units(units: Any) -> str:
    if units == "all":
        return "[all]"
    if not isinstance(units, list | tuple):
        return f"[{units}]"
    return "" if list(units) == [0] else "[" + ",".join(map(str, units)) + "]"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(_short, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_short(item)}" for key, item in value.items())
    if isinstance(value, float) and len(str(value)) > LONGEST_NUMBER:  # drawn, not written by anybody
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)
