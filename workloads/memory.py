"""Peak memory of a trial, where the system can tell it apart from what ran before in the process."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_RESET_PEAK = "5"  # proc(5): writing 5 to clear_refs sets VmHWM to the present VmRSS


class PeakMemory:
    """Counts from its construction on.

    On CUDA it is the allocator's peak; on the CPU the process's peak resident size, libraries included.

    Args:
        device: where the trial runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        except OSError:  # not Linux, or not allowed
            self._known = False

    def read(self) -> dict[str, float]:
        """`peak_memory_bytes`, or nothing where it cannot be known."""
        if self._device.type == "cuda":
            return {"peak_memory_bytes": float(torch.cuda.max_memory_allocated(self._device))}
        if not self._known:
            return {}
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return {"peak_memory_bytes": 1024.0 * int(found[1])} if found else {}
