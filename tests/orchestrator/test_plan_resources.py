"""Which resources an arm gets: rules with conditions, the first that holds; misspelt ones are mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import SweepError
from orchestrator.plan import Plan, make_plan
from orchestrator.sweep import parse_sweep


def plan(**changes: Any) -> Plan:
    base = {"workload": "digits", "insertion": {"res3": [0]}}
    return make_plan(parse_sweep({"name": "small", "base": base, "seeds": 2, **changes}))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("block.nmae", "block.nmae: no block has a 'nmae'; did you mean 'name'?"),
        ("recipe.batchs", "no recipe has a 'batchs'; did you mean 'batch'?"),
        ("workload.train_clip", "no workload has a 'train_clip'; did you mean 'train_clips'?"),
        ("backbone.framse", "no backbone has a 'framse'; did you mean 'frames'?"),
        ("insertion.rse4", "no insertion has a 'rse4'; did you mean 'res4'?"),
        ("protocol.zzz", "no protocol has a 'zzz'; there are: average, batch, clips, crops, frames, name, size"),
    ],
)
def test_a_misspelt_condition_of_resources_is_no_condition_that_never_holds(path: str, says: str) -> None:
    with pytest.raises(SweepError) as caught:
        plan(axes={"grid": {"block": ["nl"]}}, resources=[{"when": {path: 1}, "cpus": 4}, {}])
    (found,) = caught.value.problems
    assert found.startswith("resources[0].when: ")
    assert found.endswith(says)


@pytest.mark.parametrize("path", ["block", "block.kernel", "insertion.res4", "start.path", "recipe.freeze"])
def test_resources_may_ask_for_what_only_other_arms_have(path: str) -> None:
    made = plan(axes={"grid": {"block": ["nl"]}}, resources=[{"when": {path: "x"}, "cpus": 4}, {"cpus": 2}])
    assert {arm.resources.cpus for arm in made.arms} == {2}


def test_resources_follow_the_first_rule_that_holds() -> None:
    rules = [{"when": {"block.heads": 1, "block.name": "nl"}, "cpus": 2}, {"cpus": 4}]
    made = plan(axes={"grid": {"block": ["nl", "se"]}}, resources=rules)
    assert [arm.resources.cpus for arm in made.arms] == [4, 2, 4]
