"""Every block against its plain N x N form: time and peak memory, forward and forward + backward.

    python -m benchmarks.blocks                       # every block, every listed map: ten minutes on two idle cores
    python -m benchmarks.blocks --quick               # default configs on the res4 map: one or two minutes
    python -m benchmarks.blocks --only nl --maps res3 --repeats 3
    python -m benchmarks.blocks --threads 1 --clock processor      # on a machine that others use as well
    python -m pytest benchmarks/blocks.py --benchmark-columns=min,median,rounds      # pytest-benchmark's table, res4

The full run writes `results/blocks-<device>.json`, from which the documentation makes its page of speeds; anything
less writes to `build/`.

The plain form is the block with `implementation="reference"`: the N x N map as the paper writes it, with PyTorch's
operators, which is what the released codes run (a product, a softmax, a product; both maps kept for the backward pass).
For BAT it is every channel multiplied by the expanded H x H, W x W and T x T matrices of its group, as in the released
code. Blocks without a faster evaluation have one form only.

Both forms share the block's convolutions and norms, which no evaluation of the map can make faster. So two ratios are
taken: of the whole block, and of the map alone (what the block called to form the map, on the tensors it gave to it).
`bound` is the whole block's ratio if the map took no time: plain block / (plain block - plain map).

Both forms run in one process and alternate, so that whatever slows the machine slows both; raw samples are kept, wall
(on a GPU: CUDA events) and processor time. Speed-ups are ratios of medians. Peak memory, on the res3 map, is measured
in one fresh process per form, for the block and for its map: on a CPU the growth of the resident set over what was
there after a training step on a small map, on a GPU what the allocator reports as live. So that the resident set is
what is live, too, the C library gives blocks of a megabyte and more back when they are freed, which it otherwise does
for those above 32 MB only: for N x N maps, and not for maps of C channels. Cases share `--minutes`; those
that find no time left are named in the file.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks import record
from benchmarks.blocks_child import DTYPES, PASSES, block_step, measure
from blocks import Shape, block_names, build, config_dict, config_type
from blocks.configs import BlockConfig
from blocks.variants import variants

MAPS = {
    "res3": (2, Shape(512, 8, 28, 28)),
    "res4": (2, Shape(1024, 8, 14, 14)),
    "res4_32_frames": (2, Shape(1024, 32, 14, 14)),
    "res3_32_frames": (1, Shape(512, 32, 28, 28)),
}
BUILD = Path(__file__).parents[1] / "build"
_FREED_IS_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


def main() -> None:
    """Run the cases asked for and write the file."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(measure(json.loads(arguments.child))))
        return
    whole = not arguments.quick and set(arguments.only) == set(block_names()) and len(arguments.maps) == len(MAPS)
    if arguments.quick:
        arguments.maps, arguments.minutes = ["res4"], min(arguments.minutes, 1.5)
    rows, left_out = _within(60 * arguments.minutes, list(_cases(arguments)), arguments.clock)
    found = {
        "threads": arguments.threads,
        "clock": arguments.clock,
        "summary": _summary(rows),
        "rows": rows,
        "left_out": left_out,
    }
    file = arguments.out or (None if whole else BUILD / f"blocks-{arguments.device}.json")
    print(f"wrote {record.write('blocks', arguments.device, found, file)}; {len(left_out)} cases without time")


def pytest_generate_tests(metafunc: Any) -> None:
    """For pytest-benchmark: the default config of every block on the res4 map, both forms, both passes."""
    given = {"maps": ["res4"], "only": block_names(), "threads": os.cpu_count() or 1, "repeats": 5, "memory_gib": None}
    given["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    found = [
        (case, form, passes)
        for case in _cases(argparse.Namespace(**given))
        for passes, form in product(PASSES, _all_forms(case))
    ]
    names = [f"{case['config']['name']}-{case['dtype']}-{passes}-{form}" for case, form, passes in found]
    metafunc.parametrize(("case", "form", "passes"), found, ids=names)


def test_block(benchmark: Any, case: dict[str, Any], form: str, passes: str) -> None:
    """One form of one block; the forms of a block stand in one group, in which the slower shows its factor."""
    benchmark.group = f"{case['config']['name']} {case['map']} {case['dtype']} {passes}"
    step = block_step(case, form)
    benchmark.pedantic(step, args=(PASSES[passes],), rounds=case["repeats"], warmup_rounds=1)


