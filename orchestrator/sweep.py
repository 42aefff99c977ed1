"""A sweep: one question as a YAML file, or as `Sweep(...)` in a notebook. No torch here.

The file is read by a safe loader, overrides are applied, includes are merged, and the result is validated as a whole:
all problems are reported at once, each with its place, what was given and what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from orchestrator import axes as algebra
from orchestrator.documents import read_yaml, with_text_keys
from orchestrator.errors import SweepError, UserError
from orchestrator.explain import did_you_mean, explain, short
from orchestrator.search.space import Search
from workloads.frozen import Frozen

TRIAL_KEYS = ("workload", "backbone", "insertion", "block", "recipe", "protocol", "start")
NAMED = ("workload", "backbone", "block", "recipe", "protocol")  # may be given as a bare name
MOST_SEEDS = 10_000
MOST_SEED = 2**63 - 1  # what a database keeps as one number
MOST_SETTINGS = 100_000
MOST_TRIALS = 1_000_000
LONGEST_NAME = 200
NAME = r"^[^\x00-\x1f/\\]+(/[^\x00-\x1f/\\]+)*$"


class Budget(Frozen):
    """Limits that end a run early, keeping what is done. None is no limit."""

    gpu_hours: float | None = Field(None, gt=0)
    cpu_hours: float | None = Field(None, gt=0)
    wall_hours: float | None = Field(None, gt=0)
    executed_macs: float | None = Field(None, gt=0)
    max_failures: int | None = Field(None, ge=0)


class ResourceRule(Frozen):
    """What one trial gets, for all arms or only where `when` holds (first match wins).

    Attributes:
        when: axis path -> value; empty matches every arm.
        cpus: CPU cores, per worker.
        gpus: GPUs, per worker; fractions share one.
        workers: processes that train one trial together, each on a CPU share or a GPU of its own (0 or 1 GPUs).
        data_workers: threads per worker that read clips ahead, which changes no result; not given: as many as `cpus`
            on a GPU or with two cores or more, otherwise none.
        memory_gib: device memory; arms that need more are rejected by the plan.
        hang_minutes: a worker without progress for so long is ended and its trial tried once more.
    """

    when: dict[str, Any] = Field(default_factory=dict)
    cpus: float = Field(1.0, gt=0)
    gpus: float = Field(0.0, ge=0)
    workers: int = Field(1, ge=1)
    data_workers: int | None = Field(None, ge=0)
    memory_gib: float | None = Field(None, gt=0)
    hang_minutes: float | None = Field(60.0, gt=0)

    @model_validator(mode="after")
    def _one_device_each(self) -> Self:
        if self.workers > 1 and self.gpus not in (0.0, 1.0):
            raise ValueError(
                f"several workers need 0 or 1 gpus each, given workers: {self.workers}, gpus: {self.gpus:g}"
            )
        return self


class Reproduces(Frozen):
    """The published table or figure this sweep fills."""

    paper: Literal["hgnl", "rnl", "pnl", "bat"]
    table: str
    note: str = ""


def _name(given: Any) -> Any:
    if isinstance(given, str) and len(given) <= LONGEST_NAME and re.search(NAME, given):
        return given
    raise ValueError(
        f"a text of 1 to {LONGEST_NAME} characters, such as region-size or rnl/table2a, without \\, control "
        f"characters, and / at an end or twice in a row; given {short(given)}"
    )


def _seed_list(given: Any) -> Any:
    if isinstance(given, bool) or not isinstance(given, int | Sequence) or isinstance(given, str):
        raise ValueError(f"a number of seeds, such as 5, or a list of them, such as [0, 1, 2]; given {short(given)}")
    if isinstance(given, int):
        if not 1 <= given <= MOST_SEEDS:
            hint = "five or more give usable intervals"
            raise ValueError(f"seeds must be at least 1 and at most {MOST_SEEDS} ({hint}), given {given}")
        return tuple(range(given))
    return given


def _rules(given: Any) -> Any:
    return [given] if isinstance(given, Mapping) else given


Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MOST_SEED)], ...], BeforeValidator(_seed_list), Field(min_length=1)
]


class Sweep(Frozen):
    """One question: a base configuration, a control to compare with, axes to vary, seeds, a budget.

    Attributes:
        name: what it is called everywhere; any text.
        question: in words; the report answers it.
        base: partial trial: workload, backbone, insertion, block, recipe, protocol, start. The workload fills the rest.
        control: overrides of the base that make the arm all others are compared with.
        axes: what varies (see `orchestrator.axes`).
        seeds: a number (0, 1, ...) or a list.
        control_seeds: seeds of the control, if it gets more than the others.
        search: draws configurations from a space, where `axes` would list them.
        reproduces: the published table it fills.
    """

    name: Annotated[str, BeforeValidator(_name), Field(min_length=1, max_length=LONGEST_NAME, pattern=NAME)]
    question: str = ""
    base: dict[str, Any]
    control: dict[str, Any] = Field(default_factory=lambda: {"block": {"name": "none"}})
    axes: dict[str, Any] = Field(default_factory=dict)
    search: Search | None = None
    seeds: Seeds = (0, 1, 2, 3, 4)
    control_seeds: Seeds | None = None
    resources: Annotated[tuple[ResourceRule, ...], BeforeValidator(_rules)] = (ResourceRule(),)
    budget: Budget = Budget()
    reproduces: Reproduces | None = None
    needs: str = ""

    @field_validator("seeds", "control_seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if seeds is not None and len(set(seeds)) != len(seeds):
            raise ValueError(f"the same seed twice in {list(seeds)}")
        return seeds

    @field_validator("axes")
    @classmethod
    def _expandable(cls, axes: dict[str, Any]) -> dict[str, Any]:
        found = algebra.problems(axes)
        if not found:
            found = unknown_paths((*algebra.paths(axes), *(path for path, _ in algebra.conditions(axes))))
        if not found and algebra.most(axes) > MOST_SETTINGS:
            found = [f"gives up to {algebra.most(axes):,} settings, at most {MOST_SETTINGS:,} are planned at once"]
        if found:
            raise ValueError("; ".join(found))
        return axes

    @model_validator(mode="after")
    def _can_be_planned(self) -> Self:
        wrong = unset_conditions(self.axes, merge({}, self.base))
        if (trials := algebra.most(self.axes) * len(self.seeds)) > MOST_TRIALS:
            wrong.append(f"axes and seeds give up to {trials:,} trials, at most {MOST_TRIALS:,} are planned at once")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @model_validator(mode="after")
    def _listed_or_drawn(self) -> Self:
        if self.search is not None and self.axes:
            raise ValueError("give axes, which list configurations, or search, which draws them; not both")
        if self.search is not None and self.search.seed in self.seeds:
            raise ValueError(
                f"search.seed {self.search.seed} is among the sweep's seeds: what was selected by a seed cannot be "
                "compared by it; choose another"
            )
        return self

    @field_validator("search")
    @classmethod
    def _known_space(cls, search: Search | None) -> Search | None:
        found = unknown_paths(search.space) if search is not None else []
        if found:
            raise ValueError("; ".join(found))
        return search

    @field_validator("base", "control")
    @classmethod
    def _trial_keys(cls, given: dict[str, Any]) -> dict[str, Any]:
        found = unknown_paths(given)
        if found:
            raise ValueError("; ".join(found))
        return given

    @field_validator("resources")
    @classmethod
    def _known_conditions(cls, rules: tuple[ResourceRule, ...]) -> tuple[ResourceRule, ...]:
        found = unknown_paths(path for rule in rules for path in rule.when)
        if found:
            raise ValueError("; ".join(found))
        return rules


def load_sweep(source: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep: a shipped name such as `rnl/table2a`, or a path to a YAML file.

    Args:
        source: name or path.
        overrides: `path=value` texts; `seeds=3`, `budget.wall_hours=1`, `recipe.epochs=5` (of the base).

    Raises:
        SweepError: the file or an override is wrong; lists everything found.
        UserError: no such file, a folder, not readable, not YAML.
    """
    path = find_sweep(source)
    document = _include(read_yaml(path), path)
    for override in overrides:
        _override(document, override)
    return parse_sweep(document, source=source)


