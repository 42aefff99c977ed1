"""The threads that read clips reach the workload: from a sweep's resources, under the executor, as planned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import api
from orchestrator.execution.base import Resources
from orchestrator.sweep import Sweep
from workloads.data.digits import Digits
from workloads.progress import Finished
from workloads.spec import RunContext, TrialSpec


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        (Resources(), 0),
        (Resources(cpus=0.5, gpus=1), 1),
        (Resources(cpus=6, gpus=1), 6),
        (Resources(cpus=2), 2),
        (Resources(cpus=8, data_workers=3), 3),
        (Resources(cpus=8, data_workers=0), 0),
    ],
)
def test_threads_follow_the_cores(resources: Resources, threads: int) -> None:
    assert resources.loading_threads == threads


@pytest.mark.parametrize(
    ("rule", "threads"), [({}, 0), ({"cpus": 2}, 2), ({"data_workers": 5}, 5), ({"cpus": 4, "data_workers": 0}, 0)]
)
def test_a_sweeps_resources_reach_the_workload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, Any], threads: int
) -> None:
    seen = []

    def run(self: Digits, spec: TrialSpec, context: RunContext) -> Iterator[Finished]:
        seen.append(context.data_workers)
        yield Finished({"top1_percent": 50.0})

    monkeypatch.setattr(Digits, "prepare", lambda self, context: None)
    monkeypatch.setattr(Digits, "run", run)
    sweep = Sweep(
        name="s",
        base={"workload": "digits", "insertion": {"res3": [0]}},
        axes={"grid": {"block": ["nl"]}},
        seeds=(0,),
        resources=(rule,),
    )
    api.run(sweep, out=tmp_path, executor="inline", mlflow="off")
    assert seen == [threads, threads]
