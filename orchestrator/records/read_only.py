"""How SQLite reads a ledger where nothing can be written: mounted archives, folders of other users."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.errors import LedgerError


def is_fixed(file: Path) -> bool:
    """Whether this user cannot make files beside `file`, as SQLite's WAL needs."""
    effective = os.access in os.supports_effective_ids
    return not os.access(file.resolve().parent, os.W_OK, effective_ids=effective)


def reading_uri(file: Path) -> str:
    """The URI under which SQLite reads `file` now, and never writes it.

    Ask again for each connection: whoever may write there can begin to at any time.

    Raises:
        LedgerError: its newest rows are in a `-wal` that cannot be read there.
    """
    real = file.resolve()
    quoted = str(real).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    uri = f"file:{quoted}?mode=ro"
    wal, index = (real.with_name(real.name + end) for end in ("-wal", "-shm"))
    if not is_fixed(real) or index.exists():
        return uri
    if wal.exists() and wal.stat().st_size:
        raise LedgerError(
            f"the newest rows are in {wal}, which cannot be read in a folder that is read-only and has lost "
            f"{index.name}: copy both to a folder you may write, {real.name} beside {wal.name}"
        )
    return uri + "&immutable=1"  # nobody has it open; the index that readers share cannot be made
