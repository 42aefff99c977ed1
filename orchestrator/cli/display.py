"""Live progress of a run: trials done, running and failed, the best arm so far, time left."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import mean
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.common import span
from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started
from orchestrator.failures import STOPPED_EARLY, Cause
from orchestrator.judged import judged_on
from orchestrator.plan import Arm, Plan
from workloads.progress import EpochDone

METRIC = "top1_percent"
NO_FAULT = ("diverged", "cancelled", STOPPED_EARLY)  # ends that are told, but are no failures
PLAIN_SECONDS = 15.0  # between lines where there is no terminal


class Progress:
    """Watches a run for people. On a terminal it redraws itself, elsewhere it prints a line now and then."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._live: Live | None = None
        self._arms: Mapping[str, Arm] = {}
        self._control = ""
        self._comparable: set[str] = set()
        self._todo = self._reused = 0
        self._seconds: dict[str, float] = {}
        self._running: dict[str, tuple[float, str]] = {}
        self._states: Counter[str] = Counter()
        self._scores: dict[str, list[float]] = defaultdict(list)
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)
            self._live.stop()
            self._live = None

    def planned(self, plan: Plan, todo: int, reused: int) -> None:
        """Start showing."""
        self._arms = {trial.trial_id: arm for arm, trial in plan.ordered()}
        self._control = plan.control.label
        judged = judged_on(plan.control.spec.workload.to_json())
        same = {id(arm.spec.workload): arm.spec.workload for arm in plan.arms}  # few, and not all can be hashed
        here = {key for key, workload in same.items() if judged_on(workload.to_json()) == judged}
        self._comparable = {arm.label for arm in plan.arms if id(arm.spec.workload) in here}
        self._todo, self._reused = todo, reused
        self._seconds = {key: arm.price.seconds or 1.0 for key, arm in self._arms.items()}
        if self._live is not None or self._states or self._running:
            return  # a search's plan has grown
        self._started = time.monotonic()
        if todo and not self._quiet and self._console.is_terminal:
            self._live = Live(get_renderable=self._picture, console=self._console, refresh_per_second=2)
            self._live.start()

    def event(self, event: Event) -> None:
        """Take note."""
        if isinstance(event, Started):
            self._running[event.trial_id] = (event.at, "starting")
        elif isinstance(event, Progressed) and isinstance(event.progress, EpochDone):
            began = self._running.get(event.trial_id, (event.at, ""))[0]
            self._running[event.trial_id] = (began, f"epoch {event.progress.epoch + 1}")
        elif isinstance(event, AttemptFailed) and event.cause is not Cause.STOPPED_EARLY:
            self._note(f"{self._label(event.trial_id)}: {event.cause.value}: {event.message}", retried=event.retried)
        elif isinstance(event, Paused):
            self._running.pop(event.trial_id, None)
        elif isinstance(event, Ended):
            self._end(event)

    def _end(self, event: Ended) -> None:
        self._running.pop(event.trial_id, None)
        self._states[event.state if event.cause is not Cause.STOPPED_EARLY else STOPPED_EARLY] += 1
        if event.result is not None and METRIC in event.result.metrics:
            self._scores[self._label(event.trial_id)].append(event.result.metrics[METRIC])
        now = time.monotonic()
        done = sum(self._states.values())
        if self._live is None and not self._quiet and (now - self._printed > PLAIN_SECONDS or done == self._todo):
            self._printed = now
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _note(self, message: str, *, retried: bool) -> None:
        if not self._quiet:
            style = "yellow" if retried else "red"
            self._console.print(Text(f"{message}{' (trying again)' if retried else ''}", style=style))

    def _label(self, trial_id: str) -> str:
        arm = self._arms.get(trial_id)
        return arm.label if arm else trial_id

    def _picture(self) -> RenderableType:
        done = sum(self._states.values())
        bar = ProgressBar(total=max(1, self._todo), completed=done, width=40)
        table = Table.grid(padding=(0, 2))
        for began, (trial_id, (since, what)) in enumerate(sorted(self._running.items(), key=lambda item: item[1][0])):
            if began < 8:
                table.add_row("  running", self._label(trial_id), what, f"{time.time() - since:.0f} s")
        return Group(bar, Text(self._line()), table)

    def _line(self) -> str:
        done = sum(self._states.values())
        failed = self._states["failed"] + self._states["infeasible"]
        parts = [f"{done}/{self._todo} trials", f"{len(self._running)} running", f"{failed} failed"]
        parts += [f"{self._states[state]} {state}" for state in NO_FAULT if self._states[state]]
        if self._reused:
            parts.append(f"{self._reused} reused")
        best = self._best()
        if best:
            parts.append(best)
        left = self._left(done)
        if left is not None and done < self._todo:
            parts.append(f"about {span(left)} left")
        return " · ".join(parts)

    def _best(self) -> str | None:
        """Of the arms on the control's data: an accuracy on other data says nothing beside its own."""
        scores = {label: values for label, values in self._scores.items() if label in self._comparable}
        if not scores:
            return None
        label, values = max(scores.items(), key=lambda item: mean(item[1]))
        control = self._scores.get(self._control)
        against = f", control {mean(control):.1f}" if control and label != self._control else ""
        return f"best so far {label}: {mean(values):.1f} % (n={len(values)}{against})"

    def _left(self, done: int) -> float | None:
        """By estimated work, not by count: trials end about in the plan's order, the last of which are to do."""
        work = list(self._seconds.values())[-self._todo :]
        ended = sum(work[:done])
        elapsed = time.monotonic() - self._started
        return elapsed * (sum(work) - ended) / ended if ended else None
