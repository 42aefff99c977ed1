"""Trials of several processes: the numbers of processes started by hand, and one clear cause when one is lost."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
from tiny_trial import SPEC

from orchestrator.events import AttemptFailed, Ended, Event, Progressed, Started
from orchestrator.execution import group
from orchestrator.execution.base import Attempt, Resources, follow_up
from orchestrator.execution.group import supervise
from orchestrator.execution.inline import InlineExecutor, own_device
from orchestrator.execution.worker import hang_marker
from orchestrator.failures import Cause
from orchestrator.trial import identity
from workloads.progress import EpochDone, Finished
from workloads.spec import TrialSpec

ROOT = Path(__file__).parents[3]
RECIPE = {"name": "custom", "epochs": 2, "batch": 16, "optimizer": "sgd", "lr": 0.05, "schedule": "cosine"}


def an_attempt(folder: Path, content: dict[str, Any], **more: Any) -> Attempt:
    content = TrialSpec.model_validate(content).to_json()
    trial_id = identity(content)
    return Attempt(trial_id, content, 1, folder / trial_id, folder / "cache", Resources(workers=2), **more)


def digits(folder: Path, **recipe: Any) -> Attempt:
    return an_attempt(folder, SPEC | {"recipe": {**RECIPE, **recipe}})


def losses(events: list[Event]) -> list[float]:
    told = [event.progress for event in events if isinstance(event, Progressed) and not event.replayed]
    return [progress.metrics["train_loss"] for progress in told if isinstance(progress, EpochDone)]


def by_hand(folder: Path, cache: Path, **recipe: Any) -> dict[str, Any]:
    """What rank 0 of two processes reports that a script starts, as torchrun would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    folder.mkdir()
    given = json.dumps({"spec": SPEC | {"recipe": {**RECIPE, **recipe}}})
    script = ROOT / "tests" / "workloads" / "engine_run.py"
    with contextlib.ExitStack() as files:
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(folder), str(rank), "2", port, str(cache), given],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=files.enter_context((folder / f"log{rank}").open("w")),
            )
            for rank in range(2)
        ]
        assert [process.wait(timeout=300) for process in processes] == [0, 0], (folder / "log0").read_text()[-3000:]
    found: dict[str, Any] = json.loads((folder / "rank0.json").read_text())
    return found


@pytest.mark.slow
def test_two_processes_of_the_inline_executor_train_as_two_started_by_hand(tmp_path: Path) -> None:
    attempt = digits(tmp_path)
    with InlineExecutor() as executor:
        events = list(executor.run([attempt]))
    expected = by_hand(tmp_path / "script", attempt.cache_dir)
    assert losses(events) == expected["train_loss"]
    assert sum(isinstance(event, Started) for event in events) == 1, "one rank tells"
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert ended.result is not None
    assert ended.result.metrics["top1_percent"] == expected["top1_percent"]
    assert not active_children(), "no process is left behind"


@pytest.mark.slow
def test_a_trial_goes_on_from_its_checkpoint_when_one_of_its_processes_is_killed(tmp_path: Path) -> None:
    attempt = digits(tmp_path, epochs=12)
    events: list[Event] = []
    killed: list[Any] = []
    with InlineExecutor() as executor:
        for event in executor.run([attempt]):
            events.append(event)
            if losses(events) and not killed:
                killed = [process for process in active_children() if process.name == "rank-1"]
                killed[0].kill()
    lost = [event for event in events if isinstance(event, AttemptFailed)]
    assert [(event.cause, event.retried) for event in lost] == [(Cause.LOST, True)]
    assert isinstance(events[-1], Ended)
    assert events[-1].state == "finished"
    told = [e.progress.epoch for e in events if isinstance(e, Progressed) and isinstance(e.progress, EpochDone)]
    assert list(dict.fromkeys(told)) == list(range(12))
    assert len(losses(events)) < 2 * 12, "the second attempt did not start over"


@pytest.mark.slow(seconds=60)
@pytest.mark.ray
@pytest.mark.usefixtures("_support_on_path")
def test_ddp_and_deepspeed_through_ray_train_as_processes_started_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra longrange[deepspeed] is not installed")
    from orchestrator.execution.ray_tune import RayExecutor

    cache = tmp_path / "cache"
    engines: list[dict[str, Any]] = [{}, {"engine": "deepspeed", "zero_stage": 2}]
    expected = [by_hand(tmp_path / f"script{n}", cache, **engine) for n, engine in enumerate(engines)]
    attempts = [digits(tmp_path, **engine) for engine in engines]
    # One process kills itself in the second of eight epochs; the other, which shares nothing with it, would go on.
    killing = {"name": "scripted:Scripted", "script": "kill-once", "epoch_seconds": 1.0}
    scripted = SPEC | {"workload": killing, "recipe": {**RECIPE, "epochs": 8}}
    with RayExecutor(workers=2) as executor:
        events = list(executor.run([*attempts, an_attempt(tmp_path, scripted)]))
    for attempt, script in zip(attempts, expected, strict=True):
        mine = [event for event in events if event.trial_id == attempt.trial_id]
        assert losses(mine) == script["train_loss"]
    assert losses([e for e in events if e.trial_id == attempts[1].trial_id]) == pytest.approx(
        expected[0]["train_loss"], rel=1e-4
    )
    killed = [event for event in events if event.trial_id not in {attempt.trial_id for attempt in attempts}]
    assert [event.cause for event in killed if isinstance(event, AttemptFailed)] == [Cause.LOST]
    assert isinstance(killed[-1], Ended)
    assert killed[-1].state == "finished"


