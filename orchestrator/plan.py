"""A sweep, expanded, checked, deduplicated, profiled and priced. Nothing has run yet. No torch here.

Planning is pure: the same sweep gives the same plan, byte for byte. Typing mistakes (unknown keys, stages, blocks)
are errors of the file; configurations that cannot exist (groups that do not divide, scales too small) are rejected
one by one, with the reason, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from blocks.configs import InvalidChoice
from orchestrator import axes as algebra
from orchestrator.errors import SweepError
from orchestrator.price import Price, Pricer
from orchestrator.sweep import ResourceRule, Sweep, explain, get_path, merge, set_path, with_name
from orchestrator.trial import Trial
from workloads.backbones.insertion import insertion_points
from workloads.protocols import PROTOCOLS
from workloads.recipes import RECIPES
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
        return [Trial(self.spec.model_copy(update={"seed": seed})) for seed in self.seeds]


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

    @property
    def control(self) -> Arm:
        """The arm every other arm is compared with."""
        return next(arm for arm in self.arms if arm.is_control)

    def ordered(self) -> list[tuple[Arm, Trial]]:
        """Every trial, the longest first (it keeps the last workers busy), seeds of an arm together."""
        arms = sorted(self.arms, key=lambda arm: -(arm.price.seconds or 0.0))
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
        only: conditions; arms that match none of them are left out (the control stays).
        source: named in errors.

    Raises:
        SweepError: typing mistakes, an impossible control, or nothing left to run.
    """
    candidates, mistakes = _candidates(sweep, only)
    if mistakes:
        raise SweepError(source, list(dict.fromkeys(mistakes)))
    labels = _labels([(item.content, item.setting) for item in candidates])
    rejected: list[Rejection] = []
    duplicates: list[Duplicate] = []
    arms: dict[str, Arm] = {}
    for item, label in zip(candidates, labels, strict=True):
        if item.spec is None:
            rejected.append(Rejection(label, item.setting, "; ".join(item.reasons)))
            continue
        arm_id = Trial(item.spec).arm_id
        if arm_id in arms:
            duplicates.append(Duplicate(label, item.setting, arms[arm_id].label))
            continue
        if any(label == arm.label for arm in arms.values()):
            label = f"{label} #{arm_id[:4]}"
        seeds = (sweep.control_seeds or sweep.seeds) if item.is_control else sweep.seeds
        rule = _resources(sweep, item.content)
        arms[arm_id] = Arm(arm_id, label, item.setting, item.is_control, item.spec, rule, seeds)
    if len(arms) < 2 and rejected:
        raise SweepError(source, [f"{item.label}: {item.reason}" for item in rejected])
    priced = _priced(tuple(arms.values()), profiler, pricer or Pricer())
    fitting, too_large = _within_memory(priced)
    return Plan(sweep, fitting, (*rejected, *too_large), tuple(duplicates))


@dataclass(frozen=True)
class _Candidate:
    """A setting of the sweep, resolved and checked; `spec` is None if it cannot exist."""

    content: Mapping[str, Any]
    setting: Mapping[str, Any]
    is_control: bool
    spec: TrialSpec | None
    reasons: Sequence[str]


def _candidates(sweep: Sweep, only: Sequence[Mapping[str, Any]]) -> tuple[list[_Candidate], list[str]]:
    """Every setting, and every mistake in the file: a typing mistake, or a control that cannot exist."""
    found: list[_Candidate] = []
    mistakes: list[str] = []
    for setting, is_control in _settings(sweep, only):
        try:
            content = resolve(sweep, setting, control=is_control)
            spec, reasons = check(content)
        except SweepError as error:
            mistakes += error.problems
            continue
        found.append(_Candidate(content, setting, is_control, spec, reasons))
        mistakes += [f"control: {reason}" for reason in reasons] if is_control else []
    return found, mistakes


