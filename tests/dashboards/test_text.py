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
