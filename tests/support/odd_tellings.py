"""A workload whose blocks tell what not every database can hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scripted import Scripted, ScriptedRun

from workloads.progress import BadData, EpochDone, Finished, Progress
from workloads.spec import RunContext, TrialSpec

UNREADABLE = "caf\udce9.mp4"  # as Python names a file whose name is not UTF-8
METRICS: dict[str, dict[str, Any]] = {
    "nul": {"a\0b": 1.0},
    "unreadable": {UNREADABLE: 1.0},
    "long": {"m" * 101: 1.0},
    "empty": {"": 1.0},
    "none": {"rate": None},
    "text": {"rate": "high"},
}


class Odd(Scripted):
    """The control's trials finish; `tells` is what the others tell."""

    name: str = "odd_tellings:Odd"
    tells: str = "message"

    def fingerprint(self) -> str:
        return "f" * 80 if self.tells == "long fingerprint" else super().fingerprint()

    def open(self) -> OddRun:
        return OddRun(self)


class OddRun(ScriptedRun):
    config: Odd

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        for progress in super().run(spec, context):
            yield progress if spec.block.name == "none" else self._odd(progress)

    def _odd(self, progress: Progress) -> Progress:
        tells = self.config.tells
        if tells == "message":
            raise BadData(f"3 of 100 clips are unreadable: {UNREADABLE}, a\0b")
        if tells == "names" and isinstance(progress, Finished) and progress.predictions is not None:
            clips = (UNREADABLE, *progress.predictions.clips[1:])
            predictions = replace(progress.predictions, clips=clips)
            return replace(progress, predictions=predictions, notes=(f"{UNREADABLE} a\0b",))
        if isinstance(progress, EpochDone) and tells in METRICS:
            return replace(progress, metrics={**progress.metrics, **METRICS[tells]})
        return progress
