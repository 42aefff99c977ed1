"""Trials that several processes train together: the same events as a trial of one process.

A *crew* is the processes of one attempt, one per rank; executors bring their own (`inline.LocalCrew`,
`ray_group.RayCrew`). Every member runs `worker.run_attempt` with the variables that torchrun would set, so the
engines in `workloads` (DDP, DeepSpeed) need to know nothing of executors. Only rank 0 tells what happens; of the
others only failures are heard.

`supervise` decides what ended an attempt. An error in one process breaks the connections of the others, which then
fail too, with errors about connections: a death or a cause that says more comes before those.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import psutil

from orchestrator.events import AttemptFailed, Ended, Event, Paused
from orchestrator.execution.base import Attempt, StopFile
from orchestrator.execution.worker import hang_marker, run_attempt, watched
from orchestrator.failures import Cause

POLL_SECONDS = 0.25
PEER_SECONDS = 5.0  # how long an error waits for one that explains it

# How gloo and NCCL say that another process is gone, and the meeting point that its port is: anybody may take it
# between the moment it was found free and that in which the training listens there.
PEER_TEXTS = (
    "address already in use",
    "closed by peer",
    "connection reset",
    "connection refused",
    "broken pipe",
    "remote process exited",
    "ncclremoteerror",
)


@dataclass(frozen=True)
class Member:
    """One process's place in its crew; `address` and `port` are where rank 0 can be reached by the others."""

    rank: int
    world: int
    address: str
    port: int


class Crew(Protocol):
    """The processes of one attempt."""

    def start(self, attempt: Attempt) -> None:
        """Start `attempt.resources.workers` processes that run `run_member`."""

    def poll(self, seconds: float) -> list[tuple[int, Event]]:
        """What members told since the last call, with their ranks; waits up to `seconds` for something."""

    def lost(self) -> bool:
        """Whether a member's process is gone that had not ended its work."""

    def end(self) -> None:
        """End all processes, whatever they do. Safe to call twice."""


def run_member(attempt: Attempt, member: Member, terminated: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """What one process of a crew does; to be called once in a process of its own.

    Args:
        attempt: as given to `Crew.start`.
        member: this process's place.
        terminated: whether this process was asked to go.
    """
    os.environ.update(
        RANK=str(member.rank),
        WORLD_SIZE=str(member.world),
        LOCAL_RANK="0",  # every member sees its own device only
        MASTER_ADDR=member.address,
        MASTER_PORT=str(member.port),
    )
    stopped = StopFile(attempt.stop_file)
    events = run_attempt(attempt, lambda: stopped() or terminated(), rank=member.rank)
    for event in watched(attempt, events):
        if member.rank == 0 or isinstance(event, AttemptFailed):
            yield event


def supervise(attempt: Attempt, crew: Crew, stop: Callable[[], bool]) -> Iterator[Event]:
    """Run one attempt in a crew: yields what `worker.run_attempt` would, and leaves no process behind.

    Args:
        attempt: what to run.
        crew: fresh.
        stop: asked a few times a second; true makes the members write a checkpoint and stop.
    """
    stop_file = attempt.checkpoint_dir / f"stop-{attempt.number}"
    stop_file.parent.mkdir(parents=True, exist_ok=True)
    stop_file.unlink(missing_ok=True)
    verdict = _Verdict(attempt)
    try:
        crew.start(replace(attempt, stop_file=stop_file))
        while True:
            if stop():
                stop_file.touch()
            for rank, event in crew.poll(POLL_SECONDS):
                if isinstance(event, AttemptFailed):
                    verdict.hear(rank, event)
                else:
                    yield event
                if isinstance(event, Ended | Paused):
                    return
            failed = verdict.reached(lost=crew.lost())
            if failed is not None:
                yield failed
                return
    finally:
        crew.end()
        stop_file.unlink(missing_ok=True)


class _Verdict:
    """Why an attempt failed, from what its members say."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._heard: AttemptFailed | None = None
        self._due = float("inf")

    def hear(self, rank: int, failed: AttemptFailed) -> None:
        """Take a member's failure; the first one counts, unless it only says that another member is gone."""
        if failed.cause in (Cause.STOPPED, Cause.STOPPED_EARLY) and rank != 0:
            return  # all stop together, but rank 0 is still writing the checkpoint
        if self._heard is None or (_is_of_a_peer(self._heard) and not _is_of_a_peer(failed)):
            self._heard = failed
        wait = PEER_SECONDS if failed.cause is Cause.BUG else 0.0
        self._due = min(self._due, time.monotonic() + wait)

    def reached(self, *, lost: bool) -> AttemptFailed | None:
        """The failure to report, once it is clear."""
        attempt, heard = self._attempt, self._heard
        if hang_marker(attempt).exists():
            return self._lost(Cause.HANGING, f"no progress for {attempt.hang_seconds:g} s; the workers were ended")
        if heard is not None and not _is_of_a_peer(heard) and (lost or time.monotonic() >= self._due):
            return heard
        if lost or (heard is not None and time.monotonic() >= self._due):
            return self._lost(Cause.LOST, "one of the trial's processes or its node was lost")
        return None

    def _lost(self, cause: Cause, message: str) -> AttemptFailed:
        return AttemptFailed(self._attempt.trial_id, self._attempt.number, time.time(), cause, message)


def _is_of_a_peer(failed: AttemptFailed) -> bool:
    """Whether an error only says that the connection to another process broke, or could not be made."""
    text = f"{failed.message} {failed.traceback}".lower()
    return failed.cause is Cause.BUG and any(known in text for known in PEER_TEXTS)


def use_interface_of(address: str) -> None:
    """Make gloo and NCCL talk over the network interface that has this address, whatever the host's name says."""
    if address.startswith("127."):
        name: str | None = next((name for name in psutil.net_if_addrs() if name in ("lo", "lo0")), None)
    else:
        found = psutil.net_if_addrs().items()
        name = next((name for name, held in found if any(one.address == address for one in held)), None)
    if name is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)


def free_port(address: str) -> int:
    """A port that nobody listens on at this address of this host."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
