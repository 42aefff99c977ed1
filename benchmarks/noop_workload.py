"""A workload whose trials do nothing: what is left of a sweep's time is the orchestrator's."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from workloads.progress import EpochDone, Finished, Progress
from workloads.registry import WorkloadConfig
from workloads.spec import RunContext, TrialSpec

METRICS = {"train_loss": 1.0, "top1_percent": 50.0}
LOG = "BENCHMARK_LOG"


class Noop(WorkloadConfig):
    """One epoch of nothing. If `BENCHMARK_LOG` names a file, each trial's seed, arm and end go there."""

    name: str = "noop_workload:Noop"
    arm: int = 0

    @property
    def classes(self) -> int:
        return 4

    def clips(self) -> tuple[int, int]:
        return (1, 1)

    def defaults(self) -> dict[str, Any]:
        return {"backbone": {"name": "resnet_tiny", "frames": 4, "size": 16}, "recipe": {"epochs": 1, "freeze": []}}

    def open(self) -> NoopRun:
        return NoopRun()


class NoopRun:
    """Reports once and ends."""

    def prepare(self, context: RunContext) -> None:
        """Nothing to prepare."""

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        yield EpochDone(0, METRICS, 0.0)
        if LOG in os.environ:
            with open(os.environ[LOG], "a", encoding="utf-8") as log:
                log.write(f"{context.checkpoint_dir.name} {time.time()}\n")
        yield Finished(METRICS)