def resolve(sweep: Sweep, setting: Mapping[str, Any], *, control: bool = False) -> dict[str, Any]:
    """One configuration of a sweep as a complete trial (seed 0): base, control or setting, and the workload's defaults.

    Raises:
        SweepError: the workload is missing or wrong, or an unknown recipe or protocol is named.
    """
    given = merge({}, sweep.base)
    if control:
        given = merge(given, sweep.control)
    for path, value in setting.items():
        set_path(given, path, value)
    if "workload" not in given:
        raise SweepError(sweep.name, ["base.workload: required, but not given"])
    try:
        workload = parse_workload(given["workload"])
    except ValidationError as error:
        raise SweepError(sweep.name, explain(error, ("workload",))) from None
    except ValueError as error:
        raise SweepError(sweep.name, [f"workload: {error}"]) from None
    content = merge(workload.defaults(), given)
    backbone = with_name(content.get("backbone", {}))
    content["backbone"] = {"classes": workload.classes, "channels": workload.channels, **backbone}
    content["block"] = with_name(content.get("block", "none"))
    content["recipe"] = _preset(content.get("recipe", {}), RECIPES, "recipe", sweep.name)
    content["protocol"] = _preset(content.get("protocol", {}), PROTOCOLS, "protocol", sweep.name)
    # Without a block the places mean nothing: all such arms are one.
    content["insertion"] = {} if content["block"].get("name") == "none" else content.get("insertion", {})
    content["seed"] = 0
    return content


def check(content: Mapping[str, Any]) -> tuple[TrialSpec | None, list[str]]:
    """The validated trial, or the reasons why this configuration cannot exist.

    Raises:
        SweepError: typing mistakes: unknown keys, wrong types, unknown names or stages.
    """
    try:
        spec = TrialSpec.model_validate(content)
    except ValidationError as error:
        causes = [item.get("ctx", {}).get("error") for item in error.errors()]
        if all(isinstance(cause, InvalidChoice) for cause in causes):
            return None, [str(cause) for cause in causes]
        raise SweepError("trial", explain(error)) from None
    return (None, reasons) if (reasons := model_problems(spec)) else (spec, [])


def model_problems(spec: ModelSpec) -> list[str]:
    """Why the blocks of this network do not fit the maps they are inserted at.

    Raises:
        SweepError: the insertion names stages or units that do not exist.
    """
    found = spec.backbone.problems()
    if found:
        return found
    try:
        points = insertion_points(spec.backbone, spec.insertion)
    except ValueError as error:
        raise SweepError("trial", [f"insertion: {error}"]) from None
    if not points and spec.block.name != "none":
        raise SweepError(
            "trial", [f"insertion: block {spec.block.name!r} needs a place, e.g. insertion: {{res3: [1]}}"]
        )
    by_reason: dict[str, list[str]] = {}
    for point in points:
        for reason in spec.block.problems(point.shape):
            by_reason.setdefault(reason, []).append(str(point))
    return [f"{spec.block.name} at {', '.join(places)}: {reason}" for reason, places in by_reason.items()]


def _settings(sweep: Sweep, only: Sequence[Mapping[str, Any]]) -> list[tuple[dict[str, Any], bool]]:
    """The control first, then every setting the axes give; a sweep without axes is its base alone."""
    base = merge({}, sweep.base)
    settings = algebra.expand(sweep.axes, lambda path: get_path(base, path))
    if only:
        settings = [setting for setting in settings if _wanted(sweep, setting, only)]
    return [({}, True), *((setting, False) for setting in settings)]


def _wanted(sweep: Sweep, setting: Mapping[str, Any], only: Sequence[Mapping[str, Any]]) -> bool:
    content = resolve(sweep, setting)
    return all(algebra.matches(condition, lambda path: get_path(content, path)) for condition in only)


def _preset(given: Any, presets: Mapping[str, Any], kind: str, source: str) -> dict[str, Any]:
    values = with_name(given) if given else {}
    name = values.get("name", next(iter(presets)))
    if name not in presets:
        raise SweepError(source, [f"{kind}: unknown {kind} {name!r}, allowed: {', '.join(presets)}"])
    return {**presets[name].to_json(), **values}


