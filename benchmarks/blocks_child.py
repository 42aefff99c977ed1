"""What `benchmarks.blocks` measures of one case, in a process of its own."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from blocks import Shape, affinity, bat, build, cgnl, non_local, parse_config
from blocks.base import Block

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = {"forward": False, "forward_backward": True}
# Where the blocks call what forms the map, or avoids it.
_MAPS = [
    (non_local, "attend"),
    (non_local, "attend_within"),
    (affinity, "attend"),
    (affinity, "attend_within"),
    (bat, "transform_fast"),
    (bat, "transform_plain"),
    (cgnl, "_fast"),
    (cgnl, "_plain"),
]

Step = Callable[[bool], None]


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Times of every form of a case, or the peak memory of one."""
    torch.set_num_threads(task["threads"])
    device = torch.device(task["device"])
    if task["measure"] == "memory":
        return _memory(task, device)
    steps = {}
    for form in task["forms"]:
        block, x = _built(task, form, device)
        steps[f"block_{form}"] = _block_step(task, block, x)
        steps[f"map_{form}"] = _map_step(task, block, x)
    return _times(task, {name: step for name, step in steps.items() if step}, device)


def block_step(case: dict[str, Any], form: str) -> Callable[[bool], None]:
    """A step of one form of a case, forward or with backward, that ends when the device has done it."""
    torch.set_num_threads(case["threads"])
    device = torch.device(case["device"])
    step = _block_step(case, *_built(case, form, device))

    def finished(backward: bool) -> None:
        step(backward)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return finished


def _built(task: dict[str, Any], form: str, device: torch.device) -> tuple[Block[Any], Tensor]:
    batch, *shape = task["shape"]
    config = parse_config(task["config"])
    if hasattr(config, "implementation"):
        config = replace(config, **{"implementation": form})
    torch.manual_seed(0)
    block = build(config, Shape(*shape)).to(device).train()
    return block, torch.randn(batch, *shape, device=device, requires_grad=True)


def _block_step(task: dict[str, Any], block: Block[Any], x: Tensor) -> Step:
    def step(backward: bool) -> None:
        with _precision(task, x, backward):
            y = block(x)
        if backward:
            torch.autograd.backward(y, torch.ones_like(y))
            block.zero_grad()
            x.grad = None

    return step


def _map_step(task: dict[str, Any], block: Block[Any], x: Tensor) -> Step | None:
    """The block without its convolutions and norms: what it called to form the map, on the tensors it gave to it."""
    calls: list[tuple[Any, list[Any], dict[str, Any]]] = []
    with _precision(task, x, False), _recorded(calls):
        block(x)
    if not calls:
        return None
    given = [[_leaf(a) for a in args] for _, args, _ in calls]
    leaves = [a for args in given for a in args if isinstance(a, Tensor)]

    def step(backward: bool) -> None:
        with _precision(task, x, backward):
            ys = [function(*args, **kwargs) for (function, _, kwargs), args in zip(calls, given, strict=True)]
        if backward:
            torch.autograd.grad(ys, leaves, [torch.ones_like(y) for y in ys])

    return step


def _leaf(value: Any) -> Any:
    return value.detach().requires_grad_() if isinstance(value, Tensor) else value


@contextmanager
def _recorded(calls: list[tuple[Any, list[Any], dict[str, Any]]]) -> Iterator[None]:
    """Note the outermost calls of what forms maps."""
    inside = [False]

    def noted(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if inside[0]:
                return original(*args, **kwargs)
            inside[0] = True
            calls.append((original, list(args), kwargs))
            try:
                return original(*args, **kwargs)
            finally:
                inside[0] = False

        return call

    with ExitStack() as stack:
        for module, name in _MAPS:
            stack.enter_context(patch.object(module, name, noted(getattr(module, name))))
        yield


@contextmanager
def _precision(task: dict[str, Any], x: Tensor, backward: bool) -> Iterator[None]:
    dtype = DTYPES[task["dtype"]]
    with torch.set_grad_enabled(backward), torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        yield


def _times(task: dict[str, Any], steps: dict[str, Step], device: torch.device) -> dict[str, Any]:
    """Samples `[wall or device seconds, seconds of processor time]` per step and passes, the steps taking turns."""
    samples: dict[str, list[list[float]]] = {}
    start = time.monotonic()
    for passes, until in (("forward", 0.25), ("forward_backward", 1.0)):
        for repeat in range(task["repeats"] + 1):
            if repeat and time.monotonic() - start > until * task["seconds"]:
                break
            for name, step in steps.items():
                samples.setdefault(f"{passes}_s_{name}", []).append(_seconds(step, PASSES[passes], device))
    # The first one warms up, unless it is the only one there was time for.
    return {name: taken[1:] or taken for name, taken in samples.items()}


def _seconds(step: Step, backward: bool, device: torch.device) -> list[float]:
    processor, start = time.process_time(), time.perf_counter()
    if device.type == "cpu":
        step(backward)
        return [time.perf_counter() - start, time.process_time() - processor]
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    step(backward)
    last.record()
    torch.cuda.synchronize(device)
    return [first.elapsed_time(last) / 1e3, time.process_time() - processor]


def _memory(task: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Peak bytes of a training step of one form, block or map alone, over what was there before it."""
    (form,) = task["forms"]
    # What is allocated once per process whatever the map (threads, kernels, workspaces) is no memory of the form.
    small = {**task, "shape": _small(task["shape"])}
    _block_step(small, *_built(small, form, device))(True)
    block, x = _built(task, form, device)
    step = _block_step(task, block, x) if task["part"] == "block" else _map_step(task, block, x)
    if step is None:
        return {"bytes": None}
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step(True)
        torch.cuda.synchronize(device)
        return {"bytes": torch.cuda.max_memory_allocated(device) - before}
    before = _forget_peak()
    step(True)
    return {"bytes": _peak() - before}


def _small(shape: list[int]) -> list[int]:
    """The smallest map that every default config fits."""
    batch, channels, frames, height, width = shape
    return [batch, channels, min(frames, 4), min(height, 8), min(width, 8)]


def _forget_peak() -> int:
    """Resident bytes now, from where the peak is counted on; where the system cannot forget, the peak so far."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
