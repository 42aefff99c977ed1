"""Presets hold the papers' values; wrong values are refused with everything that is wrong."""

import pytest
from pydantic import ValidationError

from workloads.recipes import RECIPES, Recipe, parse_recipe


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rnl", {"epochs": 50, "lr": 0.01, "milestones": (20, 40), "gamma": 0.1, "batch": 64, "dropout": 0.5}),
        ("rnl_100", {"epochs": 100, "milestones": (20, 40, 60, 80), "dropout": 0.5}),
        ("hgnl_tsn", {"epochs": 40, "lr": 0.001, "milestones": (20, 30)}),
        ("hgnl_finetune", {"epochs": 8, "lr": 0.001, "milestones": (4, 6)}),
        ("pnl", {"lr": 0.01, "weight_decay": 1e-4, "momentum": 0.9, "batch": 64}),
        ("bat_imagenet", {"epochs": 90, "lr": 0.1, "milestones": (30, 60, 80), "batch": 256}),
        ("bat_kinetics", {"epochs": 100, "lr": 0.01, "milestones": (40, 80), "batch": 64, "dropout": 0.5}),
        ("bat_mini", {"epochs": 50, "schedule": "cosine", "warmup_epochs": 2.0, "weight_decay": 1e-4}),
    ],
)
def test_presets_have_the_printed_values(name, values):
    recipe = RECIPES[name]
    assert {key: getattr(recipe, key) for key in values} == values
    assert recipe.optimizer == "sgd"


@pytest.mark.parametrize("name", list(RECIPES))
def test_presets_parse_by_name_and_round_trip(name):
    recipe = parse_recipe(name)
    assert recipe == RECIPES[name] == parse_recipe({"name": name}) == parse_recipe(recipe.to_json())


def test_fields_go_over_the_preset():
    recipe = parse_recipe({"name": "rnl", "batch": 16})
    assert (recipe.batch, recipe.lr, recipe.lr_scale, recipe.epochs) == (16, 0.01, 0.25, 50)
    assert parse_recipe("quick").lr_scale == 1.0


def test_another_schedule_drops_the_presets_milestones():
    recipe = parse_recipe({"name": "rnl", "schedule": "cosine"})
    assert (recipe.schedule, recipe.milestones) == ("cosine", ())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "stpe"}, "schedule"),
        ({"schedule": "step"}, "needs milestones"),
        ({"schedule": "cosine", "milestones": (1,)}, "are for schedule 'step'"),
        ({"schedule": "step", "milestones": (3, 2)}, "positive and rising"),
        ({"warmup_epochs": 4}, "less than epochs=4: give recipe.warmup_epochs too, 0 for none or such as 0.4"),
        ({"zero_stage": 2}, "needs engine 'deepspeed'"),
        ({"engine": "deepspeed", "zero_stage": 3, "ema": 0.9}, "zero_stage <= 2"),
        ({"lrr": 1}, "lrr"),
        ({"lr": 0}, "greater than 0"),
    ],
)
def test_wrong_values_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        Recipe(**given)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown recipe 'bat_mimi'; known: custom, quick.*did you mean 'bat_mini'"):
        parse_recipe("bat_mimi")
    with pytest.raises(ValueError, match="a name or a mapping, given 3"):
        parse_recipe(3)
