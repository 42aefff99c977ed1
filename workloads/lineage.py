"""One trial's checkpoint, handed to another that goes on from there. No torch here.

Nothing is taken on trust: a checkpoint says what trained it, and the trial that finds it compares that with itself.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def hand_on(parent: Path, child: Path, epochs: int) -> bool:
    """Give `child` the checkpoint that the trial in `parent` wrote after `epochs` epochs, to the byte.

    Returns:
        Whether there is one. Without it `child` trains these epochs itself, to the same weights.

    Raises:
        OSError: it cannot be written.
    """
    found = next((file for file in sorted(parent.glob("step-*.safetensors")) if trained_epochs(file) == epochs), None)
    if found is None:
        return False
    child.mkdir(parents=True, exist_ok=True)
    aside = child / f".{found.name}.{os.getpid()}.aside"
    aside.unlink(missing_ok=True)
    try:
        os.link(found, aside)  # checkpoints never change once they are written
    except OSError:  # a file system without links
        shutil.copyfile(found, aside)
    aside.replace(child / found.name)
    return True


def trained_epochs(file: Path) -> int | None:
    """How many whole epochs a checkpoint holds; None for one within an epoch, or an unreadable file."""
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            values = json.loads(json.loads(opened.read(min(length, file.stat().st_size)))["__metadata__"]["longrange"])
        return int(values["epoch"]) if values["step"] == 0 else None
    except (OSError, ValueError, KeyError):
        return None
