"""The same seed gives the same bits: in one process or another, whatever ran before in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


def seed_for(seed: int, *purpose: object) -> int:
    """An independent 63-bit seed for each purpose, e.g. `seed_for(trial_seed, "order", epoch)`."""
    text = "/".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the generators that a computation on `device` draws from.

    `torch.manual_seed` also notes the caller's stack once per kind of device that is not there: milliseconds each
    time, and memory that never comes back.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


@contextmanager
def reproducible(device: torch.device, threads: int) -> Iterator[None]:
    """Fix what the bits depend on besides the seed, and put everything back at the end.

    Inside, torch computes with `threads` CPU threads and deterministic algorithms; the global random state is the
    caller's again afterwards. On CUDA an operation without a deterministic form only warns.

    Args:
        device: the device of the computation.
        threads: CPU threads for torch.
    """
    was_threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # a module that computes its one attribute, so nothing types it
    was_filling = memory.fill_uninitialized_memory
    was_benchmark = torch.backends.cudnn.benchmark
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        try:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(True, warn_only=bool(cuda))
            memory.fill_uninitialized_memory = False  # finds bugs, costs time, changes no result
            torch.backends.cudnn.benchmark = False
            yield
        finally:
            torch.set_num_threads(was_threads)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)
            memory.fill_uninitialized_memory = was_filling
            torch.backends.cudnn.benchmark = was_benchmark
