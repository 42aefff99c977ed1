from __future__ import annotations

from typing import Any

import pytest

from dashboards import text


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"block.kernel": [3, 7, 7], "insertion": {"res3": [0]}}, "block.kernel=3×7×7, insertion=res3"),
        ({"insertion": {"res3": [1, 3], "res4": "all"}}, "insertion=res3[1,3] + res4[all]"),
        ({"insertion": {}}, "insertion=nowhere"),
        ({"block": {"name": "nl", "heads": 2}}, "block=nl(heads=2)"),
        ({"block": {"name": "chain", "blocks": [{"name": "nl"}, {"name": "se"}]}}, "block=chain(blocks=nl + se)"),
        ({"recipe": {"epochs": 8, "ema": None}, "block": "nl"}, "recipe.epochs=8, recipe.ema=null, block=nl"),
        ({"workload": {"decode": {"threads": 2}}}, "workload.decode.threads=2"),
        ({"recipe.freeze": ["stem", "res2"], "flags": [True, False]}, "recipe.freeze=stem + res2, flags=[true, false]"),
    ],
)
def test_settings_of_any_kind_read_on_one_line(settings: dict[str, Any], said: str) -> None:
    assert text.settings_line(settings) == said


def test_a_configuration_comes_part_by_part_without_what_is_not_set() -> None:
    spec = {
        "recipe": {"name": "quick", "epochs": 4, "ema": None, "milestones": []},
        "insertion": {},
        "block": {"name": "none"},
        "start": {"path": "weights.pt", "inflate": "mean"},
    }
    assert text.configuration(spec) == [
        "block: none",
        "insertion: nowhere",
        "recipe: quick, epochs=4",
        "start: path=weights.pt, inflate=mean",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [(3_900_000, "MACs", "3.90 MMACs"), (1_234_567, "MACs", "1.23 MMACs"), (152_000, "", "152 k"), (88, "", "88")],
)
def test_quantities_have_three_digits_also_where_they_are_zeros(value: float, unit: str, said: str) -> None:
    assert text.quantity(value, unit) == said


def test_a_number_stays_with_its_unit() -> None:
    assert (
        text.unbroken("+1.5 points at 1.22 × its MACs, 3 % more") == "+1.5\xa0points at 1.22\xa0× its MACs, 3\xa0% more"
    )


def test_p_is_said_with_its_sign() -> None:
    assert [text.p_said(value) for value in (0.0001, 0.101)] == ["p < 0.001", "p = 0.101"]
