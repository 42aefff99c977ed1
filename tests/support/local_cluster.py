"""A Ray cluster of several nodes on this machine, whose nodes can be lost. For processes that use Ray for nothing else.

Ray reads its settings when it is imported, so `settings` must be in the environment before that, of the process that
holds the cluster and of every driver.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil


def settings(folder: Path) -> dict[str, str]:
    """Environment for everything that takes part: one secret token, and lost nodes noticed within a few seconds."""
    token = folder / "ray-token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_health_check_initial_delay_ms": "2000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
        "RAY_health_check_failure_threshold": "3",
    }


class LocalCluster:
    """A head without CPUs and nodes of one CPU each, on addresses of the loopback net.

    Attributes:
        address: what drivers join, for `--ray`.
    """

    def __init__(self, nodes: int = 2) -> None:
        from ray.cluster_utils import Cluster

        self._folder = tempfile.mkdtemp(prefix="lr", dir="/tmp")  # Ray's sockets need short paths
        self._made = 0
        port = _free_port()
        head = {"num_cpus": 0, "gcs_server_port": port, "temp_dir": self._folder, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args={**head, "node_ip_address": "127.0.0.11"})
        self.address = f"127.0.0.11:{port}"
        self._nodes = [self._add() for _ in range(nodes)]

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lose_node(self, index: int) -> None:
        """Kill a node's raylet, as a machine that is switched off; another node takes its place."""
        node = self._nodes[index]
        raylet = node.all_processes["raylet"][0].process
        os.kill(raylet.pid, signal.SIGKILL)
        raylet.wait()
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes[index] = self._add()

    def workers(self) -> list[psutil.Process]:
        """The processes that hold trials."""
        found = []
        for node in self._nodes:
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            for child in raylet.children(recursive=True):
                try:
                    if "_Worker" in " ".join(child.cmdline()):
                        found.append(child)
                except psutil.Error:
                    continue  # ended while we looked
        return found

    def _add(self) -> Any:
        self._made += 1
        return self._cluster.add_node(num_cpus=1, node_ip_address=f"127.0.0.{11 + self._made}")


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.11", 0))
        port: int = taken.getsockname()[1]
        return port
