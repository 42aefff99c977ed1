"""How long a large sweep takes to plan, and how much memory: 10,000 trials over 500 distinct models.

    python -m benchmarks.planning [--profile]      prints seconds per step and the peak resident memory

Without `--profile` models are not built: what is measured is expanding, checking, identities and the plan as JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from orchestrator.plan import make_plan
from orchestrator.sweep import parse_sweep
from workloads.spec import ModelSpec

# 5 x 4 x 5 x 5 = 500 models, 4 recipes each, 5 seeds; the control adds 5 trials.
SWEEP = {
    "name": "large",
    "base": {
        "workload": "kinetics400",
        "backbone": {"name": "tsm_resnet50", "frames": 8, "size": 112},
        "block": {"name": "rnl"},
    },
    "axes": {
        "grid": {
            "block.kernel": [[1, 1, 1], [3, 1, 1], [1, 3, 3], [3, 3, 3], [3, 5, 5]],
            "insertion": [{"res3": [unit]} for unit in range(4)],
            "block.reduction": [1, 2, 4, 8, 16],
            "backbone.classes": [100, 200, 300, 400, 500],
            "recipe.lr": [0.001, 0.003, 0.01, 0.03],
        }
    },
    "seeds": 5,
}


def build_and_count(models: Sequence[ModelSpec]) -> list[dict[str, Any]]:
    """The profiles, one after the other in this process."""
    from workloads.counting import profile

    return [profile(model).model_dump(mode="json") for model in models]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", action="store_true", help="also build and count the 500 models")
    with_profile = parser.parse_args().profile
    start = time.perf_counter()
    made = make_plan(parse_sweep(SWEEP), profiler=build_and_count if with_profile else None)
    planned = time.perf_counter()
    text = json.dumps(made.to_json())
    written = time.perf_counter()
    estimate = made.estimate()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"{estimate['trials']} trials, {estimate['arms']} arms, {len(made.rejected)} rejected")
    print(f"plan {planned - start:.1f} s, as JSON {written - planned:.1f} s ({len(text) / 2**20:.1f} MiB)")
    print(f"peak resident memory {peak:.0f} MiB")
    command = [sys.executable, "-m", "orchestrator.cli", "plan", "quickstart", "--json", "--no-profile"]
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    print(f"longrange plan quickstart --json --no-profile: {min(times):.2f} s at best of {len(times)}")


if __name__ == "__main__":
    main()
