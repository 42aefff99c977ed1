"""Plans of scripted trials, run in this process into a folder; and what must hold of the ledger afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from orchestrator.driver import Outcome
from orchestrator.events import Event
from orchestrator.execution.base import Executor
from orchestrator.execution.inline import InlineExecutor
from orchestrator.plan import Plan, make_plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import AttemptRow, EpochMetricRow
from orchestrator.run import run_plan
from orchestrator.sweep import parse_sweep


def plan_of(script: str = "finish", *, seeds: Sequence[int] = (), epoch_seconds: float = 0.0, **more: Any) -> Plan:
    """Two arms of two seeds, three epochs each."""
    workload = {"name": "scripted:Scripted", "script": script, "seeds": list(seeds), "epoch_seconds": epoch_seconds}
    base = {"workload": workload, "insertion": {"res3": [0]}, "block": "nl"}
    return make_plan(parse_sweep({"name": "t", "base": base, "seeds": 2, **more}))


class Watch:
    """Keeps the events; `then` is called with each."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.then: Any = lambda event: None

    def planned(self, plan: Plan, todo: int, reused: int) -> None:
        """Nothing to show."""

    def event(self, event: Event) -> None:
        self.events.append(event)
        self.then(event)


class Driver:
    """Runs plans on one ledger and one folder, in this process unless another executor is given."""

    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.ledger, self.checkpoints, self.cache = ledger, root / "checkpoints", root / "cache"
        self.watch = Watch()

    def run(self, plan: Plan, *, executor: Executor | None = None, **options: Any) -> Outcome:
        with executor or InlineExecutor() as entered:
            return run_plan(
                plan,
                ledger=options.pop("ledger", self.ledger),
                executor=entered,
                checkpoints=self.checkpoints,
                cache=self.cache,
                observer=self.watch,
                **options,
            )

    def folders(self) -> set[str]:
        return {path.name for path in self.checkpoints.iterdir()} if self.checkpoints.exists() else set()


def assert_complete(ledger: Ledger, sweep: str = "t") -> None:
    """Every trial finished, by exactly one attempt; no attempt is open; every series has epochs 0, 1, 2."""
    trials = ledger.trials_of(sweep)
    assert trials
    assert {trial.state for trial in trials} == {"finished"}
    with ledger.engine.connect() as connection:
        attempts = connection.execute(select(AttemptRow.trial_id, AttemptRow.outcome)).all()
        points = connection.execute(select(EpochMetricRow.trial_id, EpochMetricRow.name, EpochMetricRow.epoch)).all()
    finished = sorted(trial_id for trial_id, outcome in attempts if outcome == "finished")
    assert finished == sorted(trial.trial_id for trial in trials)
    assert None not in {outcome for _, outcome in attempts}
    series: dict[tuple[str, str], list[int]] = {}
    for trial_id, name, epoch in points:
        series.setdefault((trial_id, name), []).append(epoch)
    assert len(series) == 2 * len(trials)
    assert {tuple(sorted(epochs)) for epochs in series.values()} == {(0, 1, 2)}


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of the ledger of a run folder."""
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        return connection.execute(query).fetchall()
