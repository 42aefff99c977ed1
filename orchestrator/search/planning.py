"""Plans of searches: configurations that were drawn so far, and bounds for those that will be.

A search grows its plan while it runs: every configuration drawn is planned as a setting of an ordinary sweep would be
(checked, identified, profiled, priced), recorded in the ledger, and only then run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import AnotherDriver, NoLedger, SweepError
from orchestrator.plan import Arm, Plan, Profiler, make_plan
from orchestrator.price import Pricer
from orchestrator.search.space import CHANGES, Search
from orchestrator.sweep import Sweep, parse_sweep
from orchestrator.trial import canonical_json
from workloads.spec import ModelSpec

if TYPE_CHECKING:
    from orchestrator.records.ledger import Ledger

Setting = Mapping[str, Any]


def plan_search(
    sweep: Sweep,
    drawn: Sequence[Setting] = (),
    *,
    profiler: Profiler | None = None,
    pricer: Pricer | None = None,
    source: str = "sweep",
    at_most: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of a search: its control, its base, what was drawn so far, and what the rest may cost.

    Args:
        sweep: one with a `search` section.
        drawn: settings, in the order drawn.
        profiler: as for `make_plan`.
        pricer: as for `make_plan`.
        source: named in errors.
        at_most: bounds of the cost, if an earlier plan of this search has found them.

    Raises:
        SweepError: typing mistakes; a control or base that cannot exist; a space without any possible corner.
    """
    search = _search_of(sweep)

    def planned(settings: Sequence[Setting]) -> Plan:
        listed = sweep.model_copy(
            update={
                "search": None,
                "axes": {"list": [{}, *map(dict, settings)]},
                "seeds": (search.seed,),
                "control_seeds": None,
            }
        )
        return make_plan(listed, profiler=profiler, pricer=pricer, source=source)

    made = planned(drawn)
    if search.scheduler == "pbt":
        _refuse_useless_decisions(search, made, source)
        planned([_changed_once(search)])  # what may not change under this recipe is said now, not during the run
    facts = {
        "configurations": search.configurations,
        "drawn": [dict(setting) for setting in drawn],
        "space": {path: {kind.kind: list(getattr(kind, kind.kind))} for path, kind in search.space.items()},
        "sampler": search.sampler,
        "scheduler": search.scheduler,
        "grace_epochs": search.grace_epochs,
        "at_most": at_most or _at_most(planned(search.corners()), search.configurations, source),
    }
    return replace(made, sweep=sweep, search=facts)


def planner_of(
    sweep: Sweep, *, profiler: Profiler | None, pricer: Pricer | None, source: str = "sweep"
) -> Callable[[Sequence[Setting]], Plan]:
    """`plan_search` for one sweep again and again, as it grows: no model is profiled twice."""
    known: dict[str, Any] = {}

    def remembered(models: Sequence[ModelSpec]) -> list[Any]:
        assert profiler is not None
        keys = [canonical_json(model.to_json()) for model in models]
        news = {key: model for key, model in zip(keys, models, strict=True) if key not in known}
        known.update(zip(news, profiler(list(news.values())) if news else (), strict=True))
        return [known[key] for key in keys]

    cached = remembered if profiler is not None else None
    at_most: dict[str, Any] = {}

    def plan(drawn: Sequence[Setting]) -> Plan:
        made = plan_search(sweep, drawn, profiler=cached, pricer=pricer, source=source, at_most=at_most)
        at_most.update((made.search or {})["at_most"])
        return made

    return plan


def drawn(sweep: Sweep, ledger: str | Path | None) -> list[Setting]:
    """What an earlier run of the same search drew, from its ledger; nothing if it was another search."""
    if sweep.search is None or ledger is None or (isinstance(ledger, Path) and not ledger.exists()):
        return []
    from orchestrator.records.ledger import Ledger  # a database, which a first plan does without

    try:
        with Ledger.open(ledger, create=False) as opened:
            return drawn_before(sweep, opened)
    except NoLedger:
        return []


def drawn_before(sweep: Sweep, ledger: Ledger) -> list[Setting]:
    """What an earlier run of the same search drew; nothing if it was another search."""
    known = ledger.sweep(sweep.name)
    if sweep.search is None or known is None or known.definition.get("search") is None:
        return []
    try:
        before = Search.model_validate(known.definition["search"])
    except ValidationError:  # an older version allowed it: whatever it was, it is not this search
        return []
    return list(known.definition["drawn"]) if sweep.search.continues(before) else []


