"""One suite over every executor: the in-process one is the reference."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from placed import gpus_seen

from orchestrator.errors import LongrangeError
from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started
from orchestrator.execution.base import Attempt, Executor, Resources
from orchestrator.execution.inline import InlineExecutor
from orchestrator.failures import Cause
from orchestrator.plan import make_plan
from orchestrator.sweep import parse_sweep
from workloads.progress import EpochDone

Attempts = Callable[..., list[Attempt]]
SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray on this machine, with two GPUs that only Ray believes in: it takes seconds to start, so tests share it."""
    from orchestrator.execution.ray_tune import RayExecutor

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SUPPORT), prepend=os.pathsep)  # of workers, which find the scripted workload
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
        with RayExecutor(workers=2):
            yield


@pytest.fixture
def ray_executor(ray_here: None) -> Executor:
    from orchestrator.execution.ray_tune import RayExecutor

    return RayExecutor(workers=2)


@pytest.fixture(params=["inline", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_executor")
        return
    with InlineExecutor() as inline:
        yield inline


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    def make(
        script: str = "finish",
        *,
        seeds: tuple[int, ...] = (),
        epoch_seconds: float = 0.0,
        name: str = "scripted:Scripted",
    ) -> list[Attempt]:
        workload = {
            "name": name,
            "script": script,
            "seeds": list(seeds),
            "epoch_seconds": epoch_seconds,
        }
        sweep = parse_sweep({"name": "t", "base": {"workload": workload, "block": "none"}, "seeds": 3})
        return [
            Attempt(
                trial_id=trial.trial_id,
                content=trial.content,
                number=1,
                checkpoint_dir=tmp_path / "checkpoints" / trial.trial_id,
                cache_dir=tmp_path / "cache",
                estimated_seconds=0.01,
            )
            for _, trial in make_plan(sweep).ordered()
        ]

    return make


def by_trial(events: list[Event]) -> dict[str, list[Event]]:
    grouped: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        grouped[event.trial_id].append(event)
    return grouped


def epochs(events: list[Event]) -> list[int]:
    """The epochs the driver heard of, in order; fails if one was trained twice."""
    told = [event for event in events if isinstance(event, Progressed) and isinstance(event.progress, EpochDone)]
    trained = [event.progress.epoch for event in told if not event.replayed]
    assert len(set(trained)) == len(trained)
    return list(dict.fromkeys(event.progress.epoch for event in told))


def test_a_trial_can_pause_and_go_on(executor: Executor, attempts: Attempts) -> None:
    todo = [dataclasses.replace(attempt, pause_after=2) for attempt in attempts()]
    paused: list[Attempt] = []
    told: list[Event] = []

    def further() -> list[Attempt] | None:
        going_on, paused[:] = paused[:], []
        return None if sum(isinstance(event, Ended) for event in told) == len(todo) else going_on

    for event in executor.run(todo, further):
        told.append(event)
        if isinstance(event, Paused):
            (before,) = [attempt for attempt in todo if attempt.trial_id == event.trial_id]
            paused.append(dataclasses.replace(before, number=2, pause_after=None))
    for events in by_trial(told).values():
        kinds = [type(event) for event in events if not isinstance(event, Progressed)]
        assert kinds == [Started, Paused, Started, Ended]
        assert epochs(events) == [0, 1, 2]


def test_every_trial_starts_once_and_ends_once_with_all_epochs(executor: Executor, attempts: Attempts) -> None:
    todo = attempts()
    grouped = by_trial(list(executor.run(todo)))
    assert set(grouped) == {attempt.trial_id for attempt in todo}
    for events in grouped.values():
        assert isinstance(events[0], Started)
        assert epochs(events) == [0, 1, 2]
        assert isinstance(events[-1], Ended)
        assert events[-1].state == "finished"
        assert sum(isinstance(event, Ended) for event in events) == 1


@pytest.mark.parametrize(
    ("script", "state", "cause"),
    [("diverge", "diverged", Cause.DIVERGED), ("bug", "failed", Cause.BUG), ("bad-data", "failed", Cause.BAD_DATA)],
)
def test_a_failing_trial_ends_alone(
    executor: Executor, attempts: Attempts, script: str, state: str, cause: Cause
) -> None:
    todo = attempts(script, seeds=(1,))
    ended = {e.trial_id: e for e in executor.run(todo) if isinstance(e, Ended)}
    states = [ended[attempt.trial_id].state for attempt in sorted(todo, key=lambda a: a.content["seed"])]
    assert states == ["finished", state, "finished"]
    failed = next(e for e in ended.values() if e.state == state)
    assert failed.cause is cause
    assert failed.message


def test_out_of_memory_halves_the_micro_batch_until_it_fits(executor: Executor, attempts: Attempts) -> None:
    events = by_trial(list(executor.run(attempts("oom-above-8", seeds=(0,)))))
    starts = [[event.micro_batch for event in group if isinstance(event, Started)] for group in events.values()]
    assert sorted(starts, key=len) == [[None], [None], [None, 16, 8]]
    assert all(group[-1].state == "finished" for group in events.values())  # type: ignore[union-attr]
    assert all(epochs(group) == [0, 1, 2] for group in events.values()), "a retry resumes, it does not start over"


def test_memory_that_an_allocator_really_refuses_halves_the_micro_batch(executor: Executor, attempts: Attempts) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("the limit is set from /proc, which is Linux's")
    events = by_trial(list(executor.run(attempts("memory", seeds=(0,)))))
    starts = [[event.micro_batch for event in group if isinstance(event, Started)] for group in events.values()]
    assert sorted(starts, key=len) == [[None], [None], [None, 16]]
    (refused,) = (event for group in events.values() for event in group if isinstance(event, AttemptFailed))
    assert refused.cause is Cause.OUT_OF_MEMORY
    assert "allocate memory" in refused.message, "the message of torch, not of the test"
    assert all(group[-1].state == "finished" for group in events.values())  # type: ignore[union-attr]


def test_memory_that_never_suffices_is_infeasible(executor: Executor, attempts: Attempts) -> None:
    ended = [e for e in executor.run(attempts("oom", seeds=(2,))) if isinstance(e, Ended)]
    assert sorted(e.state for e in ended) == ["finished", "finished", "infeasible"]


def test_a_worker_given_another_trial_than_planned_refuses(executor: Executor, attempts: Attempts) -> None:
    wrong = dataclasses.replace(attempts()[0], trial_id="0" * 16)
    ended = [e for e in executor.run([wrong]) if isinstance(e, Ended)]
    assert [e.state for e in ended] == ["failed"]
    assert "was given" in ended[0].message


def test_cancelling_keeps_what_is_done_and_leaves_the_rest(executor: Executor, attempts: Attempts) -> None:
    seen = []
    for event in executor.run(attempts(epoch_seconds=0.8)):
        seen.append(event)
        executor.cancel()
    ended = [e for e in seen if isinstance(e, Ended)]
    assert 1 <= len(ended) <= 2, "two workers at most were busy"
    assert all(e.state == "cancelled" for e in ended)


def test_a_ray_that_does_not_start_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.execution import ray_tune

    def too_busy(*_: Any, **__: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray_tune.ray, "init", too_busy)
    with pytest.raises(LongrangeError, match=r"cannot start or reach Ray at this machine: .* timed out"):
        ray_tune.RayExecutor().__enter__()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_support_on_path")
@pytest.mark.parametrize(
    ("script", "cause", "said", "again"),
    [
        ("kill-once", Cause.LOST, "the worker process or its node was lost", [1, 2]),
        ("term-once", Cause.LOST, "the worker was asked to go (SIGTERM)", [2]),
        ("hang-once", Cause.HANGING, "no progress for 20 s; the worker was ended", [1, 2]),
    ],
)
def test_a_trial_survives_its_worker(
    attempts: Attempts, ray_executor: Executor, script: str, cause: Cause, said: str, again: list[int]
) -> None:
    limit = 20.0 if script == "hang-once" else None  # a busy machine is slow to import torch; that is no hang
    todo = [dataclasses.replace(attempt, hang_seconds=limit) for attempt in attempts(script, seeds=(1,))]
    events = by_trial(list(ray_executor.run(todo)))
    for group in events.values():
        assert group[-1].state == "finished"  # type: ignore[union-attr]
        assert epochs(group) == [0, 1, 2], "told again where the dead worker could not tell it"
    (lost,) = [e for group in events.values() for e in group if isinstance(e, AttemptFailed)]
    assert (lost.cause, lost.message, lost.retried) == (cause, said, True)
    second = [e for e in events[lost.trial_id] if isinstance(e, Progressed) and e.attempt == 2 and not e.replayed]
    trained = [e.progress.epoch for e in second if isinstance(e.progress, EpochDone)]
    assert trained == again, "who is asked to go ends its epoch and keeps it, others lose the one they were in"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_support_on_path")
def test_arms_get_resources_of_their_own_and_workers_check_them(attempts: Attempts, ray_executor: Executor) -> None:
    import ray

    from orchestrator.execution.ray_tune import _run_job

    kinds = [Resources(cpus=0.5), Resources(cpus=2.0), Resources(cpus=0.25)]
    todo = [dataclasses.replace(one, resources=kind) for one, kind in zip(attempts(), kinds * 2, strict=False)]
    ended = [event for event in ray_executor.run(todo) if isinstance(event, Ended)]
    assert [event.state for event in ended] == ["finished"] * len(todo), "each worker found what the plan says"

    @ray.remote(num_cpus=0.5)  # type: ignore[untyped-decorator]
    def half(attempt: Attempt) -> list[Event]:
        return list(_run_job([attempt], threading.Event()))

    assert isinstance(ray.get(half.remote(todo[0]))[-1], Ended)
    (refused,) = ray.get(half.remote(todo[1]))
    assert isinstance(refused, AttemptFailed)
    assert "the plan says {'CPU': 2.0" in refused.message


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_support_on_path")
def test_trials_share_gpus_by_fractions_and_processes_have_one_each(
    attempts: Attempts, tmp_path: Path, ray_executor: Executor
) -> None:
    kinds = [Resources(cpus=0.5, gpus=0.5), Resources(cpus=0.5, gpus=0.5), Resources(gpus=1.0, workers=2)]
    todo = [
        dataclasses.replace(one, resources=kind)
        for one, kind in zip(attempts(name="placed:Placed"), kinds, strict=True)
    ]
    ended = [event for event in ray_executor.run(todo) if isinstance(event, Ended)]
    assert [event.state for event in ended] == ["finished"] * 3
    one, other, crew = (gpus_seen(tmp_path / "cache")[attempt.trial_id] for attempt in todo)
    assert [len(one), len(other)] == [1, 1]
    assert {*one, *other} <= {"0", "1"}, "half a GPU is one that others see too"
    assert sorted(crew) == ["0", "1"], "each process sees its own alone"


def test_attempts_that_come_later_run_too(executor: Executor, attempts: Attempts) -> None:
    first, *later = attempts()
    ended: list[str] = []

    def further() -> list[Attempt] | None:
        if not later:
            return None
        drawn = 2 - len(later) + 1
        return [later.pop(0)] if len(ended) >= drawn else []  # as a search that waits for what it has drawn

    wanted = [first.trial_id, *(one.trial_id for one in later)]
    for event in executor.run([first], further):
        if isinstance(event, Ended):
            ended.append(event.trial_id)
    assert ended == wanted
