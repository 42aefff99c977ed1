"""Trial identity: what changes it, what does not, and golden ids that fail when a meaning changes by accident."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest

from orchestrator.trial import ID_DIGITS, IDENTITY_FREE, Trial, canonical_json, identity
from workloads.recipes import RECIPES
from workloads.spec import TrialSpec

DIGITS: dict[str, Any] = {
    "backbone": {"name": "resnet_tiny"},
    "block": {"name": "none"},
    "insertion": {},
    "workload": {"name": "digits"},
    "recipe": {"name": "quick"},
    "protocol": {"name": "centre"},
    "seed": 0,
}
RNL: dict[str, Any] = {
    **DIGITS,
    "backbone": {"name": "c2d_resnet50"},
    "block": {"name": "rnl", "kernel": [3, 7, 7]},
    "insertion": {"res3": [1, 3], "res4": "all"},
    "seed": 7,
}


START: dict[str, Any] = {"path": "/weights/resnet18.pth", "sha256": "ab" * 32, "allow": ["fc.*"], "inflate": "centre"}


def trial(**changes: Any) -> Trial:
    return Trial(TrialSpec.model_validate({**deepcopy(RNL), **changes}))


GOLDEN = [
    (DIGITS, "4e74b03a5cdbdd5c", "d459e17c0dd5d461"),
    (RNL, "df8d5c5216fb3b18", "da2852d60c8fd53f"),
    ({**RNL, "start": START}, "6ebfb865fafe27de", "5f6de4d4bc194c7f"),
]


@pytest.mark.parametrize(("given", "trial_id", "arm_id"), GOLDEN, ids=["digits", "rnl", "from weights"])
def test_golden_ids(given: dict[str, Any], trial_id: str, arm_id: str) -> None:
    """When this fails, every recorded result is cut off from its trial. If that is meant, CHANGELOG must say so."""
    found = Trial(TrialSpec.model_validate(given))
    assert (found.trial_id, found.arm_id) == (trial_id, arm_id)


def test_another_seed_of_the_same_configuration_is_the_same_trial_as_one_made_anew() -> None:
    other = trial().reseeded(123)
    assert other.trial_id == trial(seed=123).trial_id != trial().trial_id
    assert (other.arm_id, other.content) == (trial().arm_id, trial(seed=123).content)


def test_ids_are_the_same_in_another_process() -> None:
    code = (
        "import sys, json; from orchestrator.trial import Trial; from workloads.spec import TrialSpec\n"
        "print(Trial(TrialSpec.model_validate(json.loads(sys.argv[1]))).trial_id)\n"
        "assert 'torch' not in sys.modules"
    )
    ids = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(RNL)],
            env={"PYTHONHASHSEED": seed, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert ids == {trial().trial_id}


def test_ids_are_hex_of_the_stated_length() -> None:
    assert len(trial().trial_id) == len(trial().arm_id) == ID_DIGITS
    int(trial().trial_id, 16)


def test_the_order_of_keys_does_not_matter() -> None:
    def reversed_keys(value: Any) -> Any:
        return {key: reversed_keys(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    assert Trial(TrialSpec.model_validate(reversed_keys(trial().content))).trial_id == trial().trial_id


def test_defaults_written_out_do_not_matter() -> None:
    """A resolved trial, given again in full, is the same trial: workers rebuild it from JSON."""
    again = TrialSpec.model_validate(json.loads(json.dumps(trial().content)))
    assert Trial(again).trial_id == trial().trial_id


@pytest.mark.parametrize(
    "same",
    [
        {"insertion": {"res4": "all", "res3": (1, 3)}},
        {"block": {"kernel": (3, 7, 7), "name": "rnl"}},
        {"recipe": {"name": "quick", "lr": RECIPES["quick"].lr}},
        {"seed": "7"},
    ],
)
def test_spellings_of_one_value_do_not_matter(same: dict[str, Any]) -> None:
    assert trial(**same).trial_id == trial().trial_id


@pytest.mark.parametrize("path", IDENTITY_FREE)
def test_what_cannot_change_a_result_does_not_matter(path: str) -> None:
    content = {**trial().content, "start": START}
    section, field = path.split(".")
    assert identity({**content, section: {**content[section], field: "anything"}}) == identity(content)


@pytest.mark.parametrize(
    "changed",
    [
        {"block": {"name": "rnl", "kernel": [3, 7, 5]}},
        {"block": {"name": "nl"}},
        {"insertion": {"res3": [1], "res4": "all"}},
        {"insertion": {"res3": [3, 1], "res4": "all"}},
        {"backbone": {"name": "c2d_resnet50", "frames": 4}},
        {"recipe": {"name": "quick", "epochs": 5}},
        {"recipe": {"name": "quick", "batch": 16}},
        {"protocol": {"name": "centre", "clips": 2}},
        {"workload": {"name": "digits", "keys": 3}},
        {"start": START},
    ],
)
def test_everything_else_matters(changed: dict[str, Any]) -> None:
    assert trial(**changed).trial_id != trial().trial_id
    assert trial(**changed).arm_id != trial().arm_id


def test_of_starting_weights_the_content_matters_and_how_it_is_fitted() -> None:
    known = trial(start=START).trial_id
    assert trial(start={**START, "path": "/elsewhere/w.pth", "allow": []}).trial_id == known
    assert trial(start={**START, "sha256": "cd" * 32}).trial_id != known
    assert trial(start={**START, "inflate": "mean"}).trial_id != known


def test_seeds_share_an_arm() -> None:
    assert trial(seed=8).trial_id != trial().trial_id
    assert trial(seed=8).arm_id == trial().arm_id
    assert trial().arm_id != trial().trial_id


def test_every_field_of_a_trial_is_part_of_its_id() -> None:
    """Nothing is left out but by name: changing any leaf of the content changes the id."""
    content = trial().content
    for path, value in _leaves(content):
        changed = deepcopy(content)
        node = changed
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = f"{value}?"
        free = ".".join(path) in IDENTITY_FREE
        assert (identity(changed) == trial().trial_id) is free, path


def test_identity_leaves_its_input_alone() -> None:
    content = trial().content
    before = deepcopy(content)
    identity(content)
    assert content == before


def test_canonical_json_is_one_text_per_value() -> None:
    assert canonical_json({"b": 1, "a": [1.0, "ü", None, True]}) == '{"a":[1.0,"\\u00fc",null,true],"b":1}'
    assert canonical_json(1) != canonical_json(1.0)
    with pytest.raises(ValueError, match="Out of range float"):
        canonical_json(float("nan"))


def _leaves(value: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, dict):
        return [(path, value)]
    return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*path, key))]
