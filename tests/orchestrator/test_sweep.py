"""Sweep files: what they may say, and one message that lists everything that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SweepError, UserError
from orchestrator.planner import conditions, load
from orchestrator.sweep import Sweep, get_path, load_sweep, merge, parse_sweep, set_path, shipped_sweeps

GOOD = """
name: small
base: {workload: digits, insertion: {res3: [0]}}
axes: {grid: {block: [nl]}}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "sweep.yaml") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def problems(document: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SweepError) as caught:
        parse_sweep(document)
    assert caught.value.exit_code == 2
    return caught.value.problems


def document(**changes: Any) -> dict[str, Any]:
    return {"name": "small", "base": {"workload": "digits"}, **changes}


def test_defaults_are_stated(write: Any) -> None:
    sweep = load_sweep(write(GOOD))
    assert sweep.seeds == (0, 1, 2, 3, 4)
    assert sweep.control == {"block": {"name": "none"}}
    assert parse_sweep(sweep.to_json()) == sweep


def test_the_python_api_is_the_same_model() -> None:
    assert Sweep(name="small", base={"workload": "digits"}) == parse_sweep(document())


@pytest.mark.parametrize(("given", "seeds"), [(1, (0,)), (3, (0, 1, 2)), ([7, 3], (7, 3))])
def test_seeds_are_a_number_or_a_list(given: Any, seeds: tuple[int, ...]) -> None:
    assert parse_sweep(document(seeds=given)).seeds == seeds


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"resources": {"workers": 2, "gpus": 0.5}}, "resources[0]", "0 or 1 gpus each, given workers: 2, gpus: 0.5"),
        ({"sead": 1}, "sead", "unknown key, allowed: axes, base"),
        ({"seed": 1}, "seed", "did you mean 'seeds'?"),
        ({"name": 3}, "name", "given 3"),
        ({"name": ""}, "name", "given ''"),
        ({"name": "a\nb"}, "name", "given 'a\\nb'"),
        ({"seeds": 0}, "seeds", "at least 1"),
        ({"seeds": 10**9}, "seeds", "at most 10000"),
        ({"seeds": -1}, "seeds", "given -1"),
        ({"seeds": True}, "seeds", "a number of seeds, such as 5, or a list of them, such as [0, 1, 2]; given True"),
        ({"seeds": "many"}, "seeds", "or a list of them, such as [0, 1, 2]; given 'many'"),
        ({"seeds": 2.5}, "seeds", "a number of seeds, such as 5, or a list of them"),
        ({"control_seeds": "many"}, "control_seeds", "a number of seeds, such as 5, or a list of them"),
        ({"name": "a\\b"}, "name", "a text of 1 to 200 characters, such as region-size or rnl/table2a, without \\"),
        ({"name": "/a"}, "name", "and / at an end or twice in a row; given '/a'"),
        ({"name": "a" * 201}, "name", "a text of 1 to 200 characters"),
        ({"name": 5}, "name", "a text of 1 to 200 characters"),
        (
            {"axes": {"grid": {"block.kernel": [1]}, "exclude": [{"block.kernl": 1}]}},
            "(file)",
            "did you mean 'block.kernel'",
        ),
        ({"seeds": []}, "seeds", "at least 1 item"),
        ({"seeds": [0, -1]}, "seeds[1]", "greater than or equal to 0, given -1"),
        ({"seeds": [1, 2, 1]}, "seeds", "the same seed twice in [1, 2, 1]"),
        ({"control_seeds": [1, 1]}, "control_seeds", "the same seed twice"),
        ({"base": 3}, "base", "should be a mapping, given 3"),
        ({"base": {"workload": "digits", "blok": "nl"}}, "base", "did you mean 'block'?"),
        ({"control": {"nothing": 1}}, "control", "a trial has no 'nothing', allowed: workload"),
        ({"axes": [1]}, "axes", "should be a mapping"),
        ({"axes": {"grid": {"blok.n": [1]}}}, "axes", "blok.n: a trial has no 'blok'"),
        ({"axes": {"grid": {"block.n": [1]}, "exclude": [{"blok.n": 1}]}}, "axes", "did you mean 'block'?"),
        ({"axes": {"when": {"blok.n": 1}, "grid": {"block.n": [1]}}}, "axes", "did you mean 'block'?"),
        (
            {"axes": {"grid": {f"block.{x}": [0] * 100 for x in "abc"}}},
            "axes",
            "up to 1,000,000 settings, at most",
        ),
        (
            {"axes": {"grid": {f"block.{x}": [0] * 100 for x in "ab"}}, "seeds": 101},
            "(file)",
            "axes and seeds give up to 1,010,000 trials, at most 1,000,000",
        ),
        ({"budget": {"gpu_hour": 1}}, "budget.gpu_hour", "did you mean 'gpu_hours'?"),
        ({"budget": {"gpu_hours": 0}}, "budget.gpu_hours", "greater than 0, given 0"),
        ({"budget": {"gpu_hours": float("inf")}}, "budget.gpu_hours", "finite number, given inf"),
        ({"resources": {"gpu": 1}}, "resources[0].gpu", "did you mean 'gpus'?"),
        ({"resources": {"cpus": 0}}, "resources[0].cpus", "greater than 0"),
        ({"resources": [{"when": {"blok.n": 1}}]}, "resources", "did you mean 'block'?"),
        (
            {"reproduces": {"paper": "nl", "table": "1"}},
            "reproduces.paper",
            "'pnl' or 'bat', given 'nl'",
        ),
    ],
)
def test_each_mistake_has_its_place_and_what_is_allowed(changes: dict[str, Any], place: str, said: str) -> None:
    found = problems(document(**changes))
    assert len(found) == 1
    assert found[0].startswith(f"{place}: ")
    assert said in found[0]


