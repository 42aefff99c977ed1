"""How long a large sweep takes to plan and its models to profile, and how much memory.

    python -m benchmarks.planning [--profile] [--processes N] [--out FILE]

Plans 10,000 trials over 500 distinct models; without `--profile` models are not counted: what is measured is
expanding, checking, identities and the plan as JSON. With it, every count starts from an empty cache, and two more
cases are measured: 500 models that share as little as possible (backbone, frames, size, classes, block and places all
vary), and the first profile of TSM ResNet-50 with five NL blocks at 8 x 3 x 224 x 224.

Each case runs in a fresh process. `wall_s` and `cpu_s` include its imports and workers; `cores_used` is their ratio;
`least_s` is what the CPU work takes when nothing else runs, so `wall_s` far above it says that the machine was busy.
`profile_s` is the time of the call that counts, in which torch is imported.
`peak_mib` is the sum of the peaks of all processes of the case.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from orchestrator.plan import make_plan
from orchestrator.sweep import parse_sweep
from workloads.counting import profile_all
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec

GOALS = {"plan": ("wall_s", 60.0, 1024.0), "different": ("wall_s", 60.0, 1024.0), "first": ("profile_s", 3.0, 1024.0)}

# 5 x 4 x 5 x 5 = 500 models, 4 recipes each, 5 seeds; the control adds 5 trials.
SWEEP = {
    "name": "large",
    "base": {
        "workload": "kinetics400",
        "backbone": {"name": "tsm_resnet50", "frames": 8},
        "block": {"name": "rnl"},
    },
    "axes": {
        "grid": {
            "block.kernel": [[1, 1, 1], [3, 1, 1], [1, 3, 3], [3, 3, 3], [3, 5, 5]],
            "insertion": [{"res3": [unit]} for unit in range(4)],
            "block.reduction": [1, 2, 4, 8, 16],
            "backbone.size": [112, 128, 160, 192, 224],
            "recipe.lr": [0.001, 0.003, 0.01, 0.03],
        }
    },
    "seeds": 5,
}
BACKBONES = ("tsm_resnet50", "c2d_resnet50", "i3d_resnet50", "resnet50", "mfnet", "stnet", "tsn_se_resnet50")
BLOCKS: tuple[dict[str, Any], ...] = (
    {"name": "nl"},
    {"name": "nl", "sub_sample": "after"},
    {"name": "rnl", "kernel": [3, 3, 3]},
    {"name": "se_rnl"},
    {"name": "pnl", "n": 2},
    {"name": "bat", "k": 4},
    {"name": "cgnl"},
    {"name": "gc"},
    {"name": "se"},
    {"name": "cbam"},
)


def different_models(count: int = 500, seed: int = 0) -> list[ModelSpec]:
    """Models that differ in as many ways as they can; the same ones for the same seed."""
    draw = random.Random(seed)
    found: dict[str, ModelSpec] = {}
    while len(found) < count:
        name = draw.choice(BACKBONES)
        frames = 1 if name == "resnet50" else draw.choice([8, 16])
        size = draw.choice([112, 128, 160, 192, 224])
        backbone = {"name": name, "frames": frames, "size": size, "classes": draw.choice([101, 174, 200, 400])}
        stages = parse_backbone(backbone).stages()
        insertion = {
            stage: sorted(draw.sample(range(stages[stage].units), draw.randint(1, 3))) for stage in ("res3", "res4")
        }
        given = {"backbone": backbone, "block": draw.choice(BLOCKS), "insertion": insertion}
        if draw.random() < 0.5:
            given["insertion"] = {"res4": insertion["res4"]}
        spec = ModelSpec.model_validate(given)
        if not any(spec.block.problems(stages[stage].shape) for stage in spec.insertion):
            found[spec.model_dump_json()] = spec
    return list(found.values())


def plan_case(processes: int | None, *, counted: bool = True) -> dict[str, Any]:
    """Plan the large sweep."""

    def profiler(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
        return [profile.model_dump(mode="json") for profile in profile_all(models, processes=processes)]

    start = time.perf_counter()
    made = make_plan(parse_sweep(SWEEP), profiler=profiler if counted else None)
    planned = time.perf_counter()
    text = json.dumps(made.to_json())
    estimate = made.estimate()
    return {
        "trials": estimate["trials"],
        "arms": estimate["arms"],
        "models": len({arm.spec.model.model_dump_json() for arm in made.arms}),
        "plan_s": planned - start,
        "json_s": time.perf_counter() - planned,
        "json_mib": len(text) / 2**20,
    }


def different_case(processes: int | None) -> dict[str, Any]:
    """Profile 500 models that share little."""
    models = different_models()
    start = time.perf_counter()
    found = profile_all(models, processes=processes)
    counted = time.perf_counter()
    again = profile_all(models, processes=1)
    assert found == again, "counting twice gave two answers"
    bodies = {model.backbone.model_copy(update={"classes": 2}).model_dump_json() for model in models}
    return {
        "models": len(models),
        "distinct_bodies": len(bodies),
        "profile_s": counted - start,
        "again_over_first": (time.perf_counter() - counted) / (counted - start),
    }


def first_case(processes: int | None) -> dict[str, Any]:
    """Profile TSM ResNet-50 with five NL blocks, alone."""
    spec = ModelSpec.model_validate(
        {
            "backbone": {"name": "tsm_resnet50", "frames": 8, "size": 224, "classes": 400},
            "block": {"name": "nl"},
            "insertion": {"res3": [0, 2], "res4": [0, 2, 4]},
        }
    )
    start = time.perf_counter()
    found = profile_all([spec], processes=processes)[0]
    return {"profile_s": time.perf_counter() - start, "params": found.params, "executed_macs": found.executed_macs}


CASES: dict[str, Callable[[int | None], dict[str, Any]]] = {
    "plan": plan_case,
    "different": different_case,
    "first": first_case,
}


def run_case(name: str, processes: int | None) -> dict[str, Any]:
    """One case in a process of its own, with an empty cache."""
    command = [sys.executable, "-m", "benchmarks.planning", "--case", name]
    command += ["--processes", str(processes)] if processes else []
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "LONGRANGE_CACHE": cache}
        )
        wall = time.perf_counter() - start
    found: dict[str, Any] = json.loads(done.stdout)
    found["wall_s"] = wall
    found["cores_used"] = found["cpu_s"] / wall
    found["least_s"] = max(found["own_cpu_s"], found["cpu_s"] / (processes or 1))
    timed, seconds, mib = GOALS[name]
    found["goal"] = {timed: seconds, "peak_mib": mib}
    found["met"] = found[timed] <= seconds and found["peak_mib"] <= mib
    return found


def _usage(workers: int) -> dict[str, float]:
    """CPU seconds and peak memory of this process and its workers, each taken to be as large as the largest."""
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    own = mine.ru_utime + mine.ru_stime
    # getrusage's own peak starts from that of the process this one was forked from.
    peak = int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 2**10
    return {
        "cpu_s": own + theirs.ru_utime + theirs.ru_stime,
        "own_cpu_s": own,
        "own_peak_mib": peak,
        "worker_peak_mib": theirs.ru_maxrss / 2**10,
        "peak_mib": peak + workers * theirs.ru_maxrss / 2**10,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", action="store_true", help="also count the models, from an empty cache")
    parser.add_argument("--processes", type=int, default=2, help="workers that count (2)")
    parser.add_argument("--out", type=Path, help="file to write with --profile instead of one under benchmarks/results")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        found = CASES[given.case](given.processes)
        workers = given.processes if given.case != "first" and given.processes > 1 else 0
        print(json.dumps(found | _usage(workers)))
        return
    print(json.dumps(plan_case(None, counted=False) | _usage(0), indent=1))
    _start_times()
    if given.profile:
        cases = {name: run_case(name, given.processes) for name in CASES}
        print(json.dumps(cases, indent=1))
        print("wrote", record.write("planning", "cpu", {"processes": given.processes, "cases": cases}, given.out))


def _start_times() -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "plan", "quickstart", "--json", "--no-profile"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    print(f"longrange plan quickstart --json --no-profile: {min(times):.2f} s at best of {len(times)}")


if __name__ == "__main__":
    main()
