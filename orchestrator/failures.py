"""What to do when an attempt fails: one pure table, tested as a table.

A cause is what happened, a decision is what follows. Losing a worker is nobody's fault and is not counted; running
out of memory is answered by a smaller micro-batch at the same effective batch; a diverged trial is a result; a bug
ends its trial and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Cause(StrEnum):
    """Why an attempt ended without a result."""

    OUT_OF_MEMORY = "out_of_memory"
    DIVERGED = "diverged"
    LOST = "lost"  # worker, node or preemption
    STOPPED = "stopped"  # asked to stop: SIGTERM or cancel
    STOPPED_EARLY = "stopped_early"  # by a search's scheduler: others did better
    HANGING = "hanging"  # no progress for the stated time
    BAD_DATA = "bad_data"
    BUG = "bug"


STOPPED_EARLY = "stopped early"  # what people read for the state of a trial with that cause: nobody cancelled it


@dataclass(frozen=True)
class Decision:
    """What follows a failed attempt.

    Attributes:
        retry: run the trial again, from its newest checkpoint.
        micro_batch: the bound for the next attempt; None keeps the present one.
        state: the trial's final state if it is not retried.
    """

    retry: bool
    micro_batch: int | None = None
    state: str = "failed"


MAX_HALVINGS = 3
RETRIES = {
    Cause.LOST: 20,  # not the trial's fault, but one that kills its worker every time must end one day
    Cause.HANGING: 1,
    Cause.DIVERGED: 0,
    Cause.STOPPED: 0,
    Cause.STOPPED_EARLY: 0,
    Cause.BAD_DATA: 0,
    Cause.BUG: 0,
}
FINAL_STATE = {Cause.DIVERGED: "diverged", Cause.STOPPED: "cancelled", Cause.STOPPED_EARLY: "cancelled"}


def decide(
    cause: Cause, *, batch: int, micro_batch: int | None, earlier: dict[Cause, int], least_clips: int = 1
) -> Decision:
    """The table.

    Args:
        cause: what ended the attempt.
        batch: the recipe's effective batch.
        micro_batch: the bound this attempt ran under; None is the whole batch.
        earlier: how often each cause ended earlier attempts of this trial.
        least_clips: the smallest micro-batch that the trial's block can be trained on.
    """
    before = earlier.get(cause, 0)
    if cause is Cause.OUT_OF_MEMORY:
        halved = (micro_batch or batch) // 2
        if halved < least_clips or before >= MAX_HALVINGS:
            return Decision(retry=False, state="infeasible")
        return Decision(retry=True, micro_batch=halved)
    return Decision(retry=before < RETRIES[cause], state=FINAL_STATE.get(cause, "failed"))