def test_a_sweep_needs_a_name_and_a_base() -> None:
    assert problems({}) == ("name: required, but not given", "base: required, but not given")


def test_everything_wrong_in_a_file_and_in_its_configurations_is_listed_at_once(write: Any) -> None:
    text = """
        name: wrong
        seed: 3
        seeds: 0
        budget: {gpu_hour: 1}
        base:
          blok: nl
          workload: digits
          insertion: {res9: [0], res3: [7]}
          block: {name: nl, head: 2}
          recipe: {epoch: 3, lr: fast}
          protocol: center
        """
    with pytest.raises(SweepError) as caught:
        load(write(text))
    told = "\n".join(caught.value.problems)
    for said in (
        "seed: unknown key",
        "seeds: seeds must be at least 1",
        "budget.gpu_hour: unknown key",
        "blok: a trial has no 'blok'",
        "stage 'res9' does not exist in resnet_tiny: use one of res2, res3, res4, res5, head",
        "res3 has units 0..0, given [7]",
        "unknown field 'head'",
        "did you mean 'heads'?",
        "recipe.epoch: unknown key",
        "recipe.lr: input should be a valid number",
        "unknown protocol 'center'",
        "did you mean 'centre'?",
    ):
        assert told.count(said) == 1, f"{said!r} in:\n{told}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "is not valid YAML"),
        ("- a\n- b", "must hold a mapping (name, question, base, ...), given list"),
        ("", "given NoneType"),
        ("name: a\nname: b", "the same key twice: name"),
        ("name: a\naxes: {grid: {block: [nl], block: [rnl]}}", "the same key twice: block"),
        ("name: !!python/object/apply:os.system [true]", "is not valid YAML"),
    ],
)
def test_what_is_not_a_sweep_file(write: Any, text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"sweep\.yaml") as caught:
        load_sweep(write(text))
    assert said in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_sweep(str(path))


def test_a_folder_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder: give a sweep file"):
        load_sweep(str(tmp_path))
    with pytest.raises(UserError, match=r"no sweep 'quikstart'.*did you mean 'quickstart'\?"):
        load_sweep("quikstart")
    with pytest.raises(UserError, match="File name too long"):
        load_sweep("x" * 5000)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that even root cannot read")
def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(UserError, match="cannot read /proc/self/mem: Input/output error"):
        load_sweep("/proc/self/mem")


def test_includes_are_merged_under_what_the_file_says(write: Any) -> None:
    write("workload: digits\nrecipe: {name: quick, epochs: 3}\ninsertion: {res3: [0]}\nblock: nl", "deep.yaml")
    write("include: deep.yaml\nrecipe: {batch: 16}\ninsertion: {res4: [0]}", "base.yaml")
    sweep = load_sweep(write("name: x\nbase: {include: base.yaml, block: {name: pnl, n: 2}}"))
    assert sweep.base["recipe"] == {"name": "quick", "epochs": 3, "batch": 16}
    assert sweep.base["insertion"] == {"res4": [0]}, "places are replaced as a whole"
    assert sweep.base["block"] == {"name": "pnl", "n": 2}
    assert load_sweep(write("name: x\nbase: base.yaml")).base["block"] == "nl"


