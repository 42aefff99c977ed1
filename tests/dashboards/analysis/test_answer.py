"""The sentence and its badge name the test, the seeds and the correction, in words a paper could print."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import pytest

import dashboards
from dashboards.analysis.answer import Answer
from orchestrator.records.schema import State


def asked(tmp_path: Path, arms: Any, **options: Any) -> Answer:
    return dashboards.open(ledgers.write(tmp_path / "ledger.db", arms, **options)).sweep("quickstart").answer()


def test_the_badge_names_the_test_the_seeds_and_the_correction(quickstart: dashboards.Sweep) -> None:
    said = quickstart.answer().certainty
    assert said == "better than none at the 5 % level (paired t test, 5 seeds, Holm over 20 comparisons)"


def test_nothing_pays_is_as_exact(tmp_path: Path) -> None:
    found = asked(tmp_path, [ledgers.TWO[0], replace(ledgers.TWO[1], mean=30.0)])
    assert found.sentence == "Nothing pays: every arm is worse than none."
    assert found.certainty == "at the 5 % level (paired t test, 5 seeds, Holm over 1 comparison)"


@pytest.mark.parametrize(
    ("state", "states", "said"),
    [
        (State.FAILED, {}, "No trial has a result: all 4 ended without one."),
        (State.CANCELLED, {1: State.PLANNED}, "No trial has a result yet."),
        (State.PLANNED, {}, "No trial has a result yet."),
        (State.PLANNED, {0: State.DIVERGED}, "The only trial with an outcome diverged: training became unstable"),
        (State.FAILED, {0: State.DIVERGED}, "The only trial with an outcome diverged: training became unstable"),
        (State.DIVERGED, {1: State.FAILED}, "All 3 trials with an outcome diverged: training became unstable"),
        (State.DIVERGED, {}, "All 4 trials diverged: training became unstable"),
    ],
)
def test_no_result_says_whether_one_is_to_come(
    tmp_path: Path, state: State, states: dict[int, State], said: str
) -> None:
    arms = [ledgers.TWO[0], replace(ledgers.TWO[1], states=states)]
    assert asked(tmp_path, arms, seeds=2, state=state).sentence.startswith(said)