def _within(
    seconds: float, cases: list[dict[str, Any]], clock: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure the cases until the time is up; the rows, and what was left out."""
    end = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    for done, case in enumerate(cases):
        left = end - time.monotonic()
        if left <= 0:
            return rows, [{key: missed[key] for key in ("config", "map", "dtype")} for missed in cases[done:]]
        # A case cheaper than its share leaves the rest to those after it.
        timed = {**case, "seconds": left / (len(cases) - done)}
        rows.append({**timed, **_measured(timed, left, clock)})
        print(_line(rows[-1]), flush=True)
    return rows, []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=block_names(), help="block names")
    parser.add_argument("--quick", action="store_true", help="default configs on the res4 map within 1.5 minutes")
    parser.add_argument("--minutes", type=float, default=10.0, help="start no case after this; limits samples too")
    parser.add_argument("--maps", nargs="+", default=list(MAPS), choices=list(MAPS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of PyTorch's operators")
    parser.add_argument("--clock", default="wall", choices=["wall", "processor"], help="what ratios are taken of")
    parser.add_argument("--repeats", type=int, default=7, help="most samples per form, after one to warm up")
    parser.add_argument("--memory-gib", type=float, default=None, help="skip the plain form above this (default: free)")
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every form on the first map, before the default configs on the others."""
    limit = (arguments.memory_gib or _free_gib(arguments.device)) * 2**30
    for where in arguments.maps:
        clips, shape = MAPS[where]
        for name in arguments.only:
            default = config_type(name)()
            batch = max(clips, default.least_clips)
            for config in _forms(default) if where == "res3" else [default]:
                if config.problems(shape):
                    continue
                # Forward and backward of the plain form keep about three times the peak of its forward pass.
                elements = 3 * batch * _peak_elements(config, shape)
                for dtype in ("float32",) if arguments.device == "cpu" else tuple(DTYPES):
                    yield {
                        "config": config_dict(config),
                        "map": where,
                        "shape": [batch, *shape],
                        "dtype": dtype,
                        "device": arguments.device,
                        "threads": arguments.threads,
                        "repeats": arguments.repeats,
                        "plain_fits": elements * DTYPES[dtype].itemsize < limit,
                    }


def _peak_elements(config: BlockConfig, shape: Shape) -> int:
    """Peak elements of the plain form for one clip."""
    with torch.device("meta"):
        return build(config, shape).cost().peak_activation_elements


def _forms(config: BlockConfig) -> Iterator[BlockConfig]:
    """The default and one config per pairwise function or kind of matrix; other choices do not change the form."""
    for option in variants(config):
        changed = {key for key, value in vars(option).items() if value != getattr(config, key)}
        if changed <= {"affinity", "matrix"}:
            yield option


def _measured(case: dict[str, Any], seconds: float, clock: str) -> dict[str, Any]:
    """Everything about one case, from child processes; a form that dies (out of memory) leaves its error."""
    forms = _all_forms(case)
    found = record.spawn("benchmarks.blocks", {**case, "measure": "time", "forms": forms}, 60 + seconds)
    for part, form in product(("block", "map"), forms) if case["map"] == "res3" else []:
        task = {**case, "measure": "memory", "part": part, "forms": [form]}
        measured = record.spawn("benchmarks.blocks", task, 60 + seconds, _FREED_IS_GIVEN_BACK)
        found[f"peak_memory_bytes_{part}_{form}"] = measured.get("bytes")
    return {**found, "ratios": _ratios(found, clock)}


def _all_forms(case: dict[str, Any]) -> list[str]:
    return ["auto", "reference"] if "implementation" in case["config"] and case["plain_fits"] else ["auto"]


def _ratios(found: dict[str, Any], clock: str) -> dict[str, float]:
    """Speed-ups of the block and of its map, the bound on the block's, and the share of memory."""
    ratios = {}
    for passes in PASSES:
        seconds = {
            what: statistics.median(sample[clock == "processor"] for sample in found[f"{passes}_s_{what}"])
            for what in ("block_auto", "block_reference", "map_auto", "map_reference")
            if f"{passes}_s_{what}" in found
        }
        for part in ("block", "map"):
            if f"{part}_reference" in seconds:
                ratios[f"{passes}_{part}"] = seconds[f"{part}_reference"] / seconds[f"{part}_auto"]
        if "map_reference" in seconds and seconds["map_reference"] < seconds["block_reference"]:
            shared = seconds["block_reference"] - seconds["map_reference"]
            ratios[f"{passes}_bound"] = seconds["block_reference"] / shared
    for part in ("block", "map"):
        ours, plain = (found.get(f"peak_memory_bytes_{part}_{form}") for form in ("auto", "reference"))
        if ours and plain:
            ratios[f"memory_{part}"] = ours / plain
    return ratios


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Geometric means over the cases with both forms, per precision."""
    means = {}
    for dtype in DTYPES:
        for ratio in ("forward_block", "forward_backward_block", "forward_map", "forward_backward_map"):
            logs = [math.log(row["ratios"][ratio]) for row in rows if row["dtype"] == dtype and ratio in row["ratios"]]
            if logs:
                means[f"{dtype}_{ratio}_geometric_mean"] = math.exp(statistics.fmean(logs))
    return means


def _free_gib(device: str) -> float:
    if device == "cuda":
        return torch.cuda.mem_get_info()[0] / 2**30
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) / 2**20


def _line(row: dict[str, Any]) -> str:
    choice = row["config"].get("affinity") or row["config"].get("matrix") or ""
    shown = "  ".join(f"{name} {value:.2f}" for name, value in row["ratios"].items())
    return f"{row['config']['name']:7} {choice:17} {row['map']:14} {row['dtype']:8} {shown} {row.get('error', '')}"


if __name__ == "__main__":
    main()