@pytest.mark.parametrize(
    ("base", "said"),
    [("nowhere.yaml", "base 'nowhere.yaml' not found; looked for"), ("base.yaml", "does base.yaml include itself?")],
)
def test_includes_that_lead_nowhere(write: Any, base: str, said: str) -> None:
    write("include: base.yaml", "base.yaml")
    with pytest.raises(UserError) as caught:
        load_sweep(write(f"name: x\nbase: {base}"))
    assert said in str(caught.value)


def test_overrides_change_the_file_and_its_base(write: Any) -> None:
    overrides = ["seeds=2", "recipe.epochs=5", "budget.wall_hours=0.5", "block.name=rnl", "block.kernel=[3,3,3]"]
    sweep = load_sweep(write(GOOD), overrides)
    assert sweep.seeds == (0, 1)
    assert sweep.budget.wall_hours == 0.5
    assert sweep.base["recipe"] == {"epochs": 5}
    assert sweep.base["block"] == {"name": "rnl", "kernel": [3, 3, 3]}
    assert load_sweep(write(GOOD), ["workload=digits-hard"]).base["workload"] == {"name": "digits-hard"}
    renamed = load_sweep(write(GOOD), ["name=other"])
    assert renamed == load_sweep(write(GOOD)).model_copy(update={"name": "other"})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds", "--set takes path=value, given 'seeds'"),
        ("=3", "--set takes path=value"),
        ("sead=3", "unknown path 'sead'"),
        ("sead=3", "did you mean 'seeds'?"),
        ("seeds=[", "--set seeds=[: the value is not valid YAML"),
        ("block=!!python/name:os.system", "not valid YAML: could not determine a constructor for the tag"),
        ("question=\0", "not valid YAML: unacceptable character #x0000"),
        ("seeds.x=1", "or a list of them, such as [0, 1, 2]; given {'x': 1}"),
        ("budget.wall_hour=1", "did you mean 'wall_hours'?"),
    ],
)
def test_overrides_that_lead_nowhere(write: Any, override: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_sweep(write(GOOD), [override])
    assert said in str(caught.value)
    assert "<unicode string>" not in str(caught.value)


def test_no_name_is_no_folder() -> None:
    with pytest.raises(UserError, match="no sweep '': neither a file nor a name"):
        load_sweep("")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("block.name", "--only takes path=value, given 'block.name'"),
        ("=nl", "--only takes path=value"),
        ("blok.name=nl", "did you mean 'block'?"),
        ("block.kernel=[3,", "is not valid YAML"),
    ],
)
def test_conditions_of_the_command_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        conditions([text])
    assert said in str(caught.value)


def test_conditions_are_read_as_yaml() -> None:
    assert conditions(["block.kernel=[3,7,7]", "block=rnl"]) == [
        {"block.kernel": [3, 7, 7]},
        {"block.name": "rnl"},
    ]


def test_a_new_name_drops_the_fields_of_the_old_one() -> None:
    assert merge({"block": {"name": "bat", "k": 4}}, {"block": "nl"}) == {"block": {"name": "nl"}}
    assert merge({"recipe": "rnl"}, {"recipe": {"epochs": 3}}) == {"recipe": {"name": "rnl", "epochs": 3}}
    values: dict[str, Any] = {"block": {"name": "bat", "k": 4}}
    set_path(values, "block.name", "nl")
    assert values == {"block": {"name": "nl"}}


def test_paths_reach_into_nested_values() -> None:
    values: dict[str, Any] = {"backbone": "resnet50"}
    set_path(values, "backbone.frames", 4)
    set_path(values, "recipe.lr", 0.1)
    assert values == {"backbone": {"name": "resnet50", "frames": 4}, "recipe": {"lr": 0.1}}
    assert get_path(values, "backbone.frames") == 4
    assert get_path(values, "backbone.frames.deeper") is None


def test_merging_leaves_both_sides_alone() -> None:
    under, over = {"recipe": {"milestones": [1]}}, {"insertion": {"res3": [0]}}
    merged = merge(under, over)
    merged["recipe"]["milestones"].append(2)
    merged["insertion"]["res3"].append(1)
    assert under == {"recipe": {"milestones": [1]}}
    assert over == {"insertion": {"res3": [0]}}


def test_shared_bases_are_not_sweeps() -> None:
    assert "quickstart" in shipped_sweeps()
    assert not [name for name in shipped_sweeps() if "base" in name.rpartition("/")[2]]
