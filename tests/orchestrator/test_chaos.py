"""A sweep under random kills, small: `benchmarks/chaos.py` as a test, and the loss of nodes on its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow(seconds=100)
@pytest.mark.ray
@pytest.mark.parametrize(
    ("kinds", "kills"), [("node", 2), ("worker,preempted,driver,interrupted", 4)], ids=["nodes", "processes"]
)
def test_nothing_is_lost_and_nothing_is_there_twice(tmp_path: Path, kinds: str, kills: int) -> None:
    found = tmp_path / "found.json"
    words = ["--trials", "20", "--kills", str(kills), "--only", kinds, "--seed", "3", "--json", str(found)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *words], cwd=ROOT, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    told = json.loads(found.read_text())
    assert told["problems"] == []
    assert told["kills"] == dict.fromkeys(kinds.split(","), kills // len(kinds.split(",")))
    assert told["attempts_by_cause"].get("lost", 0) >= 1, "no kill met a trial"
