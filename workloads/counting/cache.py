"""Counts that survive the process: small JSON files in the user's cache folder, keyed by everything they depend on.

The key holds the piece's config, the sources of all blocks, backbones and counters, and the versions of torch and
fvcore, so an edited block is counted again. Files are written aside and renamed; a folder that cannot be written is
no error, only slower.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import blocks
import workloads.backbones
import workloads.counting


def folder() -> Path:
    """`$LONGRANGE_CACHE/counting`, else `longrange/counting` in `$XDG_CACHE_HOME` or `~/.cache`."""
    chosen = os.environ.get("LONGRANGE_CACHE")
    if chosen:
        return Path(chosen) / "counting"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longrange" / "counting"


def cached(key: dict[str, Any], owner: type, compute: Callable[[], Any]) -> Any:
    """The JSON value of `compute`, from disk if it was computed before.

    Args:
        key: JSON values that identify the piece.
        owner: the class that is counted; its source file is part of the key even if it is not ours.
        compute: makes the value; only called when it is not there, and its errors are not cached.
    """
    whole, path = _place(key, owner)
    with contextlib.suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_text())
        if found["key"] == whole:
            return found["value"]
    with _uncollected():
        value = compute()
    with contextlib.suppress(OSError):
        _write(path, json.dumps({"key": whole, "value": value}))
    return value


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Leave garbage where it is for a moment: the collector would walk all that importing torch makes, many times."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def known(key: dict[str, Any], owner: type) -> bool:
    """Whether there is a file for `key`; see `cached`."""
    return _place(key, owner)[1].exists()


def _place(key: dict[str, Any], owner: type) -> tuple[str, Path]:
    whole = json.dumps({"key": key, "code": _code(_source(owner))}, sort_keys=True)
    return whole, folder() / f"{hashlib.sha256(whole.encode()).hexdigest()[:32]}.json"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(aside, path)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise


def _source(owner: type) -> Path:
    return Path(inspect.getfile(owner))


@cache
def _code(owner: Path) -> str:
    """Hash of what a count depends on: our sources, the owner's source, and the counters' versions."""
    packages = (blocks, workloads.backbones, workloads.counting)
    folders = [Path(str(package.__file__)).parent for package in packages]
    sources = sorted(path for here in folders for path in here.glob("*.py"))
    digest = hashlib.sha256(f"torch {version('torch')} fvcore {version('fvcore')}".encode())
    for path in [*sources, owner]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
