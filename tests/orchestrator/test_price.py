"""Prices: by hand, from earlier trials, and how wrong they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.plan import make_plan
from orchestrator.price import ASSUMED_RATE, PastTrial, Pricer, clip_passes, prediction_error
from orchestrator.sweep import parse_sweep
from workloads.spec import ModelSpec, TrialSpec

WORKLOAD = {"name": "digits", "train_clips": 100, "validation_clips": 30}

BASE = {"workload": WORKLOAD, "insertion": {"res3": [0]}, "block": "nl"}


def spec(**base: Any) -> TrialSpec:
    given = {"workload": WORKLOAD, "recipe": {"name": "quick", "epochs": 2, "batch": 10}, **base}
    return make_plan(parse_sweep({"name": "x", "base": given})).control.spec


def past(arm_id: str = "other", *, workload: str = "digits", device: str = "cpu", seconds: float = 2.0) -> PastTrial:
    return PastTrial(arm_id, workload, device, macs=1e9, seconds=seconds)


def price(pricer: Pricer, **changes: Any) -> Any:
    given = {"executed_macs": 1_000_000, "params": 1_000, "activation_bytes": 5_000, **changes}
    return pricer.price(spec(), "mine", **given)


@pytest.mark.parametrize(
    ("protocol", "passes"),
    [
        ("centre", 1 * 2 * 3 + 40),  # forward and backward: three passes per training clip
        ({"clips": 4}, 1 * 2 * 3 + 40 * 4),
        ("views_10x3", 1 * 2 * 3 + 40 * 30),
        ("full", 1 * 2 * 3 + 40),
    ],
)
def test_passes_by_hand(protocol: Any, passes: int) -> None:
    """One clip is trained on, forty are evaluated."""
    assert clip_passes(spec(protocol=protocol, workload="scripted:Scripted", block="none")) == passes


def test_passes_are_unknown_where_the_clips_are() -> None:
    assert clip_passes(spec(workload={"name": "folder", "class_count": 3})) is None


def test_the_pricer_knows_how_far_off_earlier_plans_were() -> None:
    trials = [
        PastTrial("a", "digits", "cpu", 1e9, seconds, predicted) for seconds, predicted in [(2, 1), (2, 3), (2, 4)]
    ]
    assert Pricer(trials).error == 0.5
    assert Pricer(trials, devices=["cuda"]).error is None
    assert Pricer([PastTrial("a", "digits", "cpu", 1e9, 2.0)]).error is None


def test_an_assumption_is_said_to_be_one() -> None:
    found = price(Pricer())
    assert found.macs == 630e6
    assert found.seconds == 630e6 / ASSUMED_RATE["cpu"]
    assert found.basis == "assumed 1.0e+10 MAC/s on cpu"
    assert price(Pricer(), device="cuda").seconds == 630e6 / ASSUMED_RATE["cuda"]


def test_memory_is_weights_and_their_state_and_a_batch_of_activations() -> None:
    assert price(Pricer()).memory_bytes == 1_000 * 16 + 5_000 * 10
    assert price(Pricer(), params=None).memory_bytes is None
    assert price(Pricer(), activation_bytes=None).memory_bytes is None


def test_earlier_trials_of_the_arm_are_the_best_witness() -> None:
    witnesses = [past("mine", seconds=seconds) for seconds in (3.0, 9.0, 4.0)]
    found = price(Pricer([*witnesses, past()]))
    assert (found.seconds, found.basis) == (4.0, "median of 3 earlier trials of this arm")
    assert price(Pricer(witnesses), executed_macs=None).seconds == 4.0


def test_then_trials_of_the_workload_give_a_rate() -> None:
    found = price(Pricer([past(seconds=1.0), past(seconds=2.0), past(seconds=4.0)]))
    assert found.seconds == 630e6 / 0.5e9
    assert found.basis == "rate of 3 earlier trials"


@pytest.mark.parametrize("other", [past("mine", device="cuda"), past(workload="folder"), past("mine", seconds=0.0)])
def test_trials_elsewhere_are_no_witness(other: PastTrial) -> None:
    assert price(Pricer([other])).basis.startswith("assumed")


def test_what_is_unknown_is_not_guessed() -> None:
    found = price(Pricer(), executed_macs=None)
    assert (found.seconds, found.macs) == (None, None)
    assert found.basis == "unknown: needs the data and the profile"


def test_the_error_of_predictions_is_their_median_relative_error() -> None:
    assert prediction_error([(10.0, 20.0), (30.0, 20.0), (22.0, 20.0)]) == 0.5
    assert prediction_error([(1.0, 0.0)]) is None
    assert prediction_error([]) is None


def test_several_workers_are_as_many_times_as_fast_and_share_the_batch() -> None:
    one, four = price(Pricer()), price(Pricer(), workers=4)
    assert four.seconds == one.seconds / 4
    assert four.memory_bytes == 1_000 * 16 + 5_000 * 3, "ten clips among four: three at most"
    assert four.macs == one.macs
    assert four.basis == "assumed 1.0e+10 MAC/s on cpu, 4 workers as 4 times one"


@pytest.mark.parametrize("arm", ["mine", "other"])
def test_what_several_workers_took_prices_one_and_others(arm: str) -> None:
    took = PastTrial(arm, "digits", "cpu", macs=630e6, seconds=10.0, workers=2)
    assert price(Pricer([took])).seconds == 20.0
    assert price(Pricer([took]), workers=2).seconds == 10.0
    assert price(Pricer([took]), workers=4).seconds == 5.0


def test_device_hours_do_not_depend_on_how_many_workers_share_the_work() -> None:
    hours = {}
    for workers in (1, 4):
        sweep = {"name": "x", "base": BASE, "resources": {"gpus": 1, "workers": workers}}
        hours[workers] = make_plan(parse_sweep(sweep), profiler=one_million).estimate()["gpu_hours"]
    assert hours[1] == hours[4] > 0


def test_arms_of_one_sweep_are_priced_by_their_own_devices() -> None:
    rules = [{"when": {"block.name": "nl"}, "gpus": 1}, {"cpus": 1}]
    plan = make_plan(parse_sweep({"name": "x", "base": BASE, "resources": rules}), profiler=one_million)
    assert {arm.label: arm.price.basis for arm in plan.arms} == {
        "none": "assumed 1.0e+10 MAC/s on cpu",
        "nl": "assumed 1.5e+13 MAC/s on cuda",
    }


def one_million(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
    return [{"params": 1_000, "executed_macs": 1_000_000_000, "peak_activation_bytes": 1_000} for _ in models]
