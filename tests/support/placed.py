"""Scripted trials whose processes note which GPUs they see."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

from scripted import Scripted, ScriptedRun

from workloads.engine import world_size
from workloads.spec import RunContext


class Placed(Scripted):
    """`scripted.Scripted`, but for the notes."""

    name: str = "placed:Placed"

    def open(self) -> PlacedRun:
        return PlacedRun(self)


class PlacedRun(ScriptedRun):
    def prepare(self, context: RunContext) -> None:
        """Note it, and wait for the notes of the others: a crew ends with its first process."""
        place = context.cache_dir / "gpus" / context.checkpoint_dir.name
        place.mkdir(parents=True, exist_ok=True)
        (place / str(os.getpid())).write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
        end = time.monotonic() + 60
        while len(list(place.iterdir())) < world_size() and time.monotonic() < end:
            time.sleep(0.1)


def gpus_seen(cache: Path) -> dict[str, list[str]]:
    """Trial -> what each of its processes saw."""
    found: dict[str, list[str]] = defaultdict(list)
    for note in cache.glob("gpus/*/*"):
        found[note.parent.name].append(note.read_text())
    return found
