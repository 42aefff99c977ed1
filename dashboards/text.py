"""Numbers and settings as people read them; one way everywhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

LEVEL = 0.95  # the confidence level of every interval and verdict
MISSING = "–"
UNSET: tuple[Any, ...] = (None, [], {})
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def quantity(value: float, unit: str) -> str:
    """Three significant digits with a prefix: 1234567, "MACs" -> "1.23 MMACs". Parameters have no unit: "152 k"."""
    if not math.isfinite(value):
        return MISSING
    if unit == "s":
        return duration(value)
    for size, prefix in PREFIXES:
        if abs(value) >= size and unit not in ("ms", "%", "GFLOPs"):
            return f"{_digits(value / size)} {prefix}{unit}"
    return f"{_three(value)} {unit}".strip()


def duration(seconds: float) -> str:
    """Seconds as "7.3 s", "4 min 05 s" or "3 h 20 min"."""
    if not math.isfinite(seconds):
        return MISSING
    if seconds < 99.5:
        return f"{_three(seconds)} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def number(value: float, digits: int = 1) -> str:
    """A value with `digits` decimals; a true minus, and no "−0.0"."""
    return signed(value, digits).removeprefix("+")


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign; a true minus, and no "−0.0"."""
    if not math.isfinite(value):
        return MISSING
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def interval(low: float, high: float, digits: int = 1, *, sign: bool = False) -> str:
    """[low, high]; a dash where it is undefined."""
    show = signed if sign else number
    return f"[{show(low, digits)}, {show(high, digits)}]" if math.isfinite(low) and math.isfinite(high) else MISSING


def p_value(value: float) -> str:
    """Three decimals, "< 0.001" below."""
    if not math.isfinite(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_said(value: float) -> str:
    """p = 0.101, p < 0.001."""
    shown = p_value(value)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def unbroken(sentence: str) -> str:
    """A sentence whose numbers stay on one line with their units."""
    return re.sub(r"(?<=\d) (?=[×%]|points?\b)", "\N{NO-BREAK SPACE}", sentence)


def count(number_of: int, noun: str) -> str:
    """1 trial, 2 trials."""
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"


def setting(value: Any) -> str:
    """A setting's value on a chart: [3, 7, 7] -> "3×7×7"; {"res3": [1, 3]} -> "res3[1,3]"; {"res3": [0]} -> "res3"."""
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple) and value:
        if all(isinstance(each, int) and not isinstance(each, bool) for each in value):
            return "×".join(map(str, value))
        if all(isinstance(each, str | Mapping) for each in value):
            return " + ".join(map(setting, value))
    return json.dumps(value, sort_keys=True)


def _mapping(value: Mapping[str, Any]) -> str:
    """One with a name, places in a network, or settings of a recipe, backbone or workload."""
    if "name" in value:
        rest = _pairs({key: each for key, each in value.items() if key != "name"})
        return f"{value['name']}({rest})" if rest else str(value["name"])
    if _is_places(value):
        return " + ".join(_stage(key, units) for key, units in value.items()) or "nowhere"
    return _pairs(value)


def _is_places(value: Mapping[str, Any]) -> bool:
    return all(isinstance(units, list | tuple) or units == "all" for units in value.values())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(_pair(key, each) for key, each in values.items())


def _pair(key: str, value: Any) -> str:
    """A part's settings keep its name in front: {"recipe": {"epochs": 8}} is "recipe.epochs=8"."""
    if isinstance(value, Mapping) and "name" not in value and not _is_places(value):
        return _pairs({f"{key}.{inner}": each for inner, each in value.items()})
    return f"{key}={setting(value)}"


def settings_line(settings: Mapping[str, Any]) -> str:
    """All settings on one line: "block.kernel=3×7×7, insertion=res3[0]"."""
    return _pairs(settings)


PARTS = ("block", "insertion", "backbone", "workload", "recipe", "protocol", "start")


def configuration(spec: Mapping[str, Any]) -> list[str]:
    """A full configuration, a line per part: "block: nl, heads=1"; what is not set is left out."""
    order = sorted(spec, key=lambda part: PARTS.index(part) if part in PARTS else len(PARTS))
    return [f"{part}: {_part(spec[part])}" for part in order if spec[part] not in UNSET or part == "insertion"]


def _part(value: Any) -> str:
    if not isinstance(value, Mapping) or "name" not in value:
        return setting(value)
    rest = _pairs({key: each for key, each in value.items() if key != "name" and each not in UNSET})
    return f"{value['name']}, {rest}" if rest else str(value["name"])


def _stage(key: str, units: Any) -> str:
    if list(units) == [0]:
        return str(key)
    if isinstance(units, list | tuple):
        return f"{key}[{','.join(map(str, units))}]"
    return f"{key}[{units}]"


def _three(value: float) -> str:
    """Three significant digits without an exponent."""
    if value == 0:
        return "0"
    text = _digits(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _digits(value: float) -> str:
    """Three significant digits, zeros at the end too: numbers below each other are equally exact."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
