"""Where Ray is, and hosts on which it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest

ISOLATED = ["unshare", "--map-root-user", "--net"]  # a network with nothing in it, not even loopback


def can_be_isolated() -> bool:
    try:
        return subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_machine_that_cannot_reach_itself_is_told_before_ray_waits_for_ever() -> None:
    if not can_be_isolated():
        pytest.skip("this user may make no network namespaces")
    starts = "from orchestrator.execution.ray_tune import RayExecutor\nwith RayExecutor(workers=1): pass"
    told = subprocess.run(
        [*ISOLATED, sys.executable, "-c", starts], capture_output=True, text=True, check=False, timeout=120
    )
    assert told.returncode == 1
    last = told.stderr.strip().splitlines()[-1]
    assert "LongrangeError: cannot start or reach Ray at this machine: " in last
    assert "loopback" in last
    assert "--executor inline" in last
