"""Where a network's weights come from before the first step: a local file, known by its content. No torch here."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from workloads.frozen import Frozen


class Start(Frozen):
    """Starting weights. The content of the file is part of a trial's identity, its place is not.

    Attributes:
        path: `.safetensors`, a file of `torch.save` with tensors alone, or a trial's folder of checkpoints, of which
            the newest is taken.
        sha256: of the file; found out where the file is there. Given, it is required: another file is refused.
        allow: shell patterns of keys that may be missing, unexpected or of another shape, e.g. `fc.*` for another
            number of classes. Blocks need none where the file has no blocks: they start fresh.
        inflate: how a 2-D kernel fills a 3-D one: `centre` puts it on the middle frame, `mean` spreads it evenly.
    """

    path: str = Field(min_length=1)
    sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$")
    allow: tuple[str, ...] = ()
    inflate: Literal["centre", "mean"] = "centre"

    @model_validator(mode="before")
    @classmethod
    def _known_by_content(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("path"), str) or not given["path"]:
            return given
        path = Path(given["path"]).expanduser().absolute()  # workers have other working folders
        if given.get("sha256"):
            return {**given, "path": str(path)}
        return {**given, "path": str(path), "sha256": content_hash(file_of(path))}

    @property
    def file(self) -> Path:
        """The file that is read.

        Raises:
            ValueError: there is none.
        """
        return file_of(Path(self.path))

    def problems(self) -> list[str]:
        """Why the file cannot be used here: it is gone, or another one."""
        try:
            found = content_hash(self.file)
        except ValueError as error:
            return [f"start: {error}"]
        if found != self.sha256:
            return [
                f"start: {self.path} has sha256 {found}, this trial starts from {self.sha256}: "
                "bring the old file back, or plan again"
            ]
        return []


def file_of(path: Path) -> Path:
    """The file of weights that a path means.

    Raises:
        ValueError: there is none.
    """
    if path.is_dir():
        found = sorted(path.glob("step-*.safetensors"))
        if not found:
            raise ValueError(f"{path} is a folder without checkpoints (step-*.safetensors): give a file of weights")
        return found[-1]
    if not path.is_file():
        raise ValueError(f"{path} does not exist: give a local file of weights; nothing is downloaded")
    return path


def content_hash(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits; read once per process while it does not change.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        status = file.stat()
        return _hash(file, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=64)
def _hash(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
