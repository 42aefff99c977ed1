"""A trial's state on disk: one safetensors file per checkpoint, its JSON part in the header. No pickle.

A file is complete or absent: it is written aside, forced to disk and renamed, and the one before it is removed only
afterwards. Tensor names are paths: `model/<key>`, `optimizer/<parameter>/<what>`, `ema/<key>`. Every engine writes and
reads the same names with whole (unpartitioned) tensors, so a trial may go on under another engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workloads.cache import write_aside

FORMAT = 1
_KEPT = 2  # the newest and, in case the disk damages it, the one before


class Checkpoint(NamedTuple):
    """Tensors by name, and everything else as plain JSON values."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint after optimizer step `step` (counted over all epochs) belongs."""
    return folder / f"step-{step:09d}.safetensors"


def save(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint and forget all but the newest two of its folder.

    Raises:
        OSError: it cannot be written; older checkpoints stay.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"longrange": json.dumps({"format": FORMAT, **values}, sort_keys=True)}
    write_aside(path, lambda aside: save_file(whole, aside, header))
    for old in _paths(path.parent)[:-_KEPT]:
        old.unlink(missing_ok=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest readable checkpoint in `folder`; None if there is none."""
    for path in reversed(_paths(folder)):
        try:
            return load(path)
        except ValueError:
            continue
    return None


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`.

    Raises:
        ValueError: it is not a complete checkpoint of this format.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            values = json.loads((opened.metadata() or {}).get("longrange", "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a readable checkpoint ({error}): remove it to go on without it") from error
    if values.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a longrange checkpoint of format {FORMAT}: remove it to start over")
    return Checkpoint(tensors, values)


def _paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.safetensors"))
