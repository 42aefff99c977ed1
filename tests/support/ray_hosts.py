"""A Ray cluster over the hosts of `hosts.py`: the head with no CPU, workers that join it and may be lost."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hosts import Hosts
from services import BIN, plain_env

RAY = 6391  # the head's port


def environment(folder: Path, token: str) -> dict[str, str]:
    """What every process of the cluster is started with."""
    file = folder / f"token-{token[:4]}"
    file.write_text(token)
    file.chmod(0o600)
    return plain_env() | {
        "LONGRANGE_CACHE": str(folder / "cache"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        # Ray's default takes a lost node for lost after 15 seconds and more.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
    }


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


def head_address(hosts: Hosts) -> str:
    """What nodes and drivers join."""
    return f"{hosts.address(hosts.names[0])}:{RAY}"


def answers(hosts: Hosts, name: str, env: dict[str, str]) -> bool:
    """Whether Ray's head takes a question from this host with the token in `env`."""
    health = [str(BIN / "ray"), "health-check", "--address", head_address(hosts)]
    return hosts.start(name, health, env).wait() == 0


def start_head(hosts: Hosts, env: dict[str, str], temp: Path) -> None:
    """Start Ray's head with its own folder, and wait until it answers."""
    name = hosts.names[0]
    place = ["--head", f"--port={RAY}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={temp}"]
    _start(hosts, name, place, env)
    until(lambda: answers(hosts, name, env), 90, f"the head answers\n{hosts.output()}")


def join(hosts: Hosts, name: str, env: dict[str, str], *, cpus: int, attempts: int = 3) -> None:
    """Start a worker's node and wait until it has joined; again if it gave up, as a service manager would.

    Two nodes that start at the same moment take each other's ports: the hosts share one folder of sessions here.
    """
    for _ in range(attempts):
        node = _start(hosts, name, [f"--address={head_address(hosts)}", f"--num-cpus={cpus}"], env)
        log = hosts.log_of(node)
        until(lambda node=node, log=log: "Ray runtime started" in log.read_text() or node.poll() is not None, 90, name)
        if node.poll() is None:
            return
    raise AssertionError(f"{name} does not join the cluster\n{hosts.output()}")


def _start(hosts: Hosts, name: str, place: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    common = ["--block", f"--node-ip-address={hosts.address(name)}", "--object-store-memory=80000000"]
    return hosts.start(name, [str(BIN / "ray"), "start", *place, *common, "--num-gpus=0", "--disable-usage-stats"], env)
