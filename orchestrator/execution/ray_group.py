"""The processes of one trial as Ray actors, inside the placement group that Tune holds for it. See `group.Crew`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

from orchestrator.events import Event
from orchestrator.execution.base import Attempt
from orchestrator.execution.group import Member, free_port, run_member, use_interface_of


class RayCrew:
    """One actor per rank, on whatever nodes the placement group has its bundles."""

    def __init__(self) -> None:
        self._actors: list[Any] = []
        self._streams: dict[Any, int] = {}  # of members at work, with their ranks
        self._lost = False

    def start(self, attempt: Attempt) -> None:
        needs = attempt.resources
        member = ray.remote(_RayMember).options(num_cpus=needs.cpus, num_gpus=needs.gpus)
        self._actors = [member.remote() for _ in range(needs.workers)]
        try:
            address, port = ray.get(self._actors[0].meeting_point.remote())
        except RayError:
            self._lost = True
            return
        for rank, actor in enumerate(self._actors):
            stream = actor.run.remote(attempt, Member(rank, needs.workers, address, port))
            self._streams[stream] = rank

    def poll(self, seconds: float) -> list[tuple[int, Event]]:
        if not self._streams:
            return []
        told: list[tuple[int, Event]] = []
        ready, _ = ray.wait(list(self._streams), timeout=seconds, fetch_local=False)
        for stream in ready:
            try:
                told.append((self._streams[stream], ray.get(next(stream))))
            except StopIteration:
                del self._streams[stream]
            except RayError:
                self._lost = True
                del self._streams[stream]
        return told

    def lost(self) -> bool:
        return self._lost

    def end(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._streams.clear()


class _RayMember:
    """The process of one rank. An actor, so that it ends when it is told to, whatever it does."""

    def __init__(self) -> None:
        self._terminated = threading.Event()
        # Preemption says SIGTERM first; Ray's own handler would exit at once and lose the work since the checkpoint.
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())

    def meeting_point(self) -> tuple[str, int]:
        """An address and a free port of this host, where the other ranks find this one."""
        address = ray.util.get_node_ip_address()
        return address, free_port(address)

    @ray.method(num_returns="streaming")  # type: ignore[untyped-decorator]
    def run(self, attempt: Attempt, member: Member) -> Iterator[Event]:
        """This rank's part of the attempt; the last event of rank 0 is the attempt's."""
        use_interface_of(ray.util.get_node_ip_address())
        yield from run_member(attempt, member, self._terminated.is_set)
