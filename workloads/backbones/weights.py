"""Weights from a local file: torchvision's, TSM's, MFNet's, SE-ResNe(X)t's and our own checkpoints, without pickle.

Three steps, none of which touches the network before all have succeeded: read (safetensors, or `torch.load` with
`weights_only=True`), rename the source's keys to ours, fit shapes. What does not fit is reported key by key, and
refused unless `allow` names it: a network that is half random must never look loaded.

Keys cannot tell everything. The pretrainedmodels checkpoints of SE-ResNeXt need `stem_pool="ceil"`; that collection's
SE-ResNet-50 strides on the first 1x1 of a bottleneck, so its values fit here by name and shape but not by meaning.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workloads.backbones.families import StNetConfig

Inflation = Literal["centre", "mean"]

# Where a checkpoint's state may be wrapped, outermost first.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")

# What the two readers raise on damaged or foreign files; torch's unpickler fails in any of these ways on garbage.
UNREADABLE = (SafetensorError, RuntimeError, EOFError, LookupError, ValueError, AssertionError, struct.error)

# Source -> (pattern, replacement), applied to every key in this order. A pattern that nothing matches does nothing,
# and no two sources use the same name for different things: so all rules are always applied, and no source is guessed.
RENAMES: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (source, re.compile(pattern), replacement)
    for source, pattern, replacement in (
        ("DistributedDataParallel", r"^module\.", ""),
        ("TSM", r"^base_model\.", ""),
        ("TSM", r"(\.conv1)\.net\.", r"\1."),
        ("TSM", r"^new_fc\.", "fc."),
        ("SE-ResNe(X)t (pretrainedmodels)", r"^layer0\.", ""),
        ("SE-ResNe(X)t (pretrainedmodels)", r"^last_linear\.", "fc."),
    )
)


@dataclass(frozen=True)
class Mismatch:
    """A key whose shapes cannot be reconciled."""

    key: str
    ours: tuple[int, ...]
    theirs: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.key} (ours {list(self.ours)}, file {list(self.theirs)})"


@dataclass(frozen=True)
class LoadReport:
    """What became of every key.

    Attributes:
        path: the file.
        loaded: our keys that took the file's values, unchanged or refitted.
        refitted: the loaded keys whose shape was changed: 2-D weights inflated in time, 3-D weights of one frame made
            2-D, a stem spread over stacked frames.
        missing: our keys that the file lacks.
        unexpected: the file's keys (renamed) that we lack.
        mismatched: keys whose shapes do not go together.
    """

    path: Path
    loaded: tuple[str, ...]
    refitted: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]

    @property
    def complete(self) -> bool:
        """Every key of the network and of the file found its partner."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f"{self.path}: {len(self.loaded)} keys loaded, {len(self.refitted)} of them refitted"]
        for what, keys in (("missing", self.missing), ("unexpected", self.unexpected), ("mismatched", self.mismatched)):
            if keys:
                lines.append(f"{len(keys)} {what}: " + ", ".join(map(str, keys)))
        return "; ".join(lines)


class WeightsError(ValueError):
    """A file that cannot be read as weights, or that does not fit the network; `report` says how, where known."""

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


def load_weights(
    model: nn.Module, path: Path | str, *, inflate: Inflation = "centre", allow: Iterable[str] = ()
) -> LoadReport:
    """Load the weights in a local file into a network, whole or not at all.

    Args:
        model: a backbone, with or without blocks; unchanged if this raises.
        path: `*.safetensors`, or a file of `torch.save` that holds tensors only.
        inflate: how a 2-D kernel `[o, i, h, w]` fills a 3-D one of `t` frames: `centre` puts it on the middle frame
            and zeros elsewhere (the new network starts as the per-frame one), `mean` puts 1 / t of it on every frame
            (I3D: a still clip gives the image's answer).
        allow: shell patterns of keys that may be missing, unexpected or mismatched, e.g. `fc.*` for another number of
            classes and `*long_range*` for new blocks.

    Returns:
        What became of every key, the allowed ones included.

    Raises:
        WeightsError: the file is not a checkpoint of tensors, or something that `allow` does not name is missing,
            unexpected or mismatched; all of it in the message.
        FileNotFoundError: no such file.
    """
    fitted, report = _fitted(model, Path(path), inflate)
    refuse_partial(report, allow)
    model.load_state_dict({**model.state_dict(), **fitted})
    return report


def compare_weights(model: nn.Module, path: Path | str, *, inflate: Inflation = "centre") -> LoadReport:
    """What `load_weights` would make of a file, without doing it; `model` may be on the meta device.

    Raises:
        WeightsError: the file is not a checkpoint of tensors.
        FileNotFoundError: no such file.
    """
    return _fitted(model, Path(path), inflate)[1]


