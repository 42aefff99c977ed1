"""Names for processes that hold something in a ledger, and whether the process behind a name still lives."""

from __future__ import annotations

import os
import socket

import psutil


def new_owner() -> str:
    """A name no other process ever had: host, process, when that started, and a random part."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}:{os.urandom(3).hex()}"


def is_dead(owner: str) -> bool:
    """Whether the process surely ended. Of other machines nothing is known: their leases have to end."""
    host, pid, created, *_ = [*owner.split(":"), "", "", ""]
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > 1.0
    except psutil.NoSuchProcess:
        return True
