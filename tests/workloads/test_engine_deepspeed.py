"""DeepSpeed gets what the recipe says, and ends where plain DDP ends, whatever it partitions."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny_trial import SPEC

from workloads.engine_deepspeed import deepspeed_config
from workloads.recipes import Recipe

# Only found here: importing it takes a second, of every worker that runs none of these tests too.
MISSING = "the extra longrange[deepspeed] is not installed"
pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason=MISSING)

ROOT = Path(__file__).parents[2]
RECIPE = {"epochs": 2, "batch": 16, "optimizer": "sgd", "lr": 0.05, "schedule": "cosine", "warmup_epochs": 0.5}
# Partitioned gradients are summed in another order: float32 parts by 4e-8 in the first epoch, which twelve steps of
# batch normalisation on small batches amplify (1.5e-5 seen with ZeRO 3).
ROUNDING = 1e-4


def test_the_config_is_the_recipes():
    recipe = Recipe(engine="deepspeed", zero_stage=2, precision="bf16", clip_grad_norm=0.5)
    config = deepspeed_config(recipe, batch=32, world=2, micro_batch=4)
    assert (config["train_batch_size"], config["train_micro_batch_size_per_gpu"]) == (32, 4)
    assert config["gradient_accumulation_steps"] == 4
    assert config["zero_optimization"]["stage"] == 2
    assert config["gradient_clipping"] == 0.5
    assert config["torch_autocast"]["dtype"] == "bfloat16"
    assert deepspeed_config(Recipe(engine="deepspeed"), batch=8, world=1, micro_batch=8)["gradient_clipping"] == 0.0


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="given batch 30, 2 processes, micro-batch 4"):
        deepspeed_config(Recipe(engine="deepspeed"), batch=30, world=2, micro_batch=4)


SEEN_INSIDE = """
import json, sys, torch
from torch import nn
from workloads.engine_deepspeed import DeepSpeedEngine
from workloads.recipes import Recipe
recipe = Recipe(engine="deepspeed", zero_stage=1, lr_batch=8, **json.loads(sys.argv[1]))
net = nn.Linear(3, 2)
engine = DeepSpeedEngine(net, net, recipe, torch.device("cpu"), batch=recipe.batch, micro_batch=4)
for last in [False] * (recipe.batch // 4 - 1) + [True]:
    engine.backward(engine.forward(torch.ones(4, 3)).sum(), last=last)
engine.step(0.5)
inside = engine.deepspeed
print(json.dumps([inside.optimizer.param_groups[0]["lr"], inside.train_batch_size(), inside.global_steps]))
"""


@pytest.mark.slow
def test_swept_learning_rate_and_batch_are_seen_inside_the_engine():
    seen = []
    for values in ({"lr": 0.1, "batch": 8}, {"lr": 0.4, "batch": 16}):
        command = [sys.executable, "-c", SEEN_INSIDE, json.dumps(values)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        seen.append(json.loads(done.stdout.splitlines()[-1]))
    # lr x linear scaling (batch / 8) x the schedule's 0.5; one step for one effective batch
    assert seen == [pytest.approx([0.1 * 0.5, 8, 1]), pytest.approx([0.4 * 2 * 0.5, 16, 1])]


@pytest.mark.slow
def test_two_processes_end_where_plain_ddp_ends(tmp_path, plain_ddp):
    found = run_trial(tmp_path, {"engine": "deepspeed"}, cache=plain_ddp["cache"])
    assert found["train_loss"] == pytest.approx(plain_ddp["train_loss"], rel=ROUNDING)
    np.testing.assert_allclose(found["scores"], plain_ddp["scores"], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "then"), [(1, None), (None, 3)])
def test_a_trial_stopped_under_one_engine_and_resumed_under_another_ends_where_plain_ddp_ends(
    tmp_path, plain_ddp, first, then
):
    found = stop_and_resume(tmp_path, plain_ddp["cache"], first, then)
    assert found["train_loss"] == pytest.approx(plain_ddp["train_loss"], rel=ROUNDING)
    np.testing.assert_allclose(found["scores"], plain_ddp["scores"], atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_a_partitioned_trial_stopped_and_resumed_is_the_uninterrupted_one(tmp_path, plain_ddp, stage):
    whole = run_trial(tmp_path / "whole", zero(stage), cache=plain_ddp["cache"])
    found = stop_and_resume(tmp_path / "parts", plain_ddp["cache"], stage, stage)
    assert found["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-12)
    np.testing.assert_allclose(found["scores"], whole["scores"], atol=1e-6)
    assert whole["train_loss"] == pytest.approx(plain_ddp["train_loss"], rel=ROUNDING)
    np.testing.assert_allclose(whole["scores"], plain_ddp["scores"], atol=2e-3)


def stop_and_resume(out, cache, first, then):
    """What a trial reports that was stopped after one epoch under a ZeRO stage and went on under another."""
    stopped = run_trial(out, zero(first), cache=cache, stop_after=1)
    assert stopped["stopped"]
    resumed = run_trial(out, zero(then), cache=cache)
    return resumed | {"train_loss": stopped["train_loss"] + resumed["train_loss"]}


def zero(stage):
    """Recipe values for a ZeRO stage; None is plain DDP."""
    return {} if stage is None else {"engine": "deepspeed", "zero_stage": stage}


@pytest.fixture(scope="module")
def plain_ddp(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return {**run_trial(tmp_path_factory.mktemp("ddp"), {}, cache=cache), "cache": cache}


def run_trial(out, recipe, *, cache, world=2, **options):
    """What rank 0 of `world` processes reports."""
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    given = json.dumps({"spec": {**SPEC, "recipe": {"name": "custom", **RECIPE, **recipe}}, **options})
    # No compiler on the path: nothing may need one.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": "/nowhere", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(Path(__file__).with_name("engine_run.py")), str(out)]
    with contextlib.ExitStack() as files:
        logs = [files.enter_context((out / f"log{rank}").open("w")) for rank in range(world)]
        processes = [
            subprocess.Popen(
                [*command, str(rank), str(world), port, str(cache), given], env=environment, stdout=log, stderr=log
            )
            for rank, log in enumerate(logs)
        ]
        codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0] * world, (out / "log0").read_text()[-3000:]
    return json.loads((out / "rank0.json").read_text())
