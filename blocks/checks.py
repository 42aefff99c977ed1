"""What the block configs check: types, bounds, divisibility. Each check returns messages: given, allowed. No torch."""

from __future__ import annotations

import math
import types
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def unknown_field(key: str, known: list[str]) -> str:
    """What to say about a field that does not exist."""
    close = get_close_matches(key, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown field {key!r}, allowed: {', '.join(known) or '(none)'}{hint}"


def wrong_types(config: Any) -> list[str]:
    """Every field of a dataclass whose value is not of the annotated type, with what it must be."""
    kind: Any = type(config)
    hints = _hints(kind)
    found = []
    for field in fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            found.append(f"{field.name} must be {_spell(hint)}, given {value!r}")
    return found


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in get_args(hint))
    if origin is tuple:
        parts = get_args(hint)
        if isinstance(value, tuple) and parts[-1] is Ellipsis:
            parts = parts[:1] * len(value)
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, hint)


def _spell(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        first, *rest = get_args(hint)
        if rest == [Ellipsis]:
            return f"a list, each item {_spell(first)}"
        return f"a list of {1 + len(rest)} {first.__name__}s"
    return str(getattr(hint, "__name__", hint))


def below(config: object, **least: int) -> list[str]:
    """Every named field that is smaller than its bound."""
    values = ((key, getattr(config, key), bound) for key, bound in least.items())
    return [f"{key} must be at least {bound}, given {value}" for key, value, bound in values if value < bound]


def indivisible(channels: int, by: int, what: str, *, multiple_of: int = 1) -> list[str]:
    """Why `channels` cannot be divided by `by`, and what could divide them; empty if it can."""
    if channels % by == 0:
        return []
    allowed = [d for d in range(multiple_of, min(channels, 64) + 1, multiple_of) if channels % d == 0]
    use = f"use one of {allowed}" if allowed else f"no multiple of {multiple_of} divides them"
    return [f"{channels} channels are not divisible by {what}={by}: {use}"]


def too_small_to_pool(height: int, width: int, *, pooled: bool) -> list[str]:
    """Why a map cannot be pooled by (1, 2, 2); empty if it can or need not."""
    if pooled and min(height, width) < 2:
        return [f"sub_sample needs a map of at least 2 x 2, given {height} x {width}: turn sub_sample off"]
    return []


def no_clips(size: Sequence[int], channels: int) -> list[str]:
    """Why a tensor of this size is no batch of maps with so many channels, and what would be; empty if it is."""
    if len(size) != 5:
        how = "a clip alone is x[None], frames alone are x[:, :, None]"
        return [f"x must have the 5 axes [B, C, T, H, W], given {len(size)}: {list(size)}; {how}"]
    if size[1] != channels:
        how = "build it with the Shape of this map, or insert it elsewhere"
        return [f"x must have the {channels} channels it was built for, given {size[1]} in {list(size)}: {how}"]
    if min(size) < 1:
        return [f"x must hold at least one clip, frame, row and column, given {list(size)}: leave out what is empty"]
    return []
