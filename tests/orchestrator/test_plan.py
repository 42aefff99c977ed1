"""Plans: complete, checked, free of duplicates, the same every time; every mistake told at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import SweepError
from orchestrator.plan import Plan, make_plan, mistakes, trained_macs
from orchestrator.planned import planned_sweep
from orchestrator.sweep import load_sweep, parse_sweep
from workloads.spec import ModelSpec

GRID_NL = {"grid": {"block": ["nl"]}}
COSINE = "rnl affinity=cosine"


def sweep(base: dict[str, Any] | None = None, **changes: Any) -> Any:
    common = {"workload": "digits", "insertion": {"res3": [0]}}
    return parse_sweep({"name": "small", "base": {**common, **(base or {})}, "seeds": 2, **changes})


def plan(base: dict[str, Any] | None = None, **changes: Any) -> Plan:
    return make_plan(sweep(base, **changes))


def problems(base: dict[str, Any] | None = None, **changes: Any) -> tuple[str, ...]:
    with pytest.raises(SweepError) as caught:
        plan(base, **changes)
    assert caught.value.exit_code == 2
    return caught.value.problems


def longrange(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, **environment}, check=False
    )


def test_the_control_comes_first_and_every_arm_has_every_seed() -> None:
    made = plan(axes={"grid": {"block": ["nl", "se"]}}, control_seeds=3)
    assert [arm.label for arm in made.arms] == ["none", "nl", "se"]
    assert made.control is made.arms[0]
    assert [arm.seeds for arm in made.arms] == [(0, 1, 2), (0, 1), (0, 1)]
    assert len({trial.trial_id for _, trial in made.ordered()}) == 7


def test_a_trial_is_complete() -> None:
    spec = plan(axes={"grid": {"block": ["nl"]}}).arms[1].spec
    assert (spec.backbone.name, spec.backbone.classes, spec.backbone.channels) == ("resnet_tiny", 10, 1)
    assert (spec.recipe.name, spec.recipe.freeze, spec.protocol.name) == ("quick", ("stem", "res2"), "centre")


def test_a_preset_under_another_schedule_loses_its_milestones() -> None:
    spec = plan({"recipe": {"name": "rnl", "schedule": "cosine"}, "block": "nl"}).arms[1].spec
    assert (spec.recipe.schedule, spec.recipe.milestones, spec.recipe.epochs) == ("cosine", (), 50)


def test_without_a_block_all_places_are_one_arm() -> None:
    made = plan(axes={"grid": {"block": ["none", "nl"], "insertion": [{"res3": [0]}, {"res4": [0]}]}})
    assert [arm.label for arm in made.arms] == ["none", "nl @res3", "nl @res4"]
    assert [(item.label, item.same_as) for item in made.duplicates] == [("none", "none"), ("none", "none")]


def test_settings_that_mean_the_same_are_duplicates() -> None:
    made = plan(axes={"grid": {"block": [{"name": "nl"}, {"name": "nl", "heads": 1}, "nl"]}})
    assert len(made.arms) == 2
    assert [item.same_as for item in made.duplicates] == [made.arms[1].label] * 2


def test_what_cannot_exist_is_rejected_with_a_reason_and_the_rest_goes_on() -> None:
    axes = {"grid": {"block": [{"name": "pnl"}], "block.n": [1, 2, 3]}}
    made = plan(axes=axes)
    assert [arm.label for arm in made.arms] == ["none", "pnl n=1", "pnl n=2"]
    [rejection] = made.rejected
    assert rejection.label == "pnl n=3"
    assert rejection.settings == {"block": {"name": "pnl"}, "block.n": 3}
    assert rejection.reason == ("pnl at res3.0: 32 channels are not divisible by n=3: use one of [1, 2, 4, 8, 16, 32]")


def test_values_that_do_not_go_together_are_rejected_too() -> None:
    [rejection] = plan(axes={"grid": {"block": [{"name": "hgnl", "reduction": 2}], "block.g1": [6, 8]}}).rejected
    assert "g1 must be a multiple of g2" in rejection.reason


def test_if_every_arm_is_impossible_there_is_nothing_to_run() -> None:
    assert problems({"block": {"name": "pnl", "n": 3}}) == (
        "pnl: pnl at res3.0: 32 channels are not divisible by n=3: use one of [1, 2, 4, 8, 16, 32]",
    )


def test_an_impossible_control_is_a_mistake() -> None:
    [said] = problems(control={"block": {"name": "pnl", "n": 3}}, axes={"grid": {"block": ["nl"]}})
    assert said.startswith("control: pnl at res3.0: 32 channels are not divisible by n=3")


def test_conditions_ask_the_base_for_what_no_axis_sets() -> None:
    batches = {"grid": {"recipe.batch": [16, 32]}}
    axes = {"any_of": [{"list": [{}]}, {"when": {"block.name": "nl", "recipe.epochs": 2}, **batches}]}
    found = plan(
        {"block": "nl", "recipe": {"epochs": 2}}, axes={**axes, "exclude": [{"recipe.epochs": 2, "recipe.batch": 32}]}
    )
    assert [arm.settings for arm in found.arms if not arm.is_control] == [{}, {"recipe.batch": 16}]


def test_axes_that_exclude_everything_leave_nothing_to_run() -> None:
    [said] = problems(axes={"grid": {"block": ["nl"]}, "exclude": [{"block.name": "nl"}]})
    assert said == "axes: nothing is left to run: exclude and when drop every setting"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"workload": "digitz"}, "unknown workload 'digitz'; known: digits"),
        ({"workload": "digitz"}, "did you mean 'digits'?"),
        ({"workload": 3}, "a workload needs a 'name', given 3"),
        ({"workload": {"name": "digits", "key": 2}}, "workload.key: unknown key, allowed:"),
        (
            {"workload": {"name": "digits", "keys": 1}},
            "workload.keys: input should be greater than or equal to 2, given 1",
        ),
        ({"backbone": "resnet_tinny"}, "did you mean 'resnet_tiny'?"),
        ({"backbone": 5}, "a backbone needs a 'name', given 5"),
        ({"backbone": {"name": "resnet_tiny", "sise": 16}}, "did you mean 'size'?"),
        ({"block": "nll"}, "did you mean 'nl'?"),
        ({"block": 7}, "a block needs a 'name', given 7; known blocks: none, nl"),
        ({"block": None}, "a block needs a 'name', given None"),
        ({"block": {"kernel": 3, "heads": 2}}, "a block needs a 'name', given only kernel, heads; known"),
        ({"block": {"name": "nl", "heads": "two"}}, "heads must be int, given 'two'"),
        ({"block": {"name": "hgnl", "start": float("inf")}}, "start must be float, given inf"),
        ({"recipe": "rnll"}, "unknown recipe 'rnll'"),
        ({"recipe": {"name": ["rnl"]}}, "unknown recipe ['rnl']"),
        ({"recipe": [1]}, "a recipe is a name or a mapping, given [1]"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs: input should be greater than or equal to 1, given 0"),
        ({"recipe": {"weight_decay": float("nan")}}, "recipe.weight_decay: input should be"),
        ({"protocol": 3}, "a protocol is a name or a mapping, given 3"),
        ({"block": "nl", "insertion": ["res3"]}, "insertion: input should be a mapping, given ['res3']"),
        ({"block": "nl", "insertion": {}}, "insertion: block 'nl' needs a place, e.g. insertion: {res3: [1]}"),
        ({"block": "nl", "insertion": {"res9": [0]}}, "stage 'res9' does not exist in resnet_tiny: use one of res2"),
        ({"block": "nl", "insertion": {"res3": [1]}}, "res3 has units 0..0, given [1]"),
        ({"block": "nl", "insertion": {"res3": [-1]}}, "res3 has units 0..0, given [-1]"),
        (
            {"block": "nl", "insertion": {"res3/top": [0]}},
            "place 'top' does not exist in res3: use conv1",
        ),
    ],
)
def test_typing_mistakes_are_errors_of_the_file(base: dict[str, Any], said: str) -> None:
    assert any(said in problem for problem in problems(base)), problems(base)


def test_a_sweep_without_a_workload() -> None:
    with pytest.raises(SweepError) as caught:
        make_plan(parse_sweep({"name": "x", "base": {"block": "nll", "recipe": "rnll"}}))
    told = caught.value.problems
    assert told[0] == "base.workload: required, but not given"
    assert {problem.partition(";")[0] for problem in told[1:]} == {
        "block: unknown block 'nll'",
        "recipe: unknown recipe 'rnll'",
    }


def test_mistakes_of_several_arms_are_told_together_and_once() -> None:
    axes = {"grid": {"block": ["nll", "nl"], "recipe.epoch": [1, 2]}}
    found = sorted(mistakes(sweep(axes=axes)))
    assert [problem.partition(",")[0].partition(";")[0] for problem in found] == [
        "block: unknown block 'nll'",
        "recipe.epoch: unknown key",
    ]


def test_a_block_that_the_base_lacks_is_missed_once() -> None:
    assert (
        len(problems(axes={"grid": {"block.kernel": [[1, 1, 1], [3, 3, 3]], "block.affinity": ["cosine", "dot"]}})) == 1
    )


def test_only_keeps_the_control_and_what_meets_every_condition() -> None:
    made = sweep(axes={"grid": {"block": ["rnl"], "block.kernel": [[1, 1, 1], [3, 3, 3]]}})
    chosen = make_plan(made, only=[{"block.name": "rnl"}, {"block.kernel": [3, 3, 3]}])
    assert [arm.spec.block.name for arm in chosen.arms] == ["none", "rnl"]
    assert chosen.arms[1].settings["block.kernel"] == [3, 3, 3]


def test_only_asks_the_complete_trial_defaults_included() -> None:
    made = make_plan(sweep(axes={"grid": {"block": ["rnl", "nl"]}}), only=[{"block.kernel": [3, 7, 7]}])
    assert [arm.label for arm in made.arms] == ["none", "rnl"]


def test_only_takes_either_value_of_the_same_path() -> None:
    made = sweep(axes={"grid": {"block": ["rnl", "nl", "se"]}})
    chosen = make_plan(made, only=[{"block.name": "nl"}, {"block.name": "se"}, {"block.reduction": [2, 16]}])
    assert [arm.label for arm in chosen.arms] == ["none", "nl", "se"]


def test_only_keeps_labels_and_names_every_arm_of_the_sweep() -> None:
    made = sweep(axes={"any_of": [{"grid": {"block": ["rnl"], "block.affinity": ["gaussian", "cosine"]}}, GRID_NL]})
    whole, chosen = make_plan(made), make_plan(made, only=[{"block.affinity": "cosine"}])
    labels = {arm.arm_id: arm.label for arm in whole.arms}
    assert [arm.label for arm in chosen.arms] == [labels[arm.arm_id] for arm in chosen.arms] == ["none", COSINE]
    assert chosen.whole == whole.whole == tuple(labels), "what earlier runs left of the sweep is known"


def test_only_judges_what_it_leaves_out_and_does_not_show_it() -> None:
    made = sweep(axes={"any_of": [{"grid": {"block": ["pnl"], "block.n": [1, 3]}}, GRID_NL]})
    whole, chosen = make_plan(made), make_plan(made, only=[{"block.name": "nl"}])
    assert len(whole.rejected) == 1
    assert whole.rejected_besides == whole.left_out == chosen.rejected == ()
    assert chosen.rejected_besides == whole.rejected
    assert chosen.left_out == ("pnl n=1",)
    recorded = planned_sweep(chosen, dict.fromkeys(chosen.whole, "code"))
    assert [one.label for one in recorded.rejections] == [one.label for one in whole.rejected]
    assert recorded.left_out == chosen.left_out


def test_only_that_matches_nothing_tells_what_there_is() -> None:
    made = sweep(axes={"grid": {"block": ["rnl", "nl"]}})
    with pytest.raises(SweepError) as caught:
        make_plan(made, only=[{"block.name": "pnl"}])
    assert caught.value.problems == ('--only block.name="pnl": no arm has this; there are: "rnl", "nl"',)
    with pytest.raises(SweepError) as caught:
        make_plan(made, only=[{"block.kernell": 3}])
    assert caught.value.problems == ("--only block.kernell=3: no arm has this; nothing sets it: is it misspelt?",)
    with pytest.raises(SweepError, match="no arm meets all the conditions at once"):
        make_plan(made, only=[{"block.name": "nl"}, {"block.kernel": [3, 7, 7]}])


def test_labels_say_what_varies_and_no_more() -> None:
    blocks = [{"name": "rnl", "aggregate": "avg"}]
    parts = [
        {"grid": {"block": blocks, "block.kernel": [[1, 1, 1], [3, 3, 3]]}},
        {"list": [{"block": {"name": "bat", "s": 2, "kt": 2}}, {"block": {"name": "bat", "s": 2, "kt": 2, "k": 4}}]},
        {"list": [{"block": "nl", "recipe.epochs": 5}, {"block": "nl", "insertion": {"res3": [0], "res4": "all"}}]},
    ]
    assert [arm.label for arm in plan(axes={"any_of": parts}).arms] == [
        "none",
        "rnl kernel=1x1x1 @res3",
        "rnl kernel=3x3x3 @res3",
        "bat @res3",
        "bat k=4 @res3",
        "nl recipe.epochs=5 @res3",
        "nl @res3+res4[all]",
    ]


def test_arms_that_would_share_a_label_are_told_apart_by_their_ids() -> None:
    axes = {"list": [{"block": "nl", "recipe.milestones": []}, {"block": "nl", "recipe": {"lr": 0.5}}]}
    made = plan({"recipe": {"name": "quick", "dropout": 0.1}}, axes={"any_of": [axes, {"list": [{"block": "nl"}]}]})
    labels = [arm.label for arm in made.arms]
    assert len(set(labels)) == len(labels)


def fake_profiler(asked: list[ModelSpec]) -> Any:
    def profile(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
        asked.extend(models)
        return [{"params": 1000, "executed_macs": 10**6, "peak_activation_bytes": 2**20} for _ in models]

    return profile


def test_each_distinct_network_is_profiled_once() -> None:
    asked: list[ModelSpec] = []
    axes = {"grid": {"block": ["nl", "se"], "recipe.lr": [0.1, 0.2, 0.3]}}
    made = make_plan(sweep(axes=axes), profiler=fake_profiler(asked))
    assert [model.block.name for model in asked] == ["none", "nl", "se"]
    assert all(arm.profile is not None and arm.profile["params"] == 1000 for arm in made.arms)


def test_arms_over_the_memory_are_rejected_after_profiling() -> None:
    rules = [{"when": {"block.name": "nl"}, "memory_gib": 0.01}, {}]
    made = make_plan(sweep(axes={"grid": {"block": ["nl", "se"]}}, resources=rules), profiler=fake_profiler([]))
    assert [arm.label for arm in made.arms] == ["none", "se"]
    assert made.rejected[0].reason == "needs about 0.0 GiB at batch 32, resources allow 0.01 GiB"
    with pytest.raises(SweepError, match="resources allow"):
        make_plan(sweep(axes={"grid": {"block": ["nl"]}}, resources={"memory_gib": 0.01}), profiler=fake_profiler([]))


@pytest.mark.parametrize(("batch", "workers"), [(1, 1), (3, 2)])
def test_a_block_that_needs_more_clips_per_device_is_rejected(batch: int, workers: int) -> None:
    made = plan(
        {"recipe": {"name": "quick", "batch": batch}},
        axes={"grid": {"block": ["se_rnl", "rnl"]}},
        resources={"workers": workers},
    )
    assert [arm.label for arm in made.arms] == ["none", "rnl"]
    assert made.rejected[0].reason == (
        f"se_rnl trains on at least 2 clips per device, given recipe.batch={batch} for {workers} "
        f"worker{'s' * (workers > 1)}: use a batch of {2 * workers} or more"
    )


def test_the_control_comes_first_then_the_longest() -> None:
    def profiler(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
        macs = {"none": 1, "nl": 3, "se": 2}
        return [{"params": 1, "executed_macs": macs[model.block.name] * 10**9} for model in models]

    made = make_plan(sweep(axes={"grid": {"block": ["se", "nl"]}}), profiler=profiler)
    expected = [(label, seed) for label in ("none", "nl", "se") for seed in (0, 1)]
    assert [(arm.label, trial.spec.seed) for arm, trial in made.ordered()] == expected, "a stopped run has its control"


def test_frozen_stages_cost_nothing_per_epoch() -> None:
    spec = plan(axes={"grid": {"block": ["nl"]}}).arms[1].spec
    stages = [{"stage": "stem", "executed_macs": 3}, {"stage": "res2", "executed_macs": 4}]
    stages += [{"stage": "res3", "executed_macs": 5}]
    assert trained_macs(spec, {"executed_macs": 12, "per_stage": stages}) == 5
    assert trained_macs(spec, {}) is None


def test_the_estimate_adds_up_and_says_what_it_rests_on() -> None:
    made = make_plan(sweep(axes={"grid": {"block": ["nl"]}}, resources={"cpus": 2}), profiler=fake_profiler([]))
    estimate = made.estimate()
    seconds = sum(arm.price.seconds or 0.0 for arm in made.arms) * 2
    assert estimate["trials"] == 4
    assert estimate["cpu_hours"] == pytest.approx(seconds * 2 / 3600, abs=1e-4)
    assert estimate["gpu_hours"] == 0.0
    assert estimate["basis"] == ["assumed 1.0e+10 MAC/s on cpu"]
    assert plan(axes={"grid": {"block": ["nl"]}}).estimate()["cpu_hours"] is None


@settings(deadline=None, max_examples=25)
@given(st.permutations(["workload", "insertion", "block", "recipe"]), st.permutations(["k", "s", "kt"]))
def test_the_order_of_keys_in_a_file_changes_no_id(keys: list[str], fields: list[str]) -> None:
    block = {"name": "bat", "k": 4, "s": 2, "kt": 2}
    base = {"workload": "digits", "insertion": {"res3": [0]}, "recipe": {"epochs": 3, "lr": 0.1}}
    base["block"] = {"name": "bat", **{field: block[field] for field in fields}}
    made = make_plan(parse_sweep({"name": "x", "base": {key: base[key] for key in keys}}))
    reference = plan({"recipe": {"lr": 0.1, "epochs": 3}, "block": block})
    assert [arm.arm_id for arm in made.arms] == [arm.arm_id for arm in reference.arms]


def test_two_processes_plan_the_same_bytes() -> None:
    first, second = (
        longrange("plan", "quickstart", "--json", "--no-profile", PYTHONHASHSEED=seed) for seed in ("1", "2")
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    found = json.loads(first.stdout)
    assert set(found) >= {"trials", "rejected", "duplicates", "estimate"}
    assert set(found["trials"][0]) >= {"trial_id", "arm", "seed", "executed_macs", "params"}


def test_planning_imports_nothing_heavy() -> None:
    code = """
import sys
from orchestrator.cli import main
sys.argv = ["longrange", "plan", "quickstart", "--json", "--no-profile"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
heavy = {"torch", "ray", "mlflow", "pandas", "sqlalchemy", "plotly", "numpy", "fvcore", "sklearn"} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["quikstart"], "did you mean 'quickstart'?"),
        (["."], "is a folder"),
        (["quickstart", "--set", "seeds=0"], "seeds must be at least 1"),
        (["quickstart", "--only", "block.name=cbam"], "no arm has this"),
    ],
)
def test_mistakes_end_with_one_message_and_code_2(words: list[str], said: str, tmp_path: Path) -> None:
    done = longrange("plan", "--no-profile", "--save", str(tmp_path / "plan.json"), *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_the_quickstart_shows_a_rejection_on_purpose() -> None:
    made = make_plan(load_sweep("quickstart"))
    assert [item.label for item in made.rejected] == ["pnl n=3 @res3"]
    assert 60 <= made.estimate()["trials"] <= 90
