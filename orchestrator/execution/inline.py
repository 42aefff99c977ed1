"""The reference executor: every trial in this process, one after another."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Self

from orchestrator.events import AttemptFailed, Event
from orchestrator.execution.base import Attempt, follow_up
from orchestrator.execution.worker import run_attempt


class InlineExecutor:
    """Runs trials here. Slow and simple: what all other executors must agree with, bit for bit."""

    def __init__(self) -> None:
        self._cancelled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def run(self, attempts: Sequence[Attempt]) -> Iterator[Event]:
        for first in attempts:
            attempt: Attempt | None = first
            while attempt is not None and not self._cancelled:
                attempt = yield from self._one(attempt)

    def cancel(self) -> None:
        self._cancelled = True

    def _one(self, attempt: Attempt) -> Generator[Event, None, Attempt | None]:
        following: Attempt | None = None
        for event in run_attempt(attempt, stop=lambda: self._cancelled):
            if isinstance(event, AttemptFailed):
                events, following = follow_up(attempt, event)
                yield from events
            else:
                yield event
        return following