def parse_sweep(document: Mapping[str, Any], source: str = "sweep") -> Sweep:
    """Validate a sweep given as plain values.

    Raises:
        SweepError: lists every problem.
    """
    document, wrong = with_text_keys(document)
    try:
        sweep = Sweep.model_validate(document)
    except ValidationError as error:
        raise SweepError(source, [*wrong, *explain(error)], rest=_rest(document, error)) from None
    if wrong:
        raise SweepError(source, wrong, rest=sweep)
    return sweep


def _rest(document: Mapping[str, Any], error: ValidationError) -> Sweep | None:
    """The sweep without what is wrong with it, so that the rest of the file can be judged in the same breath."""
    wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
    rest = {key: value for key, value in document.items() if key not in wrong}
    for key in wrong & {"base", "control"}:
        if isinstance(document.get(key), Mapping):
            rest[key] = {part: value for part, value in document[key].items() if part in TRIAL_KEYS}
    try:
        return Sweep.model_validate({"name": "rest", **rest})
    except ValidationError:
        return None


def shipped_sweeps() -> list[str]:
    """Names of the sweeps that come with longrange, e.g. `quickstart`, `rnl/table2a`."""
    root = _shipped_root()
    names = (path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))
    return sorted(name for name in names if not name.rpartition("/")[2].startswith("base"))


