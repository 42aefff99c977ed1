"""What benchmarks share: cases in processes of their own, and result files that say where they were measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orchestrator.provenance import versions
from workloads.processor import processor_name

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "ray", "mlflow", "sqlalchemy", "av", "dash", "plotly", "fvcore", "deepspeed")


def spawn(
    module: str, task: dict[str, Any], seconds: float | None = None, environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """What `python -m MODULE --child TASK` prints as JSON; `error` where it fails, dies or takes too long."""
    command = [sys.executable, "-m", module, "--child", json.dumps(task)]
    surroundings = {**os.environ, **(environment or {})}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=surroundings)
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {seconds:.0f} s"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def write(name: str, variant: str, found: dict[str, Any], file: Path | None = None) -> Path:
    """Write `results/<name>-<variant>.json` (or `file`) with the machine, versions and time, and return its path."""
    file = file or RESULTS / f"{name}-{variant}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    file.write_text(json.dumps({"machine": machine(variant), "measured_at": stamp, **found}, indent=1) + "\n")
    return file


def machine(device: str) -> dict[str, Any]:
    """Processor, cores, load, versions, and the GPU where `device` is one."""
    found = {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": versions(_PACKAGES),
    }
    if device == "cuda":
        import torch

        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found
