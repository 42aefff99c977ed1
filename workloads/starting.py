"""Starting weights go into a network, or the reason why they cannot: the torch side of `workloads.start`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

from workloads.backbones.model import build_model
from workloads.backbones.weights import LoadReport, WeightsError, compare_weights, load_weights, refuse_partial
from workloads.spec import ModelSpec, TrialSpec
from workloads.start import Start

BLOCKS = "*long_range*"
_SHOWN = 8  # keys of a note


def load_start(model: nn.Module, start: Start) -> LoadReport:
    """Load the starting weights into a fresh network, whole or not at all.

    Raises:
        ValueError: the file is missing, another one, unreadable, or does not fit and `start.allow` does not say so.
    """
    if problems := start.problems():
        raise ValueError("; ".join(problems))
    report = compare_weights(model, start.file, inflate=start.inflate)
    return load_weights(model, start.file, inflate=start.inflate, allow=_allowed(start, report))


def start_problems(spec: TrialSpec) -> list[str]:
    """Why this trial cannot start from its weights; loads the file, but allocates no network."""
    start = spec.start
    if start is None:
        return []
    return start.problems() or list(_misfits(json.dumps(spec.model.to_json()), start, start.file))


def note(report: LoadReport, start: Start) -> str:
    """What a reader must know: which file, and which keys did not come from it."""
    text = f"started from {start.file.name} (sha256 {start.sha256[:16]}): {len(report.loaded)} keys"
    if report.refitted:
        text += f", {len(report.refitted)} of them inflated or refitted ({start.inflate})"
    fresh = [*report.missing, *(mismatch.key for mismatch in report.mismatched)]
    if fresh:
        text += f"; not from the file: {_listed(fresh)}"
    if report.unexpected:
        text += f"; left out of the file: {_listed(report.unexpected)}"
    return text


@lru_cache(maxsize=1024)
def _misfits(model: str, start: Start, file: Path) -> tuple[str, ...]:
    with torch.device("meta"):
        network = build_model(ModelSpec.model_validate_json(model))
    try:
        report = compare_weights(network, file, inflate=start.inflate)
        refuse_partial(report, _allowed(start, report))
    except WeightsError as error:
        return (f"start: {error}",)
    return ()


def _allowed(start: Start, report: LoadReport) -> tuple[str, ...]:
    """What may differ: what the user says, and new blocks where the file is from a network without any."""
    in_file = [*report.loaded, *report.unexpected, *(mismatch.key for mismatch in report.mismatched)]
    has_blocks = any("long_range" in key for key in in_file)
    return start.allow if has_blocks else (*start.allow, BLOCKS)


def _listed(keys: list[str] | tuple[str, ...]) -> str:
    more = f", ... ({len(keys)} in all)" if len(keys) > _SHOWN else ""
    return ", ".join(keys[:_SHOWN]) + more