def _labels(items: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """Short names of arms: the block, what varies among the arms of that block, and where it sits if that varies."""
    names = [str(content["block"].get("name", "?")) for content, _ in items]
    shown = [_shown(setting) for _, setting in items]
    places = [_place(content["insertion"]) for content, _ in items]
    values: dict[tuple[str, str], set[str]] = {}
    for name, parts in zip(names, shown, strict=True):
        for path, value in parts.items():
            values.setdefault((name, path), set()).add(value)
    moved = len({place for place, name in zip(places, names, strict=True) if name != "none"}) > 1
    labels = []
    for name, parts, place in zip(names, shown, places, strict=True):
        varied = [f"{path}={value}" for path, value in parts.items() if len(values[name, path]) > 1]
        labels.append(" ".join([name, *varied, *([f"@{place}"] if moved and place else [])]))
    return labels


def _shown(setting: Mapping[str, Any]) -> dict[str, str]:
    """What an axis setting chose, by short path, as text; the block's name and place are shown otherwise."""
    flat: dict[str, Any] = {}
    for path, value in setting.items():
        if isinstance(value, Mapping) and path != "insertion":
            flat.update({f"{path}.{key}": item for key, item in value.items()})
        else:
            flat[path] = value
    hidden = ("block", "block.name", "insertion")
    return {path.removeprefix("block."): _short(value) for path, value in flat.items() if path not in hidden}


def _place(insertion: Mapping[str, Any]) -> str:
    return "+".join(f"{stage}{_units(units)}" for stage, units in insertion.items())


def _units(units: Any) -> str:
    if units == "all":
        return "[all]"
    return "" if list(units) == [0] else "[" + ",".join(map(str, units)) + "]"


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(_short, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}:{_short(item)}" for key, item in value.items())
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resources(sweep: Sweep, content: Mapping[str, Any]) -> ResourceRule:
    found = (rule for rule in sweep.resources if algebra.matches(rule.when, lambda path: get_path(content, path)))
    return next(found, ResourceRule())


def _priced(arms: tuple[Arm, ...], profiler: Profiler | None, pricer: Pricer) -> tuple[Arm, ...]:
    profiles: Sequence[Profile | None] = [None] * len(arms)
    if profiler is not None:
        profiles = profiler([arm.spec.model for arm in arms])
    priced = []
    for arm, profile in zip(arms, profiles, strict=True):
        known = profile or {}
        price = pricer.price(
            arm.spec,
            arm.arm_id,
            executed_macs=trained_macs(arm.spec, known),
            params=known.get("params"),
            activation_bytes=known.get("peak_activation_bytes"),
        )
        priced.append(Arm(**{**arm.__dict__, "profile": profile, "price": price}))
    return tuple(priced)


def trained_macs(spec: TrialSpec, profile: Profile) -> int | None:
    """MACs of a clip in every epoch: frozen stages run once per sweep, their features are kept."""
    if "executed_macs" not in profile:
        return None
    frozen = sum(item["executed_macs"] for item in profile.get("per_stage", ()) if item["stage"] in spec.recipe.freeze)
    return int(profile["executed_macs"]) - int(frozen)


def _within_memory(arms: tuple[Arm, ...]) -> tuple[tuple[Arm, ...], tuple[Rejection, ...]]:
    fitting, too_large = [], []
    for arm in arms:
        limit = arm.resources.memory_gib
        needed = arm.price.memory_bytes
        if limit is None or needed is None or needed / 2**30 <= limit:
            fitting.append(arm)
            continue
        reason = f"needs about {needed / 2**30:.1f} GiB at batch {arm.spec.recipe.batch}, resources allow {limit:g} GiB"
        too_large.append(Rejection(arm.label, arm.settings, reason))
    return tuple(fitting), tuple(too_large)


def _arm_json(arm: Arm) -> dict[str, Any]:
    return {
        "arm_id": arm.arm_id,
        "label": arm.label,
        "control": arm.is_control,
        "settings": dict(arm.settings),
        "seeds": list(arm.seeds),
        "estimated_seconds": _rounded(arm.price.seconds),
        "estimated_memory_bytes": arm.price.memory_bytes,
        "basis": arm.price.basis,
    }


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
