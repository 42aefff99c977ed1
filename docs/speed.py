"""The page of the blocks' speed, from what `python -m benchmarks.blocks` wrote."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from docstrings import plain, table

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
COLUMNS = {
    "forward": "forward_block",
    "at most": "forward_bound",
    "map alone": "forward_map",
    "forward + backward": "forward_backward_block",
    "at most ": "forward_backward_bound",
    "map alone ": "forward_backward_map",
    "memory": "memory_block",
    "memory of the map": "memory_map",
}
MEANING = (
    "Speed-ups of `implementation: auto` over the plain N × N form (`implementation: reference`), both exact, in "
    "one process and run, as ratios of medians. Above 1 is faster. *Forward* and *forward + backward* are the "
    "whole block; *map alone* leaves out the convolutions and norms that both forms share; *at most* is what the "
    "whole block could reach if its map took no time. *Memory* is the peak of a training step as a share of the "
    "plain form's, with the activations of the shared layers; the last column leaves those out. Blocks without a "
    "faster evaluation have their time only."
)


def speed_page() -> str:
    """One table per measured machine and map."""
    parts = ["# How fast the blocks are", MEANING]
    files = sorted(RESULTS.glob("blocks-*.json"))  # of several processors, which gain differently
    for file in files:
        parts += _device(json.loads(file.read_text(encoding="utf-8")))
    if not files:
        parts.append("Nothing has been measured here yet.")
    parts.append("`python -m benchmarks.blocks` measures it again and renews this page's numbers.")
    return "\n\n".join(parts)


def _device(found: dict[str, Any]) -> list[str]:
    machine = found["machine"]
    where = machine.get("gpu", f"{machine['processor']}, {found['threads']} of {machine['cores']} cores")
    load = machine["load_average"][0]
    told = (
        f"Measured {found['measured_at']}: torch {machine['packages']['torch']}, {machine['system']}, "
        f"{found['clock']} time, load {load:.1f} at the end."
    )
    parts = [f"## {plain(where)}", plain(told)]
    for map_name in dict.fromkeys(row["map"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["map"] == map_name]
        shape = " × ".join(map(str, rows[0]["shape"]))
        shown = [_row(row, found["clock"]) for row in rows]
        parts += [f"### {shape}", table(["block", "precision", "forward ms", *COLUMNS], shown)]
    if found["left_out"]:
        missing = ", ".join(f"{case['config']['name']} on {case['map']}" for case in found["left_out"])
        parts.append(f"Not measured for want of time: {plain(missing)}.")
    return parts


def _row(row: dict[str, Any], clock: str) -> list[str]:
    config = row["config"]
    choice = config.get("affinity") or config.get("matrix") or ""
    samples = row.get("forward_s_block_auto")
    ours = f"{statistics.median(s[clock == 'processor'] for s in samples) * 1e3:.1f}" if samples else "failed"
    ratios = [f"{row['ratios'][key]:.2f}" if key in row["ratios"] else "" for key in COLUMNS.values()]
    return [plain(f"{config['name']} {choice}"), row["dtype"], ours, *ratios]