def refuse_second_driver(sweep: Sweep, ledger: str | Path) -> None:
    """See that a search has no driver, before anything in its run folder changes; `run_plan` makes sure.

    Raises:
        AnotherDriver: it has one.
    """
    if sweep.search is None:
        return
    from orchestrator.records.ledger import Ledger
    from orchestrator.records.owners import alone_on

    with suppress(NoLedger), Ledger.open(ledger, create=False) as opened:
        other = alone_on(opened, sweep.name, time.time())
        if other is not None:
            raise AnotherDriver(sweep.name, other)


def epochs_of(plan: Plan) -> int:
    """How many epochs the configurations of a plan are trained, as its base says."""
    base = next((arm for arm in plan.arms if not arm.is_control and not arm.settings), plan.control)
    return base.spec.recipe.epochs


def arm_of(plan: Plan, setting: Setting) -> Arm | None:
    """The arm that a drawn setting became, or is a duplicate of; None if it was rejected."""
    wanted = canonical_json(dict(setting))
    for arm in plan.arms:
        if canonical_json(dict(arm.settings)) == wanted and not arm.is_control:
            return arm
    same = next((item.same_as for item in plan.duplicates if canonical_json(dict(item.settings)) == wanted), None)
    return next((arm for arm in plan.arms if arm.label == same), None)


def comparison(sweep: Sweep, best: Sequence[Setting]) -> dict[str, Any]:
    """A sweep, as plain values, that compares the best configurations of a search with its control, over all seeds."""
    values = sweep.to_json()
    for key in ("search", "axes", "control_seeds"):
        values.pop(key, None)
    values |= {"name": f"{sweep.name}-best", "axes": {"list": [dict(setting) for setting in best]}}
    parse_sweep(values)
    return values


def _search_of(sweep: Sweep) -> Search:
    if sweep.search is None:
        raise ValueError(f"the sweep {sweep.name!r} has no search")
    return sweep.search


def _refuse_useless_decisions(search: Search, made: Plan, source: str) -> None:
    epochs = epochs_of(made)
    wrong = []
    if search.interval >= epochs:
        wrong.append(f"search.interval: no decision falls into recipe.epochs={epochs}, given {search.interval}")
    if made.control.spec.recipe.changes or any(arm.spec.recipe.changes for arm in made.arms if not arm.settings):
        wrong.append("base.recipe.changes: pbt finds out what to change and when; leave them out")
    if wrong:
        raise SweepError(source, wrong)


def _changed_once(search: Search) -> Setting:
    first, *_, last = search.corners()
    return {**first, CHANGES: [{"epoch": search.interval, **{path.partition(".")[2]: last[path] for path in last}}]}


def _at_most(corners: Plan, configurations: int, source: str) -> dict[str, Any]:
    """The cost if every configuration were the dearest one at an end of the space, and none were stopped early.

    `epochs` are those of the longest: a space may hold `recipe.epochs`.
    """
    arms = [arm for arm in corners.arms if not arm.is_control]
    if not arms:
        raise SweepError(source, ["search.space: no configuration at its ends can exist", *_reasons(corners)])
    seconds = [arm.price.seconds for arm in arms]
    memory = [arm.price.memory_bytes for arm in arms if arm.price.memory_bytes is not None]
    whole = None if None in seconds else max(value or 0.0 for value in seconds)
    hours = {
        key: None if whole is None else round(whole * configurations * share / 3600, 4)
        for key, share in {
            "cpu_hours": max(arm.resources.cpus * arm.resources.workers for arm in arms),
            "gpu_hours": max(arm.resources.gpus * arm.resources.workers for arm in arms),
        }.items()
    }
    each = None if whole is None else round(whole, 2)
    epochs = max(arm.spec.recipe.epochs for arm in arms)
    return {"seconds_per_trial": each, "memory_bytes": max(memory, default=None), **hours, "epochs": epochs}


def _reasons(plan: Plan) -> list[str]:
    return [f"{item.label}: {item.reason}" for item in plan.rejected]
