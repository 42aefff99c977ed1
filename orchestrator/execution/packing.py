"""Short trials share a job: what an engine spends on every job stays small beside them. See docs/decisions/0002."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.execution.base import Attempt

JOB_SECONDS = 5.0  # short trials are packed until a job is about this long
JOB_TRIALS = 100

Job = list[Attempt]


def packed(attempts: Sequence[Attempt], workers: int) -> list[Job]:
    """Pack short attempts of equal needs together, in order, but leave every worker something to do at the end."""
    jobs: list[Job] = []
    most = max(1, min(JOB_TRIALS, len(attempts) // (4 * workers)))
    seconds = 0.0
    for attempt in attempts:
        # A trial that nobody has priced may be long: it gets a job of its own.
        own = attempt.estimated_seconds if attempt.estimated_seconds is not None else JOB_SECONDS
        fits = jobs and len(jobs[-1]) < most and seconds + own <= JOB_SECONDS
        if fits and jobs[-1][0].resources == attempt.resources:
            jobs[-1].append(attempt)
            seconds += own
        else:
            jobs.append([attempt])
            seconds = own
    return jobs
