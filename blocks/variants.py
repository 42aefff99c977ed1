"""Which configs a block is checked with: the default and what differs from it in one choice; and a map for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from itertools import product
from typing import Any, Literal, get_args, get_origin, get_type_hints

from blocks.configs import BlockConfig, Shape


def variants(config: BlockConfig) -> list[BlockConfig]:
    """`config` and every valid config that differs from it in one Literal or bool field."""
    hints = get_type_hints(type(config))
    found = [config]
    for field in fields(config):
        hint = hints[field.name]
        options = get_args(hint) if get_origin(hint) is Literal else (False, True) if hint is bool else ()
        if field.name != "implementation":
            found += [valid for option in options if (valid := _changed(config, field.name, option))]
    return found


def resized(config: BlockConfig) -> list[BlockConfig]:
    """At most two configs per whole number (or tuple of them, such as a kernel): about half and twice as large.

    Only valid ones that fit a usual map: a number that has to be odd or a divisor finds the next one that is.
    """
    found: list[BlockConfig] = []
    for field in fields(config):
        for sizes in _sizes(getattr(config, field.name)):
            options = (_changed(config, field.name, size) for size in sizes)
            found += [option for option in options if option and option not in found and fitting_shape(option)][:1]
    return found


def fitting_shape(config: BlockConfig) -> Shape | None:
    """The first usual map without problems: distinct prime sides where the block allows them."""
    channels = (48, 96, 64, 128, 256, 512)  # a sixteenth of 48 and a 32nd of 96 are more than two
    sides = ((3, 7, 5), (4, 7, 5), (8, 7, 5), (3, 11, 13), (4, 11, 13), (8, 23, 19))
    shapes = (Shape(c, *side) for side, c in product(sides, channels))
    return next((shape for shape in shapes if not config.problems(shape)), None)


def _changed(config: BlockConfig, field: str, value: object) -> BlockConfig | None:
    """`config` with another value in one field; None where it is the same or not valid."""
    try:
        changed = replace(config, **{field: value})
    except ValueError:
        return None  # an option that excludes another choice is no variant
    return None if changed == config else changed


def _sizes(value: Any) -> Iterator[tuple[Any, Any]]:
    """About half and about twice a positive whole number or a tuple of them, even and odd; nothing for other values."""
    if _whole(value):
        yield _each(value, lambda n: max(1, n // 2)), _each(value, lambda n: n // 2 + 1)
        yield _each(value, lambda n: 2 * n), _each(value, lambda n: 2 * n + 1)


def _whole(value: object) -> bool:
    if isinstance(value, tuple):
        return bool(value) and all(map(_whole, value))
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _each(value: Any, change: Callable[[int], int]) -> Any:
    return tuple(_each(part, change) for part in value) if isinstance(value, tuple) else change(value)
