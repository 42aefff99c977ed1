"""A plan as the ledger records it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from orchestrator.plan import Plan
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial, Refused
from orchestrator.trial import Trial
from workloads.spec import TrialSpec

FINGERPRINT_LIMIT = 64  # characters; a workload's own may be longer


def data_fingerprint(spec: TrialSpec) -> str:
    """The workload's fingerprint of its data, or the hash of one that is longer than the ledger keeps."""
    found = spec.workload.fingerprint()
    return found if len(found) <= FINGERPRINT_LIMIT else hashlib.sha256(found.encode()).hexdigest()


def planned_sweep(plan: Plan, code: Mapping[str, str]) -> PlannedSweep:
    """A plan as the ledger records it."""
    workloads = {arm.spec.workload.name: arm.spec.workload for arm in plan.arms}
    definition = {
        **plan.sweep.to_json(),
        "caveat": " ".join(sorted({type(workload).caveat for workload in workloads.values()})).strip(),
        "estimate": plan.estimate(),
        "duplicates": [{"label": item.label, "same_as": item.same_as} for item in plan.duplicates],
        **({} if plan.search is None else {"drawn": plan.search["drawn"]}),
    }
    arms = [
        PlannedArm(
            arm.arm_id,
            arm.label,
            {key: value for key, value in Trial(arm.spec).content.items() if key != "seed"},
            arm.settings,
            arm.is_control,
            arm.profile,
        )
        for arm in plan.arms
    ]
    trials = [
        PlannedTrial(
            trial.trial_id,
            arm.arm_id,
            trial.spec.seed,
            code[arm.arm_id],
            data_fingerprint(arm.spec),
            arm.price.seconds,
        )
        for arm, trial in plan.ordered()
    ]
    rejected = (*plan.rejected, *plan.rejected_besides)
    rejections = [Refused(item.label, item.settings, item.reason) for item in rejected]
    reproduces = plan.sweep.reproduces.to_json() if plan.sweep.reproduces else None
    return PlannedSweep(
        plan.sweep.name,
        plan.sweep.question,
        definition,
        arms,
        trials,
        rejections,
        reproduces,
        plan.whole,
        plan.left_out,
    )
