"""How fast TSM ResNet-50 trains with and without blocks: clips per second, MFU and peak memory per setting.

    python -m benchmarks.training                          # 8 x 224 x 224, batch 16, on a GPU
    python -m benchmarks.training --size 112 --batch 2     # what a CPU can do in minutes
    python -m benchmarks.training --blocks none rnl --settings plain-tf32 auto-bf16

A step is forward, cross-entropy, backward and SGD on clips that are on the device already: decoding has a benchmark of
its own. The base line `plain-tf32` is the straightforward loop: eager, contiguous, N x N maps as the papers write them
(`implementation="reference"`), matrix products in TF32. Speed-ups are ratios of clips per second to it within one
run, by median step times; every case is a process of its own, so that no setting inherits another's memory or compiled
code. A case that does not fit the GPU's memory is run again with half the batch, and its row says with how many clips.
Cases that fail or find no time left are named in the file.

MFU (model FLOPs utilisation) is 6 x executed MACs x clips per second (2 per MAC, forward once and backward twice) over
the device's dense peak for the number format. MACs are those of the block's definition: an evaluation that saves some
has a higher MFU, and recomputation in a backward pass does not count. Devices that are not in `PEAK_TFLOPS` need
`--peak-tflops` for an MFU; a CPU has none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import record
from workloads.backbones.model import build_model
from workloads.counting import profile
from workloads.measure import measure
from workloads.spec import ModelSpec

BLOCKS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "nl": {"name": "nl"},
    "rnl": {"name": "rnl"},
    "bat": {"name": "bat"},
}
PLACES = {"res3": (0, 2), "res4": (0, 2, 4)}  # five blocks, where the papers have them

# Dense peaks in TFLOP/s as the vendor's data sheets print them, by what the driver's name of the device holds. Cards
# (PCIe, NVL) have other clocks and fewer cores than the SXM modules; an A100 has the same peaks as either.
PEAK_TFLOPS = {
    r"\bH200(?! NVL)": {"fp32": 67.0, "tf32": 494.7, "bf16": 989.4},
    r"\bH100(?! (PCIe|NVL))": {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4},
    r"\bA100": {"fp32": 19.5, "tf32": 156.0, "bf16": 312.0},
}

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@dataclass(frozen=True)
class Setting:
    """How a step runs."""

    implementation: str
    precision: str
    compiled: bool = False
    channels_last: bool = False


BASE_LINE = "plain-tf32"
SETTINGS = {
    "plain-fp32": Setting("reference", "fp32"),
    BASE_LINE: Setting("reference", "tf32"),
    "auto-fp32": Setting("auto", "fp32"),
    "auto-tf32": Setting("auto", "tf32"),
    "auto-bf16": Setting("auto", "bf16"),
    "auto-tf32-channels-last": Setting("auto", "tf32", channels_last=True),
    "auto-bf16-channels-last": Setting("auto", "bf16", channels_last=True),
    "auto-tf32-compiled": Setting("auto", "tf32", compiled=True),
    "auto-bf16-compiled": Setting("auto", "bf16", compiled=True),
    "auto-bf16-compiled-channels-last": Setting("auto", "bf16", compiled=True, channels_last=True),
}


class Mixed(nn.Module):
    """A network under autocast, whose scores are float32."""

    def __init__(self, network: nn.Module, device: str) -> None:
        super().__init__()
        self.network, self.device = network, device

    def forward(self, clips: Tensor) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16):
            scores: Tensor = self.network(clips)
        return scores.float()


def main() -> None:
    """Run the cases asked for and write `results/training-<device>.json`."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_child(json.loads(arguments.child))))
        return
    rows, end = [], time.monotonic() + 60 * arguments.minutes
    for case in _cases(arguments):
        rows.append(_measured(case, end))
        _add_speedup(rows)
        print(_line(rows[-1]), flush=True)
    found = {"best": _best(rows), "rows": rows}
    for block, row in found["best"].items():
        print(f"{block:5} fastest: {row['setting']}, {row['speedup']:.2f}x of {BASE_LINE}")
    print(f"wrote {record.write('training', arguments.device, found, arguments.out)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cuda = torch.cuda.is_available()
    parser.add_argument("--blocks", nargs="+", default=list(BLOCKS), choices=list(BLOCKS))
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--device", default="cuda" if cuda else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=16, help="clips per step")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels per side")
    parser.add_argument("--samples", type=int, default=20, help="steps measured per case")
    parser.add_argument("--peak-tflops", type=float, help="the device's dense peak, where the table has none")
    parser.add_argument("--minutes", type=float, default=25.0, help="start no case after this")
    parser.add_argument("--out", type=Path, help="file to write instead of one under benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def _cases(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Every block under every setting it has; the base line first. TF32 is a number format of GPUs alone."""
    names = sorted(arguments.settings, key=lambda name: name != BASE_LINE)
    kept = ("device", "batch", "frames", "size", "samples", "peak_tflops")
    return [
        {"block": block, "setting": name, **{key: getattr(arguments, key) for key in kept}}
        for block in arguments.blocks
        for name in names
        if not (block == "none" and name == "plain-fp32")  # no block, no map: the same as auto-fp32
    ]


def _measured(case: dict[str, Any], end: float) -> dict[str, Any]:
    """The case's row: with the batch asked for or, where that does not fit, half of it, and so on."""
    left = end - time.monotonic()
    done = record.spawn("benchmarks.training", case, left) if left > 0 else {"error": "no time left"}
    if "out of memory" in done.get("error", "") and case["batch"] > 1:
        return _measured(case | {"batch": case["batch"] // 2}, end)
    return case | done


def _child(case: dict[str, Any]) -> dict[str, Any]:
    setting, device = SETTINGS[case["setting"]], case["device"]
    spec = _spec(case, setting)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest" if setting.precision == "fp32" else "high")
    torch.backends.cudnn.allow_tf32 = setting.precision != "fp32"
    torch.backends.cudnn.benchmark = True
    model: nn.Module = build_model(spec).to(device)
    clips = torch.rand(case["batch"], 3, case["frames"], case["size"], case["size"], device=device)
    if setting.channels_last:
        for parameter in model.parameters():
            if parameter.dim() in CHANNELS_LAST:
                parameter.data = parameter.data.contiguous(memory_format=CHANNELS_LAST[parameter.dim()])
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    if setting.precision == "bf16":
        model = Mixed(model, device)
    if setting.compiled:
        model.compile()
    if device == "cuda":  # cuDNN tries its kernels here: their workspaces are no part of a step's memory
        measure(model, clips, training=True, warmup=0, samples=3)
    found = measure(model, clips, training=True, warmup=3, samples=case["samples"])
    macs = profile(spec).executed_macs
    return {
        **found.model_dump(),
        "clips_per_second": case["batch"] * 1e3 / found.p50_ms,
        "executed_macs_per_clip": macs,
        "mfu_percent": _mfu(case, setting, macs, found.p50_ms),
    }


def _spec(case: dict[str, Any], setting: Setting) -> ModelSpec:
    block = dict(BLOCKS[case["block"]])
    if case["block"] != "none":
        block["implementation"] = setting.implementation
    backbone = {"name": "tsm_resnet50", "frames": case["frames"], "size": case["size"], "classes": 400}
    insertion = {} if case["block"] == "none" else PLACES
    return ModelSpec.model_validate({"backbone": backbone, "block": block, "insertion": insertion})


def _mfu(case: dict[str, Any], setting: Setting, macs: int, step_ms: float) -> float | None:
    """Percent of the device's dense peak; None where the peak is not known."""
    name = torch.cuda.get_device_name() if case["device"] == "cuda" else ""
    known = [peaks[setting.precision] for device, peaks in PEAK_TFLOPS.items() if re.search(device, name)]
    peak = case["peak_tflops"] or (known[0] if known else None)
    return None if peak is None else 100 * 6 * macs * case["batch"] / (step_ms / 1e3) / (peak * 1e12)


def _add_speedup(rows: list[dict[str, Any]]) -> None:
    """The newest row's speed-up over its block's base line, where both ran."""
    row = rows[-1]
    base = [other for other in rows if other["block"] == row["block"] and other["setting"] == BASE_LINE]
    if base and "error" not in row and "error" not in base[0]:
        row["speedup"] = row["clips_per_second"] / base[0]["clips_per_second"]


def _best(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fastest setting of every block that has a base line."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("speedup", 0.0) > best.get(row["block"], {"speedup": 0.0})["speedup"]:
            best[row["block"]] = {"setting": row["setting"], "speedup": row["speedup"]}
    return best


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['block']:5} {row['setting']:34} {row['error']}"
    mfu = "-" if row["mfu_percent"] is None else f"{row['mfu_percent']:.1f} %"
    speedup = f"{row['speedup']:.2f}x" if "speedup" in row else "-"
    memory = row["peak_memory_bytes"]
    return (
        f"{row['block']:5} {row['setting']:34} batch {row['batch']:2} "
        f"{row['clips_per_second']:8.2f} clips/s  MFU {mfu:>7}  "
        f"{'-' if memory is None else f'{memory / 2**30:.2f} GiB':>9}  {speedup:>6} of {BASE_LINE}"
    )


if __name__ == "__main__":
    sys.exit(main())
