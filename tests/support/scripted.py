"""A workload whose trials do what the test says: finish, diverge, run out of memory, kill their process."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from workloads.progress import BadData, CheckpointWritten, Diverged, EpochDone, Finished, Predictions, Progress, Stopped
from workloads.registry import WorkloadConfig
from workloads.spec import RunContext, TrialSpec

CLIPS = 40


class Scripted(WorkloadConfig):
    """`script` is what trials with a seed in `seeds` do (all if empty); the others finish."""

    name: str = "scripted:Scripted"
    script: Literal[
        "finish",
        "rated",
        "diverge",
        "oom",
        "oom-above-8",
        "memory",
        "bug",
        "bad-data",
        "kill-once",
        "kill-always",
        "hang-once",
        "term-once",
    ] = "finish"
    seeds: tuple[int, ...] = ()
    epoch_seconds: float = 0.0

    @property
    def classes(self) -> int:
        return 4

    @property
    def channels(self) -> int:
        return 1

    def clips(self) -> tuple[int, int]:
        return (1, CLIPS)

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "resnet_tiny", "frames": 4, "size": 16},
            "recipe": {"epochs": 3, "batch": 32, "freeze": []},
        }

    def open(self) -> ScriptedRun:
        return ScriptedRun(self)


class ScriptedRun:
    """Accuracy depends on the block's name and the seed only, so results are the same wherever they are made."""

    def __init__(self, config: Scripted) -> None:
        self.config = config

    def prepare(self, context: RunContext) -> None:
        context.cache_dir.mkdir(parents=True, exist_ok=True)

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        saved = context.checkpoint_dir / "state.json"
        first = json.loads(saved.read_text())["epoch"] + 1 if saved.exists() else 0
        script = self.config.script if not self.config.seeds or spec.seed in self.config.seeds else "finish"
        for epoch in range(first, min(spec.recipe.epochs, context.pause_after or spec.recipe.epochs)):
            if context.stop():
                raise Stopped("asked to stop")
            time.sleep(self.config.epoch_seconds)
            self._act(script, epoch, context)
            rated = {"rate": _rate(spec, epoch) + epoch} if script == "rated" else {}
            yield EpochDone(epoch, {"train_loss": 1.0 / (epoch + 1), "top1_percent": 10.0 * epoch, **rated}, 0.01)
            saved.parent.mkdir(parents=True, exist_ok=True)
            aside = saved.with_name(f"{saved.name}.{os.getpid()}")  # a kill in the middle leaves the old one
            aside.write_text(json.dumps({"epoch": epoch}))
            aside.replace(saved)
            yield CheckpointWritten(epoch, saved)
        if (context.pause_after or spec.recipe.epochs) < spec.recipe.epochs:
            return
        result = _result(spec, first)
        yield (
            replace(result, metrics={**result.metrics, "rate": _rate(spec, spec.recipe.epochs)})
            if script == "rated"
            else result
        )

    def _act(self, script: str, epoch: int, context: RunContext) -> None:
        if epoch != 1:
            return
        if script == "diverge":
            raise Diverged(f"loss is {math.nan} in epoch {epoch}")
        if script == "oom" or (script == "oom-above-8" and (context.micro_batch or 32) > 8):
            raise MemoryError("scripted: not enough memory")
        if script == "memory":
            _fill_memory(context.micro_batch or 32)
        if script == "bad-data":
            raise BadData("3 of 100 clips are unreadable: a.mp4, b.mp4, c.mp4")
        if script == "bug":
            raise KeyError("scripted bug")
        marker = context.checkpoint_dir / "acted"
        if script.endswith("-once") and marker.exists():
            return
        if script.startswith(("kill", "hang", "term")):
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            _break(script)


def _fill_memory(clips: int) -> None:
    """Really ask for 32 MiB per clip where 600 MiB are left: the allocator refuses 32 clips and gives 16."""
    import torch

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20, before[1]))
    try:
        torch.ones(clips, 8 * 2**20)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _rate(spec: TrialSpec, epoch: int) -> float:
    """Highest at a learning rate of 0.02: something for a search to find."""
    return 50.0 - 10.0 * abs(math.log10(spec.recipe.at(epoch).lr / 0.02))


def _break(script: str) -> None:
    if script.startswith("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    if script.startswith("hang"):
        time.sleep(3600)
    os.kill(os.getpid(), signal.SIGTERM)


def _result(spec: TrialSpec, first: int) -> Finished:
    generator = np.random.default_rng(spec.seed)
    better = 0.9 if spec.block.name != "none" else 0.5
    labels = generator.integers(0, 4, CLIPS)
    right = generator.random(CLIPS) < better
    scores = np.full((CLIPS, 4), 0.1, np.float16)
    scores[np.arange(CLIPS), np.where(right, labels, (labels + 1) % 4)] = 0.7
    metrics = {"top1_percent": 100.0 * float(right.mean()), "train_seconds": 0.01 * (spec.recipe.epochs - first)}
    clips = tuple(f"clip-{index}" for index in range(CLIPS))
    return Finished(metrics, Predictions(clips, labels.astype(np.int64), scores), {"latency_ms": (1.0, 1.1, 0.9)})
