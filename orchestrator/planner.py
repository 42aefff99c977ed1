"""From a sweep's name or file to a plan, priced from what a ledger has seen. No click; torch only to profile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import NoLedger, SweepError, UserError
from orchestrator.plan import Plan, Profiler, make_plan, mistakes, trained_macs, unready
from orchestrator.price import PastTrial, Pricer, clip_passes, device_kind
from orchestrator.search.planning import drawn, planner_of
from orchestrator.sweep import NAMED, ResourceRule, Sweep, load_sweep, unknown_paths, yaml_value
from workloads.spec import TrialSpec


def conditions(only: Sequence[str]) -> list[Mapping[str, Any]]:
    """`--only path=value` texts as conditions."""
    found: list[Mapping[str, Any]] = []
    for text in only:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise UserError(f"--only takes path=value, given {text!r}; for example --only block.name=rnl")
        wrong = unknown_paths([path])
        if wrong:
            raise UserError(f"--only {wrong[0]}")
        wanted = yaml_value(value, f"--only {text}")
        found.append({f"{path}.name" if path in NAMED and isinstance(wanted, str) else path: wanted})
    return found


def load(source: str, overrides: Sequence[str] = ()) -> Sweep:
    """A sweep by name or path, or everything that is wrong with it: with the file, and with its configurations.

    Raises:
        UserError: as `load_sweep`.
    """
    try:
        return load_sweep(source, overrides)
    except SweepError as error:
        more = [*mistakes(error.rest), *unready(error.rest)] if error.rest is not None else []
        raise SweepError(source, [*error.problems, *more]) from None


def plan_of(
    source: str,
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    *,
    profiled: bool = True,
    ledger: str | Path | None = None,
) -> Plan:
    """The plan of a sweep by name or path, priced from the ledger's past trials if there are any."""
    return plan_sweep(load(source, overrides), only, profiled=profiled, ledger=ledger, source=source)


def plan_sweep(
    sweep: Sweep,
    only: Sequence[str] = (),
    *,
    profiled: bool = True,
    ledger: str | Path | None = None,
    source: str = "sweep",
) -> Plan:
    """Like `plan_of`, for a sweep that is loaded already.

    Raises:
        SweepError: the sweep is wrong; what its data lacks is told in the same breath.
    """
    try:
        if sweep.search is not None:
            if only:
                raise SweepError(source, ["--only: keeps arms of a list; a search has a space, change that"])
            return search_planner(sweep, profiled=profiled, ledger=ledger, source=source)(drawn(sweep, ledger))
        return make_plan(
            sweep,
            profiler=profiler() if profiled else None,
            pricer=_pricer(sweep, ledger),
            only=conditions(only),
            source=source,
        )
    except SweepError as error:
        raise SweepError(source, [*error.problems, *unready(sweep)]) from None


def search_planner(
    sweep: Sweep, *, profiled: bool = True, ledger: str | Path | None = None, source: str = "sweep"
) -> Callable[[Sequence[Mapping[str, Any]]], Plan]:
    """The plan of a search as it grows, from the settings drawn so far; no model is profiled twice."""
    chosen = profiler() if profiled else None
    return planner_of(sweep, profiler=chosen, pricer=_pricer(sweep, ledger), source=source)


def _pricer(sweep: Sweep, ledger: str | Path | None) -> Pricer:
    rules = (*sweep.resources, ResourceRule())  # the default is for arms that no rule fits
    devices = sorted({device_kind(rule.gpus) for rule in rules})
    return Pricer([past for device in devices for past in past_trials(ledger, device)], devices=devices)


def profiler() -> Profiler:
    """Profiles models on the meta device, in worker processes where many were never counted before."""

    def profile_models(specs: Sequence[Any]) -> list[Mapping[str, Any]]:
        from workloads.counting import profile_all

        return [profile.model_dump(mode="json") for profile in profile_all(specs)]

    return profile_models


def past_trials(ledger: str | Path | None, device: str) -> list[PastTrial]:
    """What finished trials of a ledger took; none if there is no ledger yet."""
    if ledger is None or (isinstance(ledger, Path) and not ledger.exists()):
        return []  # without importing the database's library
    from orchestrator.records.ledger import Ledger

    try:
        with Ledger.open(ledger, create=False) as opened:
            timings = opened.past_seconds(device)
    except NoLedger:
        return []
    work = {timing.arm_id: _work(timing.spec, timing.profile or {}) for timing in timings}
    return [
        PastTrial(
            timing.arm_id,
            timing.workload,
            timing.device,
            macs,
            timing.seconds,
            timing.estimated_seconds,
            timing.workers,
        )
        for timing in timings
        if (macs := work[timing.arm_id])
    ]


def _work(spec: Mapping[str, Any], profile: Mapping[str, Any]) -> float | None:
    """MACs of one whole trial of a recorded arm; None if this version cannot read it any more."""
    try:
        known = TrialSpec.model_validate({**spec, "seed": 0})
    except ValueError:
        return None
    passes, macs = clip_passes(known), trained_macs(known, profile)
    return None if passes is None or macs is None else passes * macs
