"""Arms of a run folder that its sweep no longer has: nothing of them is lost, and whoever changed the sweep is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from orchestrator.plan import Plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import State

SHOWN = 5  # arms, in the text


def dropped(plan: Plan, ledger: Ledger) -> dict[str, int]:
    """Label -> trials that ran, of the arms that the ledger has in this sweep and the plan, as a whole, has not."""
    kept = {*plan.whole, *(arm.arm_id for arm in plan.arms)}
    gone = (one for one in ledger.trials_of(plan.sweep.name) if one.arm_id not in kept)
    return dict(Counter(one.label for one in gone if one.state is not State.PLANNED))


def told(arms: Mapping[str, int]) -> str:
    """What a person should know of them, in one line."""
    some = [f"{label} ({count} trial{'s' * (count > 1)})" for label, count in list(arms.items())[:SHOWN]]
    more = f" and {len(arms) - SHOWN} more" if len(arms) > SHOWN else ""
    return (
        f"no longer in the sweep: {', '.join(some)}{more}; tables and reports leave them out, their results stay in "
        "the ledger and are used again when the sweep has them again"
    )
