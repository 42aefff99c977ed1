"""The axis algebra: every operator, how they compose, and the laws that sizes obey."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.axes import conditions, expand, most, paths, problems

BASE = {"block.name": "rnl", "block.kernel": [3, 7, 7], "recipe.epochs": 4}


def expanded(expression: dict[str, Any]) -> list[dict[str, Any]]:
    assert problems(expression) == []
    return expand(expression, BASE.get)


def test_no_axes_is_the_base_alone() -> None:
    assert expanded({}) == [{}]


def test_grid_is_the_product_with_the_last_factor_fastest() -> None:
    assert expanded({"grid": {"a": [1, 2], "b": [3, 4]}}) == [
        {"a": 1, "b": 3},
        {"a": 1, "b": 4},
        {"a": 2, "b": 3},
        {"a": 2, "b": 4},
    ]


def test_zip_pairs() -> None:
    assert expanded({"zip": {"a": [1, 2], "b": [3, 4]}}) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]


def test_one_at_a_time_starts_at_the_base() -> None:
    assert expanded({"one_at_a_time": {"a": [1, 2], "b": [3]}}) == [{}, {"a": 1}, {"a": 2}, {"b": 3}]


def test_list_is_taken_as_written() -> None:
    assert expanded({"list": [{"a": 1}, {"b": [2, 3]}]}) == [{"a": 1}, {"b": [2, 3]}]


def test_any_of_joins_and_all_of_multiplies() -> None:
    left, right = {"grid": {"a": [1, 2]}}, {"list": [{"b": 3}, {"b": 4}]}
    assert expanded({"any_of": [left, right]}) == [{"a": 1}, {"a": 2}, {"b": 3}, {"b": 4}]
    assert expanded({"all_of": [left, right]}) == expanded({"grid": {"a": [1, 2], "b": [3, 4]}})


def test_operators_in_one_mapping_multiply_in_the_order_written() -> None:
    assert expanded({"list": [{"a": 1}], "grid": {"b": [2, 3]}}) == [{"a": 1, "b": 2}, {"a": 1, "b": 3}]


def test_later_factors_win_over_earlier_ones() -> None:
    assert expanded({"all_of": [{"grid": {"a": [1]}}, {"grid": {"a": [2]}}]}) == [{"a": 2}]


def test_when_asks_what_was_set_before_and_is_neutral_where_it_does_not_hold() -> None:
    blocks = {"grid": {"block": ["nl", "pnl"]}}
    scales = {"when": {"block.name": "pnl"}, "grid": {"block.n": [2, 4]}}
    assert expanded({"all_of": [blocks, scales]}) == [
        {"block": "nl"},
        {"block": "pnl", "block.n": 2},
        {"block": "pnl", "block.n": 4},
    ]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"block.name": "rnl"}, True),
        ({"block.name": ["nl", "rnl"]}, True),
        ({"block.kernel": [3, 7, 7]}, True),
        ({"block.kernel": [[1, 1, 1], [3, 7, 7]]}, True),
        ({"block.name": "rnl", "recipe.epochs": 5}, False),
        ({"block.missing": None}, True),
    ],
)
def test_conditions_look_into_the_base(condition: dict[str, Any], holds: bool) -> None:
    found = expanded({"when": condition, "grid": {"a": [1, 2]}})
    assert found == ([{"a": 1}, {"a": 2}] if holds else [{}])


def test_conditions_look_into_mappings_that_an_axis_set() -> None:
    grid = {"grid": {"block": [{"name": "pnl", "n": 2}, {"name": "pnl", "n": 3}, "nl"]}}
    assert expanded({**grid, "exclude": [{"block.n": 3}]}) == [{"block": {"name": "pnl", "n": 2}}, {"block": "nl"}]
    assert expanded({**grid, "exclude": [{"block.name": "nl"}, {"block.n": 2}]}) == [{"block": {"name": "pnl", "n": 3}}]


def test_exclude_drops_what_matches_all_of_a_rule_and_any_rule() -> None:
    grid = {"grid": {"a": [1, 2], "b": [1, 2]}}
    assert expanded({**grid, "exclude": [{"a": 1, "b": 1}, {"a": 2, "b": [2]}]}) == [{"a": 1, "b": 2}, {"a": 2, "b": 1}]


def test_expressions_nest() -> None:
    inner = {"all_of": [{"grid": {"a": [1, 2]}}, {"any_of": [{"grid": {"b": [3]}}, {"zip": {"c": [4, 5]}}]}]}
    assert len(expanded({"any_of": [inner, {"list": [{"d": 6}]}]})) == 2 * (1 + 2) + 1


def test_paths_are_found_at_every_depth_once() -> None:
    inner = {"when": {"x": 1}, "zip": {"b": [1]}, "exclude": [{"y": 1}, {"y": [2, None]}]}
    expression = {"any_of": [{"grid": {"a": [1]}}, {"all_of": [inner, {"list": [{"a": 2, "c": 3}]}]}]}
    assert paths(expression) == ["a", "b", "c"]
    assert conditions(expression) == [("x", False), ("y", True)]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (3, "axes: must be a mapping of grid, zip"),
        ({"gird": {}}, "axes.gird: unknown operator"),
        ({"gird": {}}, "did you mean 'grid'?"),
        ({"grid": {}}, "axes.grid: must map paths to lists"),
        ({"grid": {"a": []}}, "axes.grid.a: must be a list of values with at least one, given []"),
        ({"grid": {"a": 3}}, "axes.grid.a: must be a list of values with at least one, given 3"),
        ({"zip": {"a": [1], "b": [1, 2]}}, "axes.zip: paired lists need equal lengths, given a has 1, b has 2"),
        ({"one_at_a_time": [1]}, "axes.one_at_a_time: must map paths"),
        ({"list": []}, "axes.list: must be a list of mappings"),
        ({"list": [3]}, "axes.list[0]: must map paths to values, given 3"),
        ({"any_of": {"grid": {}}}, "axes.any_of: must be a list of expressions"),
        ({"all_of": [{"any_of": [{"zip": 1}]}]}, "axes.all_of[0].any_of[0].zip: must map paths"),
        ({"when": [1]}, "axes.when: must map paths to values"),
        ({"exclude": {"a": 1}}, "axes.exclude: must be a list of mappings"),
    ],
)
def test_each_mistake_is_told_with_its_place(expression: Any, said: str) -> None:
    assert any(said in problem for problem in problems(expression)), problems(expression)


def test_all_mistakes_are_told_at_once() -> None:
    assert len(problems({"grid": {"a": []}, "zip": 1, "any_of": [{"list": 3}, {"nothing": 1}]})) == 4


names = st.sampled_from("abcdefg")
values = st.lists(st.integers(0, 3), min_size=1, max_size=3)
factors = st.dictionaries(names, values, min_size=1, max_size=3)
leaves = st.one_of(
    factors.map(lambda body: {"grid": body}),
    factors.map(lambda body: {"one_at_a_time": body}),
    st.lists(st.dictionaries(names, st.integers(0, 3)), min_size=1, max_size=3).map(lambda body: {"list": body}),
)
expressions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=2).map(lambda body: {"any_of": body}),
        st.lists(inner, min_size=1, max_size=2).map(lambda body: {"all_of": body}),
    ),
    max_leaves=4,
)


@settings(deadline=None)  # the machine may be busy
@given(factors)
def test_a_grid_has_the_product_of_its_sizes(body: dict[str, list[int]]) -> None:
    assert len(expanded({"grid": body})) == prod(map(len, body.values()))
    assert len(expanded({"one_at_a_time": body})) == 1 + sum(map(len, body.values()))


@settings(deadline=None)  # the machine may be busy
@given(expressions, expressions)
def test_unions_add_and_products_multiply(left: dict[str, Any], right: dict[str, Any]) -> None:
    sizes = len(expanded(left)), len(expanded(right))
    assert len(expanded({"any_of": [left, right]})) == sum(sizes)
    assert len(expanded({"all_of": [left, right]})) == prod(sizes)
    assert expanded({"any_of": [left, right]}) == expanded(left) + expanded(right)


@settings(deadline=None)  # the machine may be busy
@given(expressions)
def test_the_size_is_known_without_expanding(expression: dict[str, Any]) -> None:
    assert most(expression) == len(expanded(expression))


@settings(deadline=None)  # the machine may be busy
@given(expressions, names, st.integers(0, 3))
def test_exclude_keeps_exactly_what_does_not_match(expression: dict[str, Any], path: str, value: int) -> None:
    kept = expanded({"all_of": [expression], "exclude": [{path: value}]})
    assert kept == [setting for setting in expanded(expression) if setting.get(path) != value]
    assert len(kept) <= most({"all_of": [expression], "exclude": [{path: value}]})


@settings(deadline=None)  # the machine may be busy
@given(expressions)
def test_settings_set_only_the_paths_that_are_announced(expression: dict[str, Any]) -> None:
    assert {path for setting in expanded(expression) for path in setting} <= set(paths(expression))