@pytest.mark.parametrize(
    ("visible", "own"),
    [
        (None, ["0", "1"]),
        ("2,3", ["2", "3"]),
        ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"]),
        ("5", ["5", ""]),
        ("", ["", ""]),
    ],
)
def test_every_process_sees_one_gpu_of_its_own(visible: str | None, own: list[str]) -> None:
    assert [own_device(rank, visible) for rank in range(2)] == own


class Played:
    """A crew whose members say what a test wrote down: per poll a list of (rank, event), or "lost"."""

    def __init__(self, *polls: list[tuple[int, Event]] | str) -> None:
        self._polls = iter(polls)
        self._lost = False
        self.ended = False
        self.given: Attempt | None = None

    def start(self, attempt: Attempt) -> None:
        self.given = attempt

    def poll(self, seconds: float) -> list[tuple[int, Event]]:
        said = next(self._polls, [])
        self._lost = self._lost or said == "lost"
        return said if isinstance(said, list) else []

    def lost(self) -> bool:
        return self._lost

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    monkeypatch.setattr(group, "PEER_SECONDS", 1.0)
    content = SPEC | {"workload": {"name": "scripted:Scripted"}, "recipe": RECIPE}
    return an_attempt(tmp_path, content, hang_seconds=3.0)


def failure(cause: Cause, message: str = "it broke") -> AttemptFailed:
    return AttemptFailed("x", 1, 0.0, cause, message)


PEER = failure(Cause.BUG, "[gloo] Connection closed by peer [127.0.0.1]:4711")
TAKEN = failure(Cause.BUG, "[Errno 98] Address already in use (while attempting to bind on address ('10.0.0.1', 4711))")


@pytest.mark.parametrize(
    ("polls", "cause"),
    [
        pytest.param(["lost"], Cause.LOST, id="a process is gone"),
        pytest.param([[(0, PEER)], "lost"], Cause.LOST, id="its peer complains before the loss is seen"),
        pytest.param([[(0, PEER)]], Cause.LOST, id="its peer complains and the loss is never seen"),
        pytest.param([[(0, TAKEN)]], Cause.LOST, id="somebody took the port of their meeting point"),
        pytest.param([[(0, PEER)], [(1, failure(Cause.OUT_OF_MEMORY))]], Cause.OUT_OF_MEMORY, id="memory ends in one"),
        pytest.param([[(1, failure(Cause.BUG))], [(0, PEER)]], Cause.BUG, id="a bug in one"),
        pytest.param([[(0, PEER)], [(1, failure(Cause.BUG))], "lost"], Cause.BUG, id="a bug, told late, then a loss"),
        pytest.param([[(1, failure(Cause.STOPPED))], [(0, failure(Cause.STOPPED))]], Cause.STOPPED, id="stopped"),
        pytest.param([[(1, failure(Cause.STOPPED))], "lost"], Cause.LOST, id="stopped, but rank 0 died writing"),
    ],
)
def test_one_cause_is_told_for_all_processes(attempt: Attempt, polls: list[Any], cause: Cause) -> None:
    crew = Played(*polls)
    events = list(supervise(attempt, crew, lambda: False))
    assert [event.cause for event in events if isinstance(event, AttemptFailed)] == [cause]
    assert len(events) == 1
    assert crew.ended


def test_a_process_that_ended_itself_for_hanging_is_told_as_hanging(attempt: Attempt) -> None:
    hang_marker(attempt).parent.mkdir(parents=True)
    hang_marker(attempt).touch()
    (event,) = supervise(attempt, Played("lost"), lambda: False)
    assert isinstance(event, AttemptFailed)
    assert event.cause is Cause.HANGING


def test_a_wish_to_stop_reaches_the_members_by_a_file(attempt: Attempt) -> None:
    crew = Played([], [(0, Ended("x", 1, 0.0, "finished", Finished({})))])
    wishes = iter([False, True])
    seen: list[bool] = []
    poll = crew.poll

    def spy(seconds: float) -> list[tuple[int, Event]]:
        assert crew.given is not None
        assert crew.given.stop_file is not None
        seen.append(crew.given.stop_file.exists())
        return poll(seconds)

    crew.poll = spy  # type: ignore[method-assign]
    (event,) = supervise(attempt, crew, lambda: next(wishes, True))
    assert isinstance(event, Ended)
    assert seen == [False, True]
    assert crew.given is not None
    assert crew.given.stop_file is not None
    assert not crew.given.stop_file.exists()


def test_out_of_memory_halves_what_one_process_had_at_once(attempt: Attempt) -> None:
    _, following = follow_up(attempt, failure(Cause.OUT_OF_MEMORY))
    assert following is not None
    assert following.micro_batch == 4, "16 clips in two processes are 8 each"
