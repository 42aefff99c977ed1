"""Files that trials share: made once, by whoever comes first, and never seen half-written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def content_key(*parts: Any) -> str:
    """16 hex digits that identify these JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """`path`, after `make` wrote it if it was not there.

    Processes that race wait for the one that makes it. A process killed on the way leaves nothing at `path`.

    Args:
        path: its name must identify its content; an existing file is taken as it is.
        make: writes the file at the path it is given.

    Raises:
        OSError: the file cannot be written (no space, no permission); nothing is left behind.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if not path.exists():
            write_aside(path, make)
    return path


def write_aside(path: Path, make: Callable[[Path], None]) -> None:
    """Let `make` write next to `path`, force it to disk, and rename: readers see all of it or none.

    Raises:
        OSError: as `make` raises it; nothing is left behind and an older file at `path` stays.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        make(aside)
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
