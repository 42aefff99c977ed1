"""Names for processes that hold something in a ledger, and whether the process behind a name still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import select

from orchestrator.records.engine import serialize, writing
from orchestrator.records.schema import LeaseRow
from orchestrator.records.sql import upsert

if TYPE_CHECKING:
    from orchestrator.records.ledger import Ledger


def new_owner() -> str:
    """A name no other process ever had: host, process, when that started, where it is counted, and a random part."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}:{_place()}:{os.urandom(3).hex()}"


def is_dead(owner: str) -> bool:
    """Whether the process surely ended. Of other machines nothing is known: their leases have to end."""
    host, pid, created, place, *_ = [*owner.split(":"), "", "", "", ""]
    if (host, place) != (socket.gethostname(), _place()):
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(created)) > 1.0
    except psutil.NoSuchProcess:
        return True


def _place() -> str:
    """Where numbers of processes mean the same: this start of this kernel and, in a container, its own counting.

    Host names alone do not tell: containers can share one.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot[:8]}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # no Linux: a host is one place
        return ""


def release_dead_owners(ledger: Ledger, sweep: str) -> None:
    """Give back at once what drivers on this machine held when they died; others are waited for (their lease)."""
    for owner in {trial.owner for trial in ledger.trials_of(sweep) if trial.owner}:
        if is_dead(owner):
            ledger.release(owner)


def enter_alone(
    ledger: Ledger, owner: str, sweep: str, facts: Mapping[str, Any], *, lease_seconds: float, now: float
) -> str | None:
    """Introduce `owner` as the one driver of a sweep, under a lease; or say who is that already.

    Returns:
        None, or the other driver, which is alive as far as one can know; then nothing is written.
    """
    living = select(LeaseRow.owner, LeaseRow.driver).where(LeaseRow.lease_until >= now)
    with writing(ledger.engine) as connection:
        serialize(connection)
        for other, driver in connection.execute(living).all():
            if (driver or {}).get("alone_on") == sweep and not is_dead(other):
                return str(other)
        entry = {"owner": owner, "lease_until": now + lease_seconds, "driver": {**facts, "alone_on": sweep}}
        upsert(connection, LeaseRow, [entry])
    return None
