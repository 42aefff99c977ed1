"""The axis algebra: what a sweep varies, as an expression that expands to a list of settings.

A setting maps dotted paths to values, ``{"block.kernel": [3, 7, 7]}``. An expression is a mapping of operators:

=================  =============================================================================================
``grid``           product of lists: ``{block.g1: [4, 8], block.g2: [2, 4]}`` gives four settings
``zip``            paired lists of equal length
``one_at_a_time``  the base, then each factor varied alone
``list``           settings written out
``any_of``         union of expressions
``all_of``         product of expressions, left to right
``when``           the expression counts only where these settings hold, else it is neutral
``exclude``        drop settings that match any of these rules
=================  =============================================================================================

Several operators in one mapping multiply, in the order written. A condition (in ``when`` and ``exclude``) maps paths
to a value, or to a list of values any of which matches; what is not set by an axis is looked up in the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

from orchestrator.explain import did_you_mean

Setting = dict[str, Any]
Lookup = Callable[[str], Any]

OPERATORS = ("grid", "zip", "one_at_a_time", "list", "any_of", "all_of", "when", "exclude")


def expand(expression: Mapping[str, Any], base: Lookup) -> list[Setting]:
    """Every setting of `expression`, in the order written.

    Args:
        expression: a valid expression (see `problems`).
        base: value of a dotted path where no axis sets it; None where there is none.
    """
    return list(_expand(expression, {}, base))


def paths(expression: Mapping[str, Any]) -> list[str]:
    """Every dotted path the expression can set, once, in order of first appearance."""
    found: dict[str, None] = {}
    for operator, body in expression.items():
        if operator in ("grid", "zip", "one_at_a_time"):
            found.update(dict.fromkeys(body))
        elif operator == "list":
            for setting in body:
                found.update(dict.fromkeys(setting))
        elif operator in ("any_of", "all_of"):
            for part in body:
                found.update(dict.fromkeys(paths(part)))
    return list(found)


def conditions(expression: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Every dotted path that `when` and `exclude` ask about, once, and whether null, which is no value, will do too."""
    found: dict[str, bool] = {}
    for rule in (expression.get("when", {}), *expression.get("exclude", ())):
        for path, wanted in rule.items():
            found[path] = found.get(path, False) or _is_one_of(None, wanted)
    for operator in ("any_of", "all_of"):
        for part in expression.get(operator, ()):
            found = {**dict(conditions(part)), **found}
    return list(found.items())


def most(expression: Mapping[str, Any]) -> int:
    """How many settings a valid expression gives at most: exactly so many without `when` and `exclude`."""
    return max(1, prod(_most(operator, body) for operator, body in expression.items()))


def _most(operator: str, body: Any) -> int:
    if operator in ("when", "exclude"):
        return 1
    if operator == "grid":
        return prod(len(values) for values in body.values())
    if operator == "zip":
        return len(next(iter(body.values())))
    if operator == "one_at_a_time":
        return 1 + sum(len(values) for values in body.values())
    if operator == "list":
        return len(body)
    return (sum if operator == "any_of" else prod)(map(most, body))


def problems(expression: Any, place: str = "axes") -> list[str]:
    """Everything that is wrong with an expression, each with its place; empty if it can be expanded."""
    if not isinstance(expression, Mapping):
        return [f"{place}: must be a mapping of {', '.join(OPERATORS)}, given {expression!r}"]
    found = []
    for operator, body in expression.items():
        here = f"{place}.{operator}"
        if operator not in OPERATORS:
            hint = did_you_mean(str(operator), OPERATORS)
            found.append(f"{here}: unknown operator, allowed: {', '.join(OPERATORS)}{hint}")
        elif operator in ("any_of", "all_of"):
            found += _expression_list_problems(body, here)
        elif operator in ("list", "exclude"):
            found += _setting_list_problems(body, here)
        elif operator == "when":
            found += [] if isinstance(body, Mapping) else [f"{here}: must map paths to values, given {body!r}"]
        else:
            found += _factor_problems(operator, body, here)
    return found


def matches(condition: Mapping[str, Any], value_of: Lookup) -> bool:
    """Whether every path of `condition` has the value, or one of the values, it asks for."""
    return all(_is_one_of(value_of(path), wanted) for path, wanted in condition.items())


def _expand(expression: Mapping[str, Any], context: Setting, base: Lookup) -> Iterator[Setting]:
    def value_of(setting: Setting) -> Lookup:
        return lambda path: _lookup(path, {**context, **setting}, base)

    if "when" in expression and not matches(expression["when"], value_of({})):
        yield {}
        return
    partial: list[Setting] = [{}]
    for operator, body in expression.items():
        if operator in ("when", "exclude"):
            continue
        partial = [{**left, **right} for left in partial for right in _apply(operator, body, {**context, **left}, base)]
    rules = expression.get("exclude", ())
    for setting in partial:
        if not any(matches(rule, value_of(setting)) for rule in rules):
            yield setting


def _apply(operator: str, body: Any, context: Setting, base: Lookup) -> list[Setting]:
    if operator == "grid":
        return [dict(zip(body, values, strict=True)) for values in product(*body.values())]
    if operator == "zip":
        return [dict(zip(body, values, strict=True)) for values in zip(*body.values(), strict=True)]
    if operator == "one_at_a_time":
        return [{}, *({path: value} for path, values in body.items() for value in values)]
    if operator == "list":
        return [dict(setting) for setting in body]
    if operator == "any_of":
        return [setting for part in body for setting in _expand(part, context, base)]
    settings: list[Setting] = [{}]
    for part in body:
        settings = [{**left, **right} for left in settings for right in _expand(part, {**context, **left}, base)]
    return settings


def _lookup(path: str, setting: Setting, base: Lookup) -> Any:
    """The value at `path`: set directly, inside a value that was set for a parent, or in the base."""
    if path in setting:
        return setting[path]
    parent, _, leaf = path.rpartition(".")
    if parent and parent in setting:
        node = setting[parent]
        return node.get(leaf) if isinstance(node, Mapping) else (node if leaf == "name" else None)
    return base(path)


def _is_one_of(value: Any, wanted: Any) -> bool:
    if value == wanted:
        return True
    return isinstance(wanted, list) and value in wanted


def _expression_list_problems(body: Any, place: str) -> list[str]:
    if not isinstance(body, Sequence) or isinstance(body, str) or not body:
        return [f"{place}: must be a list of expressions, given {body!r}"]
    return [problem for index, part in enumerate(body) for problem in problems(part, f"{place}[{index}]")]


def _setting_list_problems(body: Any, place: str) -> list[str]:
    if not isinstance(body, Sequence) or isinstance(body, str) or not body:
        return [f"{place}: must be a list of mappings from path to value, given {body!r}"]
    return [
        f"{place}[{index}]: must map paths to values, given {setting!r}"
        for index, setting in enumerate(body)
        if not isinstance(setting, Mapping)
    ]


def _factor_problems(operator: str, body: Any, place: str) -> list[str]:
    if not isinstance(body, Mapping) or not body:
        return [f"{place}: must map paths to lists of values, given {body!r}"]
    found = [
        f"{place}.{path}: must be a list of values with at least one, given {values!r}"
        for path, values in body.items()
        if not isinstance(values, list) or not values
    ]
    if not found and operator == "zip" and len({len(values) for values in body.values()}) > 1:
        lengths = ", ".join(f"{path} has {len(values)}" for path, values in body.items())
        found.append(f"{place}: paired lists need equal lengths, given {lengths}")
    return found
