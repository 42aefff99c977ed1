"""Names -> backbones and workloads. Reading names and configs imports no torch; building does.

Somebody else's backbone or workload comes in by decorator, by entry point (``longrange.backbones``,
``longrange.workloads``) or as ``"module:Class"``; the thing named is always the config class, whose methods lead to
the code.
"""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from blocks.registry import where_to_look
from workloads.backbones.config import BackboneConfig
from workloads.backbones.families import PRESETS
from workloads.frozen import Frozen

if TYPE_CHECKING:
    from workloads.progress import Progress
    from workloads.protocols import Protocol as EvaluationProtocol
    from workloads.spec import RunContext, TrialSpec


class Workload(Protocol):
    """The torch side of a workload: what a worker calls."""

    def prepare(self, context: RunContext) -> None:
        """Make what all trials share (pre-trained weights, indexes) in `context.cache_dir`; parallel calls are fine."""

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        """Train and evaluate one trial, resuming from `context.checkpoint_dir` if it holds a checkpoint.

        Yields `EpochDone` per epoch, `CheckpointWritten`, and exactly one `Finished` at the end.

        Raises:
            Diverged, BadData, Stopped, or torch's out-of-memory errors; anything else is a bug.
        """


class WorkloadConfig(Frozen):
    """A data set with its sampling; it implies a default backbone, recipe and protocol.

    Attributes:
        name: the registered name.
    """

    title: ClassVar[str] = ""
    caveat: ClassVar[str] = ""  # shown wherever results of this workload are shown

    name: str

    @property
    @abstractmethod
    def classes(self) -> int:
        """Number of classes."""

    @property
    def channels(self) -> int:
        """Input channels of its clips."""
        return 3

    def defaults(self) -> dict[str, Any]:
        """Values for `backbone`, `recipe` and `protocol` that a sweep on this workload starts from."""
        return {}

    def clips(self) -> tuple[int, int] | None:
        """Training and validation clips, for pricing; None if that is not known without the data."""
        return None

    def misfits(self, backbone: BackboneConfig, protocol: EvaluationProtocol) -> list[str]:
        """Why this network or protocol does not go with these clips; found by plans, where the data may be absent."""
        return [
            f"backbone.{name}={given}, but {self.name} has {needed} {name}: leave it out, or give {needed}"
            for name, given, needed in (
                ("classes", backbone.classes, self.classes),
                ("channels", backbone.channels, self.channels),
            )
            if given != needed
        ]

    def problems(self) -> list[str]:
        """Why this workload cannot run here (missing data, empty split, ...); found before anything starts."""
        return []

    def fingerprint(self) -> str:
        """Identifies the data itself; a finished trial is reused only when it agrees. Empty: the config says it all."""
        return ""

    @abstractmethod
    def open(self) -> Workload:
        """The runnable workload; imports torch."""


# Built-in workloads: name -> import path of the config class (torch-free modules).
WORKLOADS: Mapping[str, str] = {
    "digits": "workloads.data.digits_config:DigitsConfig",
    "digits-hard": "workloads.data.digits_config:DigitsHardConfig",
    "folder": "workloads.data.folder_config:FolderConfig",
    "kinetics400": "workloads.data.datasets:Kinetics400Config",
    "kinetics600": "workloads.data.datasets:Kinetics600Config",
    "kinetics700": "workloads.data.datasets:Kinetics700Config",
    "mini-kinetics200": "workloads.data.datasets:MiniKinetics200Config",
    "something-v1": "workloads.data.datasets:SomethingV1Config",
    "ucf101": "workloads.data.datasets:UCF101Config",
    "imagenet": "workloads.data.datasets:ImageNetConfig",
    "frame-features": "workloads.data.features_config:FrameFeaturesConfig",
}

# Built-in backbones that belong to a workload: name -> import path of the config class (torch-free modules).
BACKBONES: Mapping[str, str] = {"frame_features": "workloads.data.features_config:FrameFeaturesNet"}

_backbones: dict[str, type[BackboneConfig]] = {}
_workloads: dict[str, type[WorkloadConfig]] = {}

T = TypeVar("T")


