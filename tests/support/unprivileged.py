"""This process as a user who may not write everywhere: as root no file is read-only."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def nobody() -> Iterator[None]:
    """Until the end somebody without rights; nothing changes where this process has none anyway."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(pwd.getpwnam("nobody").pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def somebodys_folder() -> Iterator[Path]:
    """A folder of that user, whom this process is meanwhile."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        found = pwd.getpwnam("nobody")
        os.chown(folder, found.pw_uid, found.pw_gid)
    try:
        with nobody():
            yield folder
    finally:
        shutil.rmtree(folder)


def forbid_writing(folder: Path) -> None:
    """Take from everybody the right to write a folder and what is in it."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