def find_sweep(source: str) -> Path:
    """The file behind a shipped name or a path."""
    shipped = _shipped_root() / f"{source}.yaml"
    given = Path(source)
    if source in shipped_sweeps():
        return shipped
    if source and _is(given, Path.is_dir):
        raise UserError(f"{source} is a folder: give a sweep file (YAML), or a name that `longrange sweeps` lists")
    if _is(given, Path.is_file):
        return given
    hint = did_you_mean(source, shipped_sweeps())
    raise UserError(f"no sweep {source!r}: neither a file nor a name that `longrange sweeps` lists{hint}")


def _is(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except OSError as error:
        raise UserError(f"cannot look at {str(path)[:200]!r}: {error.strerror}") from error


def with_name(given: Any) -> Any:
    """`"nl"` and `{"name": "nl"}` are the same thing; what is neither stays, and is refused when it is parsed."""
    return {"name": given} if isinstance(given, str) else given


def unknown_paths(given: Iterable[str]) -> list[str]:
    """Dotted paths that lead nowhere in a trial, each with what is allowed."""
    found = []
    for path in dict.fromkeys(given):
        root = path.partition(".")[0]
        if root not in TRIAL_KEYS:
            hint = did_you_mean(root, TRIAL_KEYS)
            found.append(f"{path}: a trial has no {root!r}, allowed: {', '.join(TRIAL_KEYS)}{hint}")
    return found


def unset_conditions(axes: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Conditions of `when` and `exclude` on what nothing sets: misspelt, or left to a default that they do not see."""
    can_be_set = algebra.paths(axes)
    parts = {key: value for key, value in base.items() if isinstance(value, Mapping)}
    known = [*can_be_set, *(f"{key}.{leaf}" for key, value in parts.items() for leaf in value)]
    return [
        f"when and exclude ask about {path!r}, which neither an axis nor the base sets: is it misspelt? "
        f"Defaults do not count; write the value into the base{did_you_mean(path, known)}"
        for path, may_be_absent in algebra.conditions(axes)
        if not may_be_absent
        and get_path(base, path) is None
        and not any(path == one or path.startswith(f"{one}.") for one in can_be_set)
    ]


def _include(document: dict[str, Any], path: Path, depth: int = 0) -> dict[str, Any]:
    """Merge `base: file.yaml` or `base: {include: file.yaml, ...}`, found beside the file or among the shipped."""
    base = document.get("base")
    if isinstance(base, str):
        base = {"include": base}
    if not isinstance(base, Mapping) or "include" not in base:
        return document
    name = base["include"]
    if depth > 8:
        raise UserError(f"{path}: includes are nested too deep; does {name} include itself?")
    candidates = [path.parent / str(name), _shipped_root() / str(name)]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise UserError(f"{path}: base {name!r} not found; looked for {' and '.join(map(str, candidates))}")
    included = _include({"base": read_yaml(found)}, found, depth + 1)["base"]
    own = {key: value for key, value in base.items() if key != "include"}
    return {**document, "base": merge(included, own)}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, mappings merged key by key; a new `name` replaces its whole mapping."""
    merged = deepcopy(dict(under))
    for key, value in over.items():
        before = merged.get(key)
        if key in NAMED:
            value, before = with_name(value), with_name(before)
        renamed = isinstance(value, Mapping) and isinstance(before, Mapping) and _renames(before, value)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and key != "insertion" and not renamed:
            merged[key] = merge(before, value)
        else:
            merged[key] = deepcopy(value)
    return merged


def _renames(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "name" in after and after["name"] != before.get("name", after["name"])


def _override(document: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(f"--set takes path=value, given {text!r}; for example --set seeds=3 or --set recipe.epochs=5")
    root = path.partition(".")[0]
    if root in TRIAL_KEYS:
        path = f"base.{path}"
    elif root not in Sweep.model_fields:
        known = sorted((*TRIAL_KEYS, *Sweep.model_fields))
        hint = did_you_mean(root, known)
        raise UserError(f"--set {text}: unknown path {root!r}, allowed: {', '.join(known)}{hint}")
    set_path(document, path, yaml_value(value, f"--set {text}"))


def yaml_value(text: str, source: str) -> Any:
    """A value given on the command line, read as YAML.

    Raises:
        UserError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        why = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{source}: the value is not valid YAML: {why}") from error


def get_path(document: Any, path: str) -> Any:
    """The value at a dotted path of nested mappings; None where there is none."""
    for part in path.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def set_path(document: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in nested mappings. A new `name` drops the other fields of its mapping."""
    *parents, leaf = path.split(".")
    node = document
    for parent in parents:
        child = with_name(node.get(parent))
        node[parent] = dict(child) if isinstance(child, Mapping) else {}
        node = node[parent]
    if parents and leaf == "name" and node.get("name", value) != value:
        node.clear()
    node[leaf] = with_name(value) if leaf in NAMED and isinstance(value, str) else deepcopy(value)


def _shipped_root() -> Path:
    return Path(str(files("orchestrator"))) / "sweeps"
