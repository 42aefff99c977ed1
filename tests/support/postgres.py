"""The machine's own PostgreSQL, for tests that start, stop and restart it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest


class PostgreSQL:
    """The machine's own server on a free loopback port, run by an unprivileged user in a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="longrange-pg-"))
        self.user = _unprivileged()
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.call("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "longrange", "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def who(self) -> dict[str, Any]:
        """How to become that user."""
        return {} if self.user is None else {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def call(self, program: str, *words: object) -> None:
        command = [self.binaries / program, *map(str, words)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, **self.who)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        options = [f"-p{self.port}", f"-k{self.folder}", "-clisten_addresses=127.0.0.1", "-cfsync=off"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *options],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                **self.who,
            )
        deadline = time.monotonic() + 60
        while not self._answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "the server did not start within a minute"
            time.sleep(0.05)

    def _answers(self) -> bool:
        words = [self.binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(words, check=False).returncode == 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGQUIT)  # at once, whoever is connected
        self.process.wait(timeout=60)

    def emptied(self) -> str:
        """The URL of a database without tables: always the same one, since making another is slow."""
        again = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        self.call("psql", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "longrange", "-d", "postgres", "-c", again)
        return f"postgresql://longrange@127.0.0.1:{self.port}/postgres"


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to become: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or nobody")


def binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return debian[-1].parent if debian else None