def register_backbone(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator for a `BackboneConfig` subclass."""
    return _register(name, _backbones, {**PRESETS, **BACKBONES})


def register_workload(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator for a `WorkloadConfig` subclass."""
    return _register(name, _workloads, WORKLOADS)


def backbone_names() -> list[str]:
    """Every known backbone."""
    return _names({**PRESETS, **BACKBONES}, _backbones, "longrange.backbones")


def workload_names() -> list[str]:
    """Every known workload."""
    return _names(WORKLOADS, _workloads, "longrange.workloads")


def parse_backbone(given: Any) -> BackboneConfig:
    """A backbone config from `{"name": ..., **fields}`; the named preset fills what is not given.

    Raises:
        ValueError: unknown name or field, wrong type, or values that do not go together.
    """
    if isinstance(given, BackboneConfig):
        return given
    name = _name_of(given, "backbone", backbone_names)
    if name in PRESETS:
        preset = PRESETS[name]
        return type(preset).model_validate({**preset.model_dump(), **given})
    if name in BACKBONES:
        kind = _load(BACKBONES[name], "backbone")
    else:
        kind = _find(name, "backbone", _backbones, "longrange.backbones", backbone_names)
    config: BackboneConfig = _derived(kind, BackboneConfig, name).model_validate(given)
    return config


def parse_workload(given: Any) -> WorkloadConfig:
    """A workload config from `{"name": ..., **fields}` or a bare name.

    Raises:
        ValueError: unknown name or field, or wrong type.
    """
    if isinstance(given, WorkloadConfig):
        return given
    if isinstance(given, str):
        given = {"name": given}
    kind = workload_type(_name_of(given, "workload", workload_names))
    return kind.model_validate(given)


def workload_type(name: str) -> type[WorkloadConfig]:
    """The config class of a workload.

    Raises:
        ValueError: unknown name.
    """
    kind = (
        _load(WORKLOADS[name], "workload")
        if name in WORKLOADS
        else _find(name, "workload", _workloads, "longrange.workloads", workload_names)
    )
    found: type[WorkloadConfig] = _derived(kind, WorkloadConfig, name)
    return found


def _register(name: str, registered: dict[str, Any], builtin: Mapping[str, Any]) -> Callable[[type[T]], type[T]]:
    def register(kind: type[T]) -> type[T]:
        known = registered.get(name)
        same = known is not None and (known.__module__, known.__qualname__) == (kind.__module__, kind.__qualname__)
        if name in builtin or (known is not None and not same):
            raise ValueError(f"the name {name!r} is taken; choose another for {kind.__qualname__}")
        registered[name] = kind
        return kind

    return register


def _names(builtin: Mapping[str, Any], registered: Mapping[str, Any], group: str) -> list[str]:
    installed = {point.name for point in _installed(group)}
    return [*builtin, *sorted((installed | set(registered)) - set(builtin))]


def _name_of(given: Any, kind: str, names: Callable[[], list[str]]) -> str:
    name = given.get("name") if isinstance(given, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"a {kind} needs a 'name', given {given!r}; known: {', '.join(names())}")
    return name


def _find(name: str, kind: str, registered: Mapping[str, Any], group: str, names: Callable[[], list[str]]) -> Any:
    if name in registered:
        return registered[name]
    for point in _installed(group):
        if point.name == name:
            return point.load()
    if ":" in name:
        return _load(name, kind)
    close = get_close_matches(name, names(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(names())}{hint}")


def _derived(kind: Any, base: type[Frozen], name: str) -> Any:
    """What a name led to, if it is the config that is wanted."""
    if isinstance(kind, type) and issubclass(kind, base):
        return kind
    raise ValueError(f"{name!r} leads to {kind!r}: a class derived from {base.__module__}.{base.__name__} is needed")


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    """Entry points of installed packages; reading them takes milliseconds, which every short trial would pay."""
    return tuple(entry_points(group=group))


def _load(path: str, kind: str) -> Any:
    module, _, qualname = path.partition(":")
    try:
        return getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"cannot load {kind} {path!r}: {error}{where_to_look(error, module)}") from error
    except Exception as error:  # whatever somebody else's module raises while it is imported
        raise ValueError(f"cannot load {kind} {path!r}: {type(error).__name__}: {error}") from error