def refuse_partial(report: LoadReport, allow: Iterable[str] = ()) -> None:
    """Accept what `report` says, or not.

    Raises:
        WeightsError: something that `allow` does not name is missing, unexpected or mismatched.
    """

    def refused(keys: Iterable[str]) -> list[str]:
        return [key for key in keys if not any(fnmatch(key, pattern) for pattern in patterns)]

    patterns = tuple(allow)
    wrong = {
        "missing from the file": refused(report.missing),
        "unexpected in the file": refused(report.unexpected),
        "of another shape": [str(one) for one in report.mismatched if refused([one.key])],
    }
    said = [f"{len(keys)} {what}: {', '.join(keys)}" for what, keys in wrong.items() if keys]
    if said:
        raise WeightsError(
            f"{report.path} does not fit this network, which is left as it was: {'; '.join(said)}. Name what may "
            "differ with allow, e.g. 'fc.*' for another number of classes or '*long_range*' for new blocks",
            report,
        )


def _fitted(model: nn.Module, path: Path, inflate: Inflation) -> tuple[dict[str, Tensor], LoadReport]:
    """The file's values in the shapes of the network's, by key, and what became of every key."""
    given = _read(path)
    ours = model.state_dict()
    fitted: dict[str, Tensor] = {}
    mismatched: list[Mismatch] = []
    for key in ours.keys() & given.keys():
        value = _fit(given[key], ours[key], inflate=inflate, stacked=_stacked(model, key))
        if value is None:
            mismatched.append(Mismatch(key, tuple(ours[key].shape), tuple(given[key].shape)))
        else:
            fitted[key] = value
    report = LoadReport(
        path=path,
        loaded=tuple(sorted(fitted)),
        refitted=tuple(sorted(key for key in fitted if fitted[key].shape != given[key].shape)),
        missing=tuple(sorted(key for key in ours.keys() - given.keys() if not _is_counter(key))),
        unexpected=tuple(sorted(given.keys() - ours.keys())),
        mismatched=tuple(sorted(mismatched, key=lambda mismatch: mismatch.key)),
    )
    return fitted, report


def save_weights(model: nn.Module, path: Path | str) -> None:
    """Write a network's weights as safetensors; aside first, then renamed, so that no half file is ever seen."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, aside)
    aside.replace(path)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of tensors alone, and running what else it may hold is not safe: load it where "
            f"you trust it, and save its state_dict alone ({_first_line(error)})"
        ) from error
    except UNREADABLE as error:
        raise WeightsError(f"{path} is not a readable checkpoint: {_first_line(error)}") from error
    content = _evaluated(content)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no mapping from names to tensors, but: {type(content).__name__}")
    others = [str(key) for key, value in content.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise WeightsError(f"{path} is no mapping from names to tensors; it also holds {', '.join(others)}")
    return _renamed(path, content)


def _evaluated(content: Any) -> Any:
    """Of a trial's checkpoint the weights it was evaluated with: the averaged ones where its recipe has them."""
    if not isinstance(content, Mapping):
        return content
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    model, averaged = (
        {key.removeprefix(part): value for key, value in named.items() if key.startswith(part)}
        for part in ("model/", "ema/")
    )
    return {**model, **averaged} if model else content


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _renamed(path: Path, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    sources: dict[str, str] = {}
    for theirs in given:
        key = theirs
        for _, pattern, replacement in RENAMES:
            key = pattern.sub(replacement, key)
        if key in sources:
            raise WeightsError(f"{path}: {sources[key]!r} and {theirs!r} are both {key!r} here")
        sources[key] = theirs
    return {key: given[theirs] for key, theirs in sources.items()}


def _fit(given: Tensor, ours: Tensor, *, inflate: Inflation, stacked: int) -> Tensor | None:
    """`given` in the shape of `ours`, or None if there is no honest way."""
    if given.shape == ours.shape:
        return given
    if stacked > 1 and given.dim() == ours.dim() == 4:
        # A stem over N stacked frames: each frame takes 1 / N, so that N equal frames give the image's answer.
        given = given.repeat(1, stacked, 1, 1) / stacked
    if given.dim() == 5 and ours.dim() == 4 and given.shape[2] == 1:
        given = given.squeeze(2)
    if given.dim() == 4 and ours.dim() == 5:
        given = _inflated(given, ours.shape[2], inflate)
    return given if given.shape == ours.shape else None


def _inflated(kernel: Tensor, frames: int, how: Inflation) -> Tensor:
    if how == "mean":
        return kernel.unsqueeze(2).repeat(1, 1, frames, 1, 1) / frames
    inflated = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    inflated[:, :, frames // 2] = kernel
    return inflated


def _stacked(model: nn.Module, key: str) -> int:
    config = getattr(model, "config", None)
    return config.stacked if isinstance(config, StNetConfig) and key == "conv1.weight" else 1


def _is_counter(key: str) -> bool:
    # Batch norms with a fixed momentum never read it, and checkpoints from before it existed lack it.
    return key.endswith("num_batches_tracked")
