"""Searches that run, and drivers that stop in the middle of one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.driver import Outcome
from orchestrator.events import Ended, Event, Paused
from orchestrator.execution.base import Executor
from orchestrator.execution.inline import InlineExecutor
from orchestrator.plan import Plan
from orchestrator.planner import plan_sweep, search_planner
from orchestrator.records.ledger import Ledger
from orchestrator.run import run_plan
from orchestrator.sweep import Sweep


class Watch:
    """Asks the executor to stop after so many trials that paused or ended (None: never); does something at each."""

    def __init__(self, executor: Executor, most: int | None, then: Callable[[], object] | None) -> None:
        self._executor, self._left, self._then = executor, most, then

    def planned(self, plan: Plan, todo: int, reused: int) -> None:
        """Nothing to show."""

    def event(self, event: Event) -> None:
        if self._then is not None and isinstance(event, Ended | Paused):
            self._then()
        if self._left is not None and isinstance(event, Ended | Paused):
            self._left -= 1
            if not self._left:
                self._executor.cancel()


def run(
    sweep: Sweep,
    ledger: Ledger,
    folder: Path,
    *,
    kill_after: int | None = None,
    executor: Executor | None = None,
    then: Callable[[], object] | None = None,
    plan: Plan | None = None,
) -> Outcome:
    """Run a sweep, planned from what `ledger.db` in the folder knows; `then` is called when a trial pauses or ends."""
    plan = plan or plan_sweep(sweep, profiled=False, ledger=folder / "ledger.db")
    with executor or InlineExecutor() as used:
        return run_plan(
            plan,
            ledger=ledger,
            executor=used,
            checkpoints=folder / "checkpoints",
            cache=folder / "cache",
            observer=Watch(used, kill_after, then),
            replan=search_planner(sweep, profiled=False),
        )
