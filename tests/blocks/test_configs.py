"""Configs refuse what cannot be: wrong types, unknown fields, impossible values and maps; all in one message."""

import json
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar, Literal

import pytest

from blocks.configs import BlockConfig, NonLocalConfig, RNLConfig, Shape
from blocks.registry import BUILTIN, config_dict, parse_config
from blocks.variants import fitting_shape, variants

EVERY_CONFIG = [config for kind, _ in BUILTIN.values() for config in variants(kind())]


@dataclass(frozen=True, kw_only=True)
class Everything(BlockConfig):
    """One field of each kind."""

    name: ClassVar[str] = "everything"

    choice: Literal["a", "b"] = "a"
    flag: bool = False
    count: int = 1
    ratio: float = 0.5
    sides: tuple[int, int, int] = (1, 2, 3)
    maybe: int | None = None
    axes: tuple[Literal["t", "h", "w"], ...] = ("t",)


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_every_choice_of_every_block_survives_json(config):
    assert parse_config(json.loads(json.dumps(config_dict(config)))) == config


@pytest.mark.parametrize("config", EVERY_CONFIG, ids=str)
def test_problems_are_sentences_about_the_given_map(config):
    assert fitting_shape(config)
    for problem in config.problems(Shape(1, 1, 1, 1)):
        assert "given" in problem or "not divisible" in problem or "must" in problem or "=" in problem


def test_configs_are_frozen_and_hashable():
    config = NonLocalConfig()
    with pytest.raises(FrozenInstanceError):
        config.heads = 2  # type: ignore[misc]
    assert len({config, NonLocalConfig(), NonLocalConfig(heads=2)}) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"choice": "c"}, "choice must be one of 'a', 'b', given 'c'"),
        ({"flag": 1}, "flag must be bool, given 1"),
        ({"count": 1.0}, "count must be int, given 1.0"),
        ({"count": True}, "count must be int, given True"),
        ({"ratio": "1"}, "ratio must be float, given '1'"),
        ({"sides": [1, 2]}, r"sides must be a list of 3 ints, given \(1, 2\)"),
        ({"maybe": "x"}, "maybe must be .*, given 'x'"),
        ({"axes": ["t", "x"]}, r"axes must be a list, each item one of 't', 'h', 'w', given \('t', 'x'\)"),
        ({"colour": 1}, "unknown field 'colour', allowed: choice, flag, count, ratio, sides, maybe, axes"),
        ({"cuont": 1}, "did you mean 'count'"),
    ],
)
def test_wrong_values_say_what_is_allowed(values, says):
    with pytest.raises(ValueError, match=says):
        Everything.parse(values)


def test_all_wrong_values_come_in_one_message():
    with pytest.raises(ValueError, match=r"choice must be .*; count must be"):
        Everything.parse({"choice": "c", "count": "many"})


def test_lists_become_tuples_and_whole_numbers_floats():
    config = Everything.parse({"sides": [3, 2, 1], "ratio": 1, "maybe": 4, "axes": ["h", "w"]})
    assert (config.sides, config.ratio, config.maybe, config.axes) == ((3, 2, 1), 1, 4, ("h", "w"))


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (NonLocalConfig, {"heads": 0}, "heads must be at least 1, given 0"),
        (RNLConfig, {"kernel": (2, 3, 3)}, r"kernel sizes must be odd and positive, given \[2, 3, 3\]"),
        (RNLConfig, {"parity": "masked_grouped", "aggregate": "avg"}, "needs aggregate='conv', given 'avg'"),
    ],
)
def test_impossible_values_are_refused(kind, values, says):
    with pytest.raises(ValueError, match=says):
        kind(**values)


def test_a_shape_counts_its_positions_and_reads_well():
    shape = Shape(8, 2, 3, 5)
    assert shape.positions == 30
    assert str(shape) == "C=8 T=2 H=3 W=5"
