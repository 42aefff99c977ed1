"""Count the pieces of many models in worker processes, which share their counts through the cache on disk.

Only workers import torch; the calling process stays small. They are started as commands of their own, not by
`multiprocessing`, which would run a caller's unguarded script again. What workers do not know (blocks and backbones
that are registered in the calling process), cannot count or cannot store is left to the caller.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

from blocks.configs import Shape
from blocks.registry import BUILTIN, config_dict, parse_config
from workloads.backbones.families import PRESETS
from workloads.backbones.insertion import insertion_points
from workloads.counting.pieces import block_is_known, block_piece, body_key, stage_pieces, stages_are_known
from workloads.counting.profile import Profile, profile
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec

MOST_PROCESSES = 4  # each takes about 0.4 GiB
WORTH_A_PROCESS = 12
"""Pieces that take about as long to count as a worker takes to start."""


def profile_all(specs: Sequence[ModelSpec], *, processes: int | None = None) -> list[Profile]:
    """`profile` of each spec; where many pieces were never counted before, they are counted in parallel first.

    Args:
        specs: the models.
        processes: at most this many workers, none if 1; by default one per core, at most four.

    Raises:
        ValueError: as `profile`.
    """
    wanted = min(os.cpu_count() or 1, MOST_PROCESSES) if processes is None else processes
    if wanted > 1:
        tasks = _unknown(specs)
        _count(tasks, min(wanted, len(tasks) // WORTH_A_PROCESS))
    return [profile(spec) for spec in specs]


def _unknown(specs: Sequence[ModelSpec]) -> list[str]:
    """What nobody counted before, as lines for workers: each body once, then blocks, then the other heads."""
    bodies: dict[str, str] = {}
    heads: dict[str, None] = {}
    blocks: dict[str, None] = {}
    for spec in specs:
        if spec.backbone.name in PRESETS and not stages_are_known(spec.backbone):
            line = json.dumps({"backbone": spec.backbone.to_json()})
            if bodies.setdefault(json.dumps(body_key(spec.backbone)), line) != line:
                heads[line] = None
        if spec.block.name in BUILTIN and spec.block.name != "none":
            blocks |= dict.fromkeys(_unknown_blocks(spec))
    return [*bodies.values(), *blocks, *heads]


def _unknown_blocks(spec: ModelSpec) -> Iterator[str]:
    for shape in {point.shape for point in insertion_points(spec.backbone, spec.insertion)}:
        if not spec.block.problems(shape) and not block_is_known(spec.block, shape):
            yield json.dumps({"block": config_dict(spec.block), "shape": list(shape)})


def _count(tasks: Sequence[str], processes: int) -> None:
    queue: SimpleQueue[str] = SimpleQueue()
    for task in tasks:
        queue.put(task)
    if processes > 1:
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(_feed, [queue] * processes))


def _feed(queue: SimpleQueue[str]) -> None:
    """One worker and its tasks; if it dies, the caller counts what it did not."""
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-P", "-m", "workloads.counting.parallel"]  # -P: not what the current folder calls so
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    with (
        suppress(Empty, BrokenPipeError),
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=quiet, text=True, env=environment) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stdout is not None
        while True:
            worker.stdin.write(queue.get_nowait() + "\n")
            worker.stdin.flush()
            if not worker.stdout.readline():
                return


def work() -> None:
    """Count the piece in each line of the standard input, and answer with a line when it is in the cache."""
    for line in sys.stdin:
        task = json.loads(line)
        try:
            if "backbone" in task:
                stage_pieces(parse_backbone(task["backbone"]))
            else:
                block_piece(parse_config(task["block"]), Shape(*task["shape"]))
        except ValueError:
            pass  # the caller meets the same error, and says it
        print(flush=True)


if __name__ == "__main__":
    work()
