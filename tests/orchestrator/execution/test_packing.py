"""Which trials share a job, and that their order stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.execution.base import Attempt, Resources
from orchestrator.execution.packing import JOB_TRIALS, packed


def attempts(seconds: list[float | None], *, cpus: list[float] | None = None) -> list[Attempt]:
    needs = [Resources(cpus=one) for one in cpus or [1.0] * len(seconds)]
    return [
        Attempt(str(number), {}, 1, Path(), Path(), need, estimated_seconds=one)
        for number, (one, need) in enumerate(zip(seconds, needs, strict=True))
    ]


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        pytest.param([9.0, 7.0] + [1.0] * 30, [1, 1, 4, 4, 4, 4, 4, 4, 4, 2], id="long ones stay alone"),
        pytest.param([2.0] * 32, [2] * 16, id="a job is about five seconds long"),
        pytest.param([0.0] * 16, [2] * 8, id="four jobs per worker are left to the end"),
        pytest.param([0.0] * 4000, [JOB_TRIALS] * 40, id="no job is endless"),
        pytest.param([None] * 32, [1] * 32, id="nobody knows how long"),
        pytest.param([0.0] * 3, [1] * 3, id="few trials use all workers"),
    ],
)
def test_short_trials_share_a_job(seconds: list[float | None], sizes: list[int]) -> None:
    todo = attempts(seconds)
    jobs = packed(todo, workers=2)
    assert [len(job) for job in jobs] == sizes
    assert [attempt for job in jobs for attempt in job] == todo, "in the order given"


def test_a_job_asks_for_one_kind_of_place() -> None:
    jobs = packed(attempts([0.0] * 16, cpus=[1.0] * 3 + [0.5] * 13), workers=1)
    assert [{attempt.resources.cpus for attempt in job} for job in jobs] == [{1.0}, {0.5}, {0.5}, {0.5}, {0.5}]
