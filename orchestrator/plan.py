"""A sweep, expanded, checked, deduplicated, profiled and priced. Nothing has run yet. No torch here.

Planning is pure: the same sweep gives the same plan, byte for byte. Typing mistakes (unknown keys, stages, blocks)
are errors of the file; configurations that cannot exist (groups that do not divide, scales too small) are rejected
one by one, with the reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from orchestrator import axes as algebra
from orchestrator.errors import SweepError
from orchestrator.labels import labels as short_labels
from orchestrator.price import Price, Pricer, device_kind
from orchestrator.resolve import check, resolve
from orchestrator.rules import misspelt
from orchestrator.sweep import ResourceRule, Sweep, get_path, merge
from orchestrator.trial import Trial, canonical_json
from workloads.registry import parse_workload
from workloads.spec import ModelSpec, TrialSpec

Profile = Mapping[str, Any]  # what workloads.counting.Profile says, as JSON: at least params and executed_macs
Profiler = Callable[[Sequence[ModelSpec]], Sequence[Profile]]


@dataclass(frozen=True)
class Arm:
    """All trials of one configuration; `spec` carries the first seed."""

    arm_id: str
    label: str
    settings: Mapping[str, Any]
    is_control: bool
    spec: TrialSpec
    resources: ResourceRule
    seeds: tuple[int, ...]
    profile: Profile | None = None
    price: Price = field(default_factory=lambda: Price(None, None, "not profiled"))

    def trials(self) -> list[Trial]:
        """One trial per seed."""
        first = Trial(self.spec)
        return [first.reseeded(seed) for seed in self.seeds]

    def device_hours(self) -> float | None:
        """Estimated hours times devices (GPUs, or CPUs where it takes none) of all its trials; None if not known."""
        if self.price.seconds is None:
            return None
        devices = (self.resources.gpus or self.resources.cpus) * self.resources.workers
        return self.price.seconds * len(self.seeds) * devices / 3600


@dataclass(frozen=True)
class Rejection:
    """A configuration that cannot exist, and why."""

    label: str
    settings: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Duplicate:
    """A setting that resolves to an arm that is there already."""

    label: str
    settings: Mapping[str, Any]
    same_as: str


@dataclass(frozen=True)
class Plan:
    """What `run` would do."""

    sweep: Sweep
    arms: tuple[Arm, ...]
    rejected: tuple[Rejection, ...]
    duplicates: tuple[Duplicate, ...]
    search: Mapping[str, Any] | None = None  # of a search: see `search.planning.plan_search`
    past_error: float | None = None  # of earlier estimates, see `Pricer.error`
    whole: tuple[str, ...] = ()  # arm_ids of the sweep, in order, also of those that `only` leaves out
    left_out: tuple[str, ...] = ()  # labels of the arms that `only` leaves out
    rejected_besides: tuple[Rejection, ...] = ()  # of what `only` leaves out

    @property
    def control(self) -> Arm:
        """The arm every other arm is compared with."""
        return next(arm for arm in self.arms if arm.is_control)

    def ordered(self) -> list[tuple[Arm, Trial]]:
        """Every trial, seeds of an arm together.

        The control comes first: without it a run that is stopped half-way compares nothing. Then the longest, which
        keeps the last workers busy.
        """
        arms = sorted(self.arms, key=lambda arm: (not arm.is_control, -(arm.price.seconds or 0.0)))
        return [(arm, trial) for arm in arms for trial in arm.trials()]

    def to_json(self) -> dict[str, Any]:
        """Plain values; the same sweep gives the same text."""
        trials = [
            {
                "trial_id": trial.trial_id,
                "arm": arm.label,
                "arm_id": arm.arm_id,
                "seed": trial.spec.seed,
                "executed_macs": (arm.profile or {}).get("executed_macs"),
                "params": (arm.profile or {}).get("params"),
                "estimated_seconds": _rounded(arm.price.seconds),
            }
            for arm, trial in self.ordered()
        ]
        return {
            "sweep": self.sweep.name,
            "question": self.sweep.question,
            "arms": [_arm_json(arm) for arm in self.arms],
            "trials": trials,
            "rejected": [asdict(rejection) for rejection in self.rejected],
            "duplicates": [asdict(duplicate) for duplicate in self.duplicates],
            "estimate": self.estimate(),
            **({} if self.search is None else {"search": dict(self.search)}),
        }

    def estimate(self) -> dict[str, Any]:
        """Totals: trials, device-hours, memory, and what the numbers rest on."""
        priced = [(arm, arm.price.seconds * len(arm.seeds)) for arm in self.arms if arm.price.seconds is not None]
        complete = len(priced) == len(self.arms)
        gpu = [(arm, seconds * arm.resources.gpus * arm.resources.workers) for arm, seconds in priced]
        cpu = [(arm, seconds * arm.resources.cpus * arm.resources.workers) for arm, seconds in priced]
        memory = [arm.price.memory_bytes for arm in self.arms if arm.price.memory_bytes is not None]
        return {
            "arms": len(self.arms),
            "trials": sum(len(arm.seeds) for arm in self.arms),
            "cpu_hours": _rounded(sum(value for _, value in cpu) / 3600, 4) if complete else None,
            "gpu_hours": _rounded(sum(value for _, value in gpu) / 3600, 4) if complete else None,
            "largest_memory_bytes": max(memory, default=None),
            "basis": sorted({arm.price.basis for arm in self.arms}),
            "past_error": _rounded(self.past_error, 4),
        }


def make_plan(
    sweep: Sweep,
    *,
    profiler: Profiler | None = None,
    pricer: Pricer | None = None,
    only: Sequence[Mapping[str, Any]] = (),
    source: str = "sweep",
) -> Plan:
    """Expand, check, deduplicate, profile and price a sweep.

    Args:
        sweep: the question.
        profiler: params and executed MACs of each distinct model; None leaves them out (and imports no torch).
        pricer: turns profiles into seconds; None prices by stated assumptions.
        only: conditions; an arm stays if all of them hold, of those on the same path any (the control always stays).
        source: named in errors.

    Raises:
        SweepError: typing mistakes, an impossible control, or nothing left to run.
    """
    candidates, found = _candidates(sweep)
    if not found and len(candidates) == 1:
        found = ["axes: nothing is left to run: exclude and when drop every setting"]
    chosen = candidates
    if not found and only:
        chosen, found = _chosen(candidates, only)
    found += _misspelt(sweep, candidates)
    if found:
        raise SweepError(source, found)
    every, rejected, besides, duplicates = _arms(sweep, candidates, {id(item) for item in chosen})
    wanted = {item.arm_id for item in chosen if item.spec is not None}
    arms = tuple(arm for arm in every if arm.arm_id in wanted)
    if len(arms) < 2 and rejected:
        raise SweepError(source, [f"{item.label}: {item.reason}" for item in rejected])
    pricer = pricer or Pricer()
    priced = _priced(arms, profiler, pricer)
    can, cannot = _that_can_train(priced)
    if (cannot and not any(not arm.is_control for arm in can)) or not any(arm.is_control for arm in can):
        raise SweepError(source, [f"{item.label}: {item.reason}" for item in cannot])
    return Plan(
        sweep,
        can,
        (*rejected, *cannot),
        duplicates,
        past_error=pricer.error,
        whole=tuple(arm.arm_id for arm in every),
        left_out=tuple(arm.label for arm in every if arm.arm_id not in wanted),
        rejected_besides=besides,
    )


def mistakes(sweep: Sweep) -> list[str]:
    """Every typing mistake in the configurations of a sweep, each once: unknown names, keys and stages, wrong types."""
    return _candidates(sweep)[1]


def unready(sweep: Sweep) -> list[str]:
    """What is missing or wrong on disk, of every workload a sweep names, also where its configurations are wrong."""
    found = {canonical_json(item.content["workload"]): item.content["workload"] for item in _candidates(sweep)[0]}
    problems = [problem for given in found.values() for problem in parse_workload(given).problems()]
    return [f"before it can run: {problem}" for problem in dict.fromkeys(problems)]


@dataclass(frozen=True)
class _Candidate:
    """A setting of the sweep, resolved and checked; `spec` is None if it cannot exist."""

    content: Mapping[str, Any]
    setting: Mapping[str, Any]
    is_control: bool
    spec: TrialSpec | None
    reasons: Sequence[str]

    @cached_property
    def values(self) -> Mapping[str, Any]:
        """What conditions are asked about: the complete trial, defaults included, if it can exist."""
        return self.content if self.spec is None else self.spec.to_json()

    @cached_property
    def arm_id(self) -> str:
        """Of a configuration that can exist."""
        assert self.spec is not None
        return Trial(self.spec).arm_id


def _candidates(sweep: Sweep) -> tuple[list[_Candidate], list[str]]:
    """The control, then every setting; and every mistake in the file: typing, or a control that cannot exist."""
    found: list[_Candidate] = []
    wrong: list[str] = []
    base = merge({}, sweep.base)
    settings = algebra.expand(sweep.axes, lambda path: get_path(base, path))  # without axes the base alone
    for setting, is_control in [({}, True), *((setting, False) for setting in settings)]:
        try:
            content = resolve(sweep, setting, control=is_control)
            spec, reasons = check(content)
        except SweepError as error:
            wrong += error.problems
            continue
        found.append(_Candidate(content, setting, is_control, spec, reasons))
        wrong += [f"control: {reason}" for reason in reasons] if is_control else []
    return found, list(dict.fromkeys(wrong))


def _misspelt(sweep: Sweep, candidates: Sequence[_Candidate]) -> list[str]:
    if not any(rule.when for rule in sweep.resources):
        return []  # complete trials as plain values take their time
    specs = [item.spec for item in candidates if item.spec is not None]
    return misspelt(sweep.resources, [item.values for item in candidates], specs)


def _chosen(candidates: Sequence[_Candidate], only: Sequence[Mapping[str, Any]]) -> tuple[list[_Candidate], list[str]]:
    """The control and the settings for which the conditions hold, of one path any; or which condition never does."""

    def holds(item: _Candidate, condition: Mapping[str, Any]) -> bool:
        return algebra.matches(condition, lambda path: get_path(item.values, path))

    others = [item for item in candidates if not item.is_control]
    same_path: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for condition in only:
        same_path.setdefault(tuple(condition), []).append(condition)
    chosen = [item for item in others if all(any(holds(item, one) for one in either) for either in same_path.values())]
    if chosen:
        return [*(item for item in candidates if item.is_control), *chosen], []
    wrong = []
    for condition in only:
        if any(holds(item, condition) for item in others):
            continue
        for path, wanted in condition.items():
            values = dict.fromkeys(canonical_json(get_path(item.values, path)) for item in others)
            known = "nothing sets it: is it misspelt?" if set(values) == {"null"} else f"there are: {', '.join(values)}"
            wrong.append(f"--only {path}={canonical_json(wanted)}: no arm has this; {known}")
    return [], wrong or ["--only: no arm meets all the conditions at once"]


def _arms(
    sweep: Sweep, candidates: Sequence[_Candidate], chosen: Collection[int]
) -> tuple[tuple[Arm, ...], tuple[Rejection, ...], tuple[Rejection, ...], tuple[Duplicate, ...]]:
    """Every arm of the sweep; what of the chosen ones (by `id`) and of the others cannot exist; chosen duplicates.

    An arm is called the same whatever is chosen: one run folder holds several choices.
    """
    rejected: list[Rejection] = []
    besides: list[Rejection] = []
    duplicates: list[Duplicate] = []
    arms: dict[str, Arm] = {}
    taken: set[str] = set()
    labels = short_labels([(item.content, item.setting) for item in candidates])
    for item, label in zip(candidates, labels, strict=True):
        if item.spec is None:
            one = Rejection(label, item.setting, "; ".join(item.reasons))
            (rejected if id(item) in chosen else besides).append(one)
            continue
        arm_id = item.arm_id
        if arm_id in arms:
            duplicates += [Duplicate(label, item.setting, arms[arm_id].label)] if id(item) in chosen else []
            continue
        label = _unique(label, arm_id, taken)
        taken.add(label)
        seeds = (sweep.control_seeds or sweep.seeds) if item.is_control else sweep.seeds
        rule = _resources(sweep, item.values)
        arms[arm_id] = Arm(arm_id, label, item.setting, item.is_control, item.spec, rule, seeds)
    return tuple(arms.values()), tuple(rejected), tuple(besides), tuple(duplicates)


def _unique(label: str, arm_id: str, taken: Collection[str]) -> str:
    """The label, with as much of the id as makes it one of its kind."""
    candidates = (label, *(f"{label} #{arm_id[:digits]}" for digits in range(4, len(arm_id) + 1)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _resources(sweep: Sweep, content: Mapping[str, Any]) -> ResourceRule:
    found = (rule for rule in sweep.resources if algebra.matches(rule.when, lambda path: get_path(content, path)))
    return next(found, ResourceRule())


def _priced(arms: tuple[Arm, ...], profiler: Profiler | None, pricer: Pricer) -> tuple[Arm, ...]:
    profiles: Sequence[Profile | None] = [None] * len(arms)
    if profiler is not None:
        profiles = _profiles([arm.spec.model for arm in arms], profiler)
    priced = []
    for arm, profile in zip(arms, profiles, strict=True):
        known = profile or {}
        price = pricer.price(
            arm.spec,
            arm.arm_id,
            executed_macs=trained_macs(arm.spec, known),
            params=known.get("params"),
            activation_bytes=known.get("peak_activation_bytes"),
            device=device_kind(arm.resources.gpus),
            workers=arm.resources.workers,
        )
        priced.append(replace(arm, profile=profile, price=price))
    return tuple(priced)


def _profiles(models: Sequence[ModelSpec], profiler: Profiler) -> list[Profile]:
    """One profile per model; a network that several arms train is built once."""
    keys = [canonical_json(model.to_json()) for model in models]
    distinct = dict(zip(keys, models, strict=True))
    known = dict(zip(distinct, profiler(list(distinct.values())), strict=True))
    return [known[key] for key in keys]


def trained_macs(spec: TrialSpec, profile: Profile) -> int | None:
    """MACs of a clip in every epoch: frozen stages run once per sweep, their features are kept."""
    if "executed_macs" not in profile:
        return None
    frozen = sum(item["executed_macs"] for item in profile.get("per_stage", ()) if item["stage"] in spec.recipe.freeze)
    return int(profile["executed_macs"]) - int(frozen)


def _that_can_train(arms: tuple[Arm, ...]) -> tuple[tuple[Arm, ...], tuple[Rejection, ...]]:
    can, cannot = [], []
    for arm in arms:
        reason = _too_few_clips(arm) or _too_large(arm)
        if reason:
            cannot.append(Rejection(arm.label, arm.settings, reason))
        else:
            can.append(arm)
    return tuple(can), tuple(cannot)


def _too_few_clips(arm: Arm) -> str:
    block, batch, workers = arm.spec.block, arm.spec.recipe.batch, arm.resources.workers
    if batch >= block.least_clips * workers:
        return ""
    needed = f"{block.name} trains on at least {block.least_clips} clips per device"
    given = f"given recipe.batch={batch} for {workers} worker{'s' * (workers > 1)}"
    return f"{needed}, {given}: use a batch of {block.least_clips * workers} or more"


def _too_large(arm: Arm) -> str:
    limit, needed = arm.resources.memory_gib, arm.price.memory_bytes
    if limit is None or needed is None or needed / 2**30 <= limit:
        return ""
    return f"needs about {needed / 2**30:.1f} GiB at batch {arm.spec.recipe.batch}, resources allow {limit:g} GiB"


def _arm_json(arm: Arm) -> dict[str, Any]:
    return {
        "arm_id": arm.arm_id,
        "label": arm.label,
        "control": arm.is_control,
        "settings": dict(arm.settings),
        "seeds": list(arm.seeds),
        "estimated_seconds": _rounded(arm.price.seconds),
        "estimated_memory_bytes": arm.price.memory_bytes,
        "estimated_device_hours": _rounded(arm.device_hours(), 4),
        "basis": arm.price.basis,
    }


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
