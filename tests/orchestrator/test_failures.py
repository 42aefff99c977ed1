"""The failure table, as a table: what happened, how often before, under which bound -> what follows."""

from __future__ import annotations

import pytest

from orchestrator.failures import MAX_HALVINGS, RETRIES, Cause, Decision, decide
from orchestrator.records.schema import ENDED, TRANSITIONS, State

OOM, LOST, HANGING = Cause.OUT_OF_MEMORY, Cause.LOST, Cause.HANGING

TABLE = [
    # cause, batch, bound, earlier, decision
    (OOM, 32, None, {}, Decision(retry=True, micro_batch=16)),
    (OOM, 32, 16, {OOM: 1}, Decision(retry=True, micro_batch=8)),
    (OOM, 32, 8, {OOM: 2}, Decision(retry=True, micro_batch=4)),
    (OOM, 32, 4, {OOM: 3}, Decision(retry=False, state="infeasible")),
    (OOM, 5, None, {}, Decision(retry=True, micro_batch=2)),
    (OOM, 1, None, {}, Decision(retry=False, state="infeasible")),
    (OOM, 32, 1, {OOM: 1}, Decision(retry=False, state="infeasible")),
    (OOM, 32, None, {LOST: 19, HANGING: 1}, Decision(retry=True, micro_batch=16)),
    (LOST, 32, None, {}, Decision(retry=True)),
    (LOST, 32, 8, {OOM: 2, LOST: 19}, Decision(retry=True)),
    (LOST, 32, None, {LOST: 20}, Decision(retry=False, state="failed")),
    (HANGING, 32, None, {}, Decision(retry=True)),
    (HANGING, 32, None, {LOST: 5}, Decision(retry=True)),
    (HANGING, 32, None, {HANGING: 1}, Decision(retry=False, state="failed")),
    (Cause.DIVERGED, 32, None, {}, Decision(retry=False, state="diverged")),
    (Cause.STOPPED, 32, None, {}, Decision(retry=False, state="cancelled")),
    (Cause.STOPPED_EARLY, 32, None, {}, Decision(retry=False, state="cancelled")),
    (Cause.BAD_DATA, 32, None, {}, Decision(retry=False, state="failed")),
    (Cause.BUG, 32, None, {}, Decision(retry=False, state="failed")),
]


@pytest.mark.parametrize(("cause", "batch", "bound", "earlier", "expected"), TABLE)
def test_the_table(cause: Cause, batch: int, bound: int | None, earlier: dict[Cause, int], expected: Decision) -> None:
    given = dict(earlier)
    assert decide(cause, batch=batch, micro_batch=bound, earlier=earlier) == expected
    assert earlier == given, "deciding changes nothing"


@pytest.mark.parametrize(("batch", "bound", "halved"), [(8, None, 4), (5, None, 2), (3, None, None), (32, 2, None)])
def test_no_micro_batch_is_smaller_than_the_block_can_be_trained_on(
    batch: int, bound: int | None, halved: int | None
) -> None:
    expected = Decision(retry=True, micro_batch=halved) if halved else Decision(retry=False, state="infeasible")
    assert decide(OOM, batch=batch, micro_batch=bound, earlier={}, least_clips=2) == expected


def test_every_cause_is_in_the_table() -> None:
    assert {row[0] for row in TABLE} == set(Cause)
    assert set(RETRIES) | {OOM} == set(Cause)


@pytest.mark.parametrize("batch", [1, 2, 7, 32, 256])
def test_running_out_of_memory_ends_after_a_few_halvings(batch: int) -> None:
    bound: int | None = None
    bounds = []
    for before in range(MAX_HALVINGS + 2):
        decision = decide(OOM, batch=batch, micro_batch=bound, earlier={OOM: before})
        if not decision.retry:
            break
        bound = decision.micro_batch
        bounds.append(bound)
    assert decision == Decision(retry=False, state="infeasible")
    assert bounds == [batch >> number for number in range(1, MAX_HALVINGS + 1) if batch >> number]


@pytest.mark.parametrize("cause", Cause)
def test_no_cause_is_retried_for_ever_and_each_ends_in_a_final_state(cause: Cause) -> None:
    earlier: dict[Cause, int] = {}
    for _ in range(100):
        decision = decide(cause, batch=32, micro_batch=None, earlier=earlier)
        if not decision.retry:
            break
        earlier[cause] = earlier.get(cause, 0) + 1
    assert not decision.retry
    assert State(decision.state) in ENDED & TRANSITIONS[State.RUNNING]
