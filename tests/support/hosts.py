"""Hosts for cluster tests: Linux network namespaces, joined by a bridge in the first one. Needs root and iproute2.

Processes in different namespaces see each other only over that bridge, as machines do; the file system is shared, as on
a cluster with network storage.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

NETWORK = "10.231.7"


def unavailable() -> str | None:
    """Why there can be no hosts here; None if there can."""
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 (`ip`) is not installed"
    name = f"lr{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return None if made.returncode == 0 else f"no network namespaces here: {made.stderr.strip()}"


class Hosts:
    """A head and workers. Use as a context manager: leaving it ends every process in them.

    Args:
        names: of the hosts; the first is the head and carries the bridge.
        folder: where the output of their processes goes.
    """

    def __init__(self, names: Sequence[str], folder: Path) -> None:
        self.names = tuple(names)
        self._folder = folder
        self._space = {name: f"lr{os.getpid()}{name}" for name in names}
        self._logs: list[IO[bytes]] = []
        self._started: list[subprocess.Popen[bytes]] = []

    def address(self, name: str) -> str:
        """The host's only address beside loopback."""
        return f"{NETWORK}.{11 + self.names.index(name)}"

    def __enter__(self) -> Hosts:
        head = self._space[self.names[0]]
        for space in self._space.values():
            _ip("netns", "add", space)
            _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", head, "link", "add", "bridge", "type", "bridge")
        _ip("-n", head, "addr", "add", f"{self.address(self.names[0])}/24", "dev", "bridge")
        _ip("-n", head, "link", "set", "bridge", "up")
        for name in self.names[1:]:
            space = self._space[name]
            _ip("-n", head, "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("-n", head, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", space, "addr", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", space, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            self.kill(name)
        for space in self._space.values():
            _ip("netns", "delete", space)
        for process in self._started:
            process.wait()
        for log in self._logs:
            log.close()

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a process on a host; its output goes to `FOLDER/HOST-N.log`."""
        log = (self._folder / f"{name}-{len(self._logs)}.log").open("wb")
        self._logs.append(log)
        full = ["ip", "netns", "exec", self._space[name], *command]
        process = subprocess.Popen(full, env=dict(env), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._started.append(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> Path:
        """The file with the output of a process that was started here."""
        return Path(self._logs[self._started.index(process)].name)

    def cut(self, name: str) -> None:
        """Unplug a host; its processes live on."""
        _ip("-n", self._space[name], "link", "set", "eth0", "down")

    def kill(self, name: str) -> None:
        """Switch a host off: every process in it is gone at once."""
        for _ in range(100):
            found = _ip("netns", "pids", self._space[name]).split()
            if not found:
                return
            for pid in found:
                _kill(int(pid))
            time.sleep(0.05)
        raise TimeoutError(f"processes on {name} do not end")

    def output(self) -> str:
        """The last lines of every process, for messages."""
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
