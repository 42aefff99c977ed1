"""Digit recall whose processes leave a note of where they run, where they met, and at which addresses they listen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import psutil

from workloads.data.digits import Digits
from workloads.data.digits_config import DigitsConfig
from workloads.progress import EpochDone, Progress
from workloads.spec import RunContext, TrialSpec


class SeenDigits(DigitsConfig):
    """`epoch_seconds` is what every epoch takes besides its training."""

    name: str = "seen_digits:SeenDigits"
    epoch_seconds: float = 0.0

    def open(self) -> SeenRun:
        return SeenRun(self)


class SeenRun(Digits):
    """Every process writes `CACHE/seen/TRIAL-PID.json` after its first epoch."""

    config: SeenDigits

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        before = _listening()
        noted = False
        for progress in super().run(spec, context):
            if isinstance(progress, EpochDone):
                time.sleep(self.config.epoch_seconds)
                if not noted:
                    _note(context, _listening() - before)
                    noted = True
            yield progress


def notes(cache: Any) -> list[dict[str, Any]]:
    """What processes wrote, the oldest first."""
    found = sorted(cache.glob("seen/*.json"), key=lambda file: file.stat().st_mtime)
    return [json.loads(file.read_text()) for file in found]


def _note(context: RunContext, opened: set[tuple[str, int]]) -> None:
    from torch import distributed

    held = [one.address for many in psutil.net_if_addrs().values() for one in many if "." in one.address]
    note = {
        "trial": context.checkpoint_dir.name,
        "rank": int(os.environ["RANK"]),
        "addresses": sorted(held),
        "met_at": os.environ["MASTER_ADDR"],
        "opened": sorted({address for address, _ in opened}),
        "backend": distributed.get_backend(),
    }
    place = context.cache_dir / "seen"
    place.mkdir(exist_ok=True)
    aside = place / f"{context.checkpoint_dir.name}-{os.getpid()}"
    aside.write_text(json.dumps(note))
    aside.rename(aside.with_suffix(".json"))


def _listening() -> set[tuple[str, int]]:
    found = psutil.Process().net_connections("tcp")
    return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}
