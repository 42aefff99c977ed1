"""The reference executor: every trial in this process, one after another.

Only trials of several workers get processes of their own, one per worker: a crew, see `group`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Self

from orchestrator.events import AttemptFailed, Event
from orchestrator.execution.base import Attempt, Further, follow_up, nothing_further
from orchestrator.execution.group import Member, free_port, run_member, supervise, use_interface_of
from orchestrator.execution.worker import run_attempt

LOOPBACK = "127.0.0.1"


class InlineExecutor:
    """Runs trials here. Slow and simple: what all other executors must agree with, bit for bit."""

    def __init__(self) -> None:
        self._cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def run(self, attempts: Sequence[Attempt], further: Further = nothing_further) -> Iterator[Event]:
        waiting = deque(attempts)
        while not self._cancelled:
            if not waiting:
                waiting.extend(further() or ())
            if not waiting:
                return
            attempt: Attempt | None = waiting.popleft()
            while attempt is not None and not self._cancelled:
                attempt = yield from self._one(attempt)

    def cancel(self) -> None:
        self._cancelled = True

    def _events(self, attempt: Attempt) -> Iterator[Event]:
        if attempt.resources.workers == 1:
            return run_attempt(attempt, stop=lambda: self._cancelled)
        return supervise(attempt, LocalCrew(), lambda: self._cancelled)

    def _one(self, attempt: Attempt) -> Generator[Event, None, Attempt | None]:
        following: Attempt | None = None
        for event in self._events(attempt):
            if isinstance(event, AttemptFailed):
                events, following = follow_up(attempt, event)
                yield from events
            else:
                yield event
        return following


class LocalCrew:
    """Processes on this machine, with a pipe to each. See `group.Crew`."""

    def __init__(self) -> None:
        self._processes: list[SpawnProcess] = []
        self._pipes: dict[Connection, int] = {}  # of members at work, with their ranks
        self._lost = False

    def start(self, attempt: Attempt) -> None:
        context = get_context("spawn")  # torch's threads and CUDA do not survive a fork
        world, port = attempt.resources.workers, free_port(LOOPBACK)
        for rank in range(world):
            mine, theirs = context.Pipe()
            member = Member(rank, world, LOOPBACK, port)
            process = context.Process(target=_member_process, args=(theirs, attempt, member), name=f"rank-{rank}")
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes[mine] = rank

    def poll(self, seconds: float) -> list[tuple[int, Event]]:
        told: list[tuple[int, Event]] = []
        for pipe in wait(list(self._pipes), timeout=seconds):
            assert isinstance(pipe, Connection)
            try:
                event = pipe.recv()
            except (EOFError, OSError):
                self._lost = True
                self._forget(pipe)
                continue
            if event is None:
                self._forget(pipe)
            else:
                told.append((self._pipes[pipe], event))
        return told

    def lost(self) -> bool:
        return self._lost

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in list(self._pipes):
            self._forget(pipe)

    def _forget(self, pipe: Connection) -> None:
        del self._pipes[pipe]
        pipe.close()


def _member_process(pipe: Connection, attempt: Attempt, member: Member) -> None:
    """The life of a member: it does its part, tells its events, and waits to be ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, who says what follows
    threading.Thread(target=_end_with_driver, args=(pipe,), daemon=True).start()
    if attempt.resources.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = own_device(member.rank, os.environ.get("CUDA_VISIBLE_DEVICES"))
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings are for us, in the tests, not for users
    use_interface_of(LOOPBACK)
    for event in run_member(attempt, member):
        pipe.send(event)
    pipe.send(None)
    threading.Event().wait()  # others may still be at work: none is to see a broken connection


def own_device(rank: int, visible: str | None) -> str:
    """The one GPU of a process, of those that its parent sees (None: all); none where there are too few."""
    if visible is None:
        return str(rank)
    return dict(enumerate(visible.split(","))).get(rank, "")


def _end_with_driver(pipe: Connection) -> None:
    """End this process when the driver's is gone, whatever it does."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
