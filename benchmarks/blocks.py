"""Every block against its plain N x N form: time and peak memory, forward and forward + backward.

    python -m benchmarks.blocks                       # every block, every listed map: ten minutes on two idle cores
    python -m benchmarks.blocks --quick               # default configs on the res4 map: one or two minutes
    python -m benchmarks.blocks --only nl --maps res3 --repeats 3

Both forms of a block run in one process and alternate, so that whatever slows the machine slows both; raw samples are
kept. Peak memory is measured in one fresh process per form: on a CPU the growth of the resident set over the built
block and its input, on a GPU what the allocator reports. Speed-ups are ratios of medians. Every case has its share of
`--minutes`, which bounds its samples; cases that find no time left are named in the file.

The plain form is the block with `implementation="reference"`: the N x N map as the paper writes it, with PyTorch's
operators. For BAT that is every channel multiplied by the expanded H x H, W x W and T x T matrices of its group, as in
the released code. Blocks without a faster evaluation have one form only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from blocks import Shape, block_names, build, config_dict, config_type, parse_config
from blocks.configs import BlockConfig
from blocks.contract import variants

MAPS = {
    "res3": (2, Shape(512, 8, 28, 28)),
    "res4": (2, Shape(1024, 8, 14, 14)),
    "res3_32_frames": (1, Shape(512, 32, 28, 28)),
    "res4_32_frames": (2, Shape(1024, 32, 14, 14)),
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the cases asked for and write `results/blocks-<device>-<time>.json`."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_child(json.loads(arguments.child))))
        return
    if arguments.quick:
        arguments.maps, arguments.minutes = ["res4"], min(arguments.minutes, 1.5)
    machine = _machine(arguments.device)
    rows, left_out = _within(60 * arguments.minutes, list(_cases(arguments)))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = arguments.out or RESULTS / f"blocks-{arguments.device}-{stamp}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps({"machine": machine, "measured_at": stamp, "rows": rows, "left_out": left_out}, indent=1) + "\n"
    )
    print(f"wrote {file}" + (f"; {len(left_out)} cases left out for want of time" if left_out else ""))


def _within(seconds: float, cases: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure the cases until the time is up; the rows, and what was left out."""
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    for done, case in enumerate(cases):
        left = end - time.monotonic()
        if left <= 0:
            return rows, [{key: missed[key] for key in ("config", "map", "dtype")} for missed in cases[done:]]
        # A case cheaper than its share leaves the rest to those after it.
        timed = {**case, "seconds": left / (len(cases) - done)}
        rows.append({**timed, **_measured(timed)})
        print(_line(rows[-1]), flush=True)
    return rows, []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=block_names(), help="block names")
    parser.add_argument("--quick", action="store_true", help="default configs on the res4 map within 1.5 minutes")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no case after this; limits samples too")
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=list(MAPS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=7, help="most samples per form")
    parser.add_argument("--memory-gib", type=float, default=None, help="skip the plain form above this (default: free)")
    parser.add_argument("--out", type=Path, help="file to write instead of one under benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    limit = arguments.memory_gib or _free_gib(arguments.device)
    for name in arguments.only:
        default = config_type(name)()
        for config in [default] if arguments.quick else _forms(default):
            for where in arguments.maps:
                batch, shape = MAPS[where]
                if config.problems(shape):
                    continue
                # Forward and backward of the plain form keep about three times the peak of its forward pass.
                elements = 3 * batch * build_cost(config, shape)
                for dtype in ("float32",) if arguments.device == "cpu" else tuple(DTYPES):
                    yield {
                        "config": config_dict(config),
                        "map": where,
                        "shape": [batch, *shape],
                        "dtype": dtype,
                        "device": arguments.device,
                        "repeats": arguments.repeats,
                        "plain_fits": elements * DTYPES[dtype].itemsize < limit * 2**30,
                    }


def build_cost(config: BlockConfig, shape: Shape) -> int:
    """Peak elements of the plain form for one clip."""
    with torch.device("meta"):
        return build(config, shape).cost().peak_activation_elements


def _forms(config: BlockConfig) -> Iterator[BlockConfig]:
    """The default and one config per pairwise function or kind of matrix; other choices do not change the form."""
    for option in variants(config):
        changed = {key for key, value in vars(option).items() if value != getattr(config, key)}
        if changed <= {"affinity", "matrix"}:
            yield option


def _measured(case: dict[str, Any]) -> dict[str, Any]:
    """Everything about one case, from child processes; a form that dies (out of memory) leaves its error."""
    forms = ["auto", "reference"] if "implementation" in case["config"] and case["plain_fits"] else ["auto"]
    found = _spawn({**case, "measure": "time", "forms": forms})
    for form in forms:
        found[f"peak_memory_bytes_{form}"] = _spawn({**case, "measure": "memory", "forms": [form]}).get("bytes")
    for passes in ("forward", "forward_backward"):
        both = [found.get(f"{passes}_s_{form}") for form in ("reference", "auto")]
        if all(both):
            found[f"{passes}_speedup"] = statistics.median(both[0]) / statistics.median(both[1])
    return found


def _spawn(task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.blocks", "--child", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _child(task: dict[str, Any]) -> dict[str, Any]:
    device = torch.device(task["device"])
    runs = {form: _step(task, form, device) for form in task["forms"]}
    return _times(task, runs, device) if task["measure"] == "time" else _memory(runs, device)


def _step(task: dict[str, Any], form: str, device: torch.device) -> Callable[[bool], None]:
    """A function that runs the block once, with or without the backward pass."""
    batch, *shape = task["shape"]
    config = parse_config(task["config"])
    if hasattr(config, "implementation"):
        config = replace(config, **{"implementation": form})
    torch.manual_seed(0)
    block = build(config, Shape(*shape)).to(device).train()
    x = torch.randn(batch, *shape, device=device, requires_grad=True)
    dtype = DTYPES[task["dtype"]]

    def step(backward: bool) -> None:
        with torch.set_grad_enabled(backward), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            y = block(x)
        if backward:
            y.backward(torch.ones_like(y))
            block.zero_grad()
            x.grad = None

    return step


def _times(task: dict[str, Any], runs: dict[str, Callable[[bool], None]], device: torch.device) -> dict[str, Any]:
    samples: dict[str, list[float]] = {}
    start = time.monotonic()
    for passes, backward, share in (("forward", False, 0.2), ("forward_backward", True, 0.6)):
        for run in runs.values():
            run(backward)
        for repeat in range(task["repeats"]):
            if repeat and time.monotonic() - start > share * task["seconds"]:
                break
            for form, run in runs.items():
                samples.setdefault(f"{passes}_s_{form}", []).append(_seconds(run, backward, device))
    return dict(samples)


def _seconds(run: Callable[[bool], None], backward: bool, device: torch.device) -> float:
    if device.type == "cpu":
        start = time.perf_counter()
        run(backward)
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run(backward)
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1e3


def _memory(runs: dict[str, Callable[[bool], None]], device: torch.device) -> dict[str, Any]:
    (run,) = runs.values()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        run(True)
        return {"bytes": torch.cuda.max_memory_allocated(device) - before}
    before = _peak_resident_bytes()
    run(True)
    return {"bytes": _peak_resident_bytes() - before}


def _peak_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _free_gib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 2**30
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20


def _machine(device: str) -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if device == "cuda" else {}
    return {
        "processor": platform.processor() or platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "threads": torch.get_num_threads(),
        "load_average_at_start": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **gpu,
    }


def _line(row: dict[str, Any]) -> str:
    choice = row["config"].get("affinity") or row["config"].get("matrix") or ""
    speed = [f"{row[f'{p}_speedup']:.2f}x" if f"{p}_speedup" in row else "-" for p in ("forward", "forward_backward")]
    memory = [row.get(f"peak_memory_bytes_{form}") for form in ("auto", "reference")]
    share = f"{memory[0] / memory[1]:.2f}" if all(memory) else "-"
    ours = statistics.median(row["forward_s_auto"]) * 1e3 if "forward_s_auto" in row else float("nan")
    name = f"{row['config']['name']} {choice}"
    return (
        f"{name:24} {row['map']:15} {row['dtype']:9} {ours:9.1f} ms  forward {speed[0]:>7}  "
        f"forward+backward {speed[1]:>7}  memory {share:>5} of plain  {row.get('error', '')}"
    )


if __name__ == "__main__":
    main()
