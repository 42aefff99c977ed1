"""Names for processes that hold something in a ledger, and whether the process behind a name still lives."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from sqlalchemy import Connection, select

from orchestrator.errors import AnotherDriver
from orchestrator.records.engine import reading, serialize, writing
from orchestrator.records.schema import LeaseRow
from orchestrator.records.sql import upsert

if TYPE_CHECKING:
    from orchestrator.records.ledger import Ledger

ALONE_ON = "alone_on"  # among a driver's facts: the sweep that it alone drives


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


def alone_on(ledger: Ledger, sweep: str, now: float) -> str | None:
    """The living driver that is alone on a sweep, as far as one can know: see `is_dead`."""
    with reading(ledger.engine) as connection:
        return _living(_alone(connection, sweep), now)


def enter_alone(
    ledger: Ledger, owner: str, sweep: str, facts: Mapping[str, Any], *, lease_seconds: float, now: float
) -> None:
    """Introduce `owner` as the one driver of a sweep, under a lease. Who was it before and lives still has lost that.

    Raises:
        AnotherDriver: there is one; nothing is written.
    """
    with writing(ledger.engine) as connection:
        serialize(connection)
        others = _alone(connection, sweep)
        living = _living(others, now)
        if living is not None:
            raise AnotherDriver(sweep, living)
        lost = [{**row, "driver": {**row["driver"], ALONE_ON: None}} for row in others]
        entry = {"owner": owner, "lease_until": now + lease_seconds, "driver": {**facts, ALONE_ON: sweep}}
        upsert(connection, LeaseRow, [*lost, entry])


def stay_alone(ledger: Ledger, owner: str, sweep: str, *, lease_seconds: float, now: float) -> None:
    """Renew the lease of the one driver of a sweep.

    Raises:
        AnotherDriver: another has entered since, after this one slept for longer than its lease.
    """
    with writing(ledger.engine) as connection:
        serialize(connection)
        alone = {row["owner"] for row in _alone(connection, sweep)}
        if owner not in alone:
            raise AnotherDriver(sweep, min(alone, default=""))
        upsert(connection, LeaseRow, [{"owner": owner, "lease_until": now + lease_seconds}])


def _alone(connection: Connection, sweep: str) -> list[dict[str, Any]]:
    """Leases of the drivers that entered a sweep alone and have not lost it, ended ones too."""
    rows = connection.execute(select(LeaseRow.owner, LeaseRow.lease_until, LeaseRow.driver)).mappings()
    return [dict(row) for row in rows if (row["driver"] or {}).get(ALONE_ON) == sweep]


def _living(rows: Iterable[Mapping[str, Any]], now: float) -> str | None:
    living = (str(row["owner"]) for row in rows if row["lease_until"] >= now and not is_dead(row["owner"]))
    return next(living, None)
