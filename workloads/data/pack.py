"""Copies of a data set's videos with a small shorter side, which are fast to read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from workloads.cache import write_aside
from workloads.data.annotations import Clip
from workloads.data.decode import shrink
from workloads.data.folder_config import FolderConfig
from workloads.data.pictures import UnreadableVideo

LIST = "annotation.csv"


@dataclass(frozen=True)
class PackReport:
    """What packing did.

    Attributes:
        written: videos copied now.
        kept: copies that were there.
        unreadable: path -> why it has no copy.
        bytes_before: of the originals that have copies.
        bytes_after: of their copies.
    """

    written: int
    kept: int
    unreadable: dict[str, str]
    bytes_before: int
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return dict(self.__dict__)


def pack(
    config: FolderConfig, target: Path, side: int, *, workers: int = 2, tick: Callable[[], None] = lambda: None
) -> PackReport:
    """Copy every video of a data set to the same relative path below `target`, as MP4.

    A copy is whole or absent, so packing can be stopped and started again. `annotation.csv` in `target` lists all
    copies with their labels and splits.

    Args:
        config: of videos.
        target: another folder than the data set's.
        side: shorter side of the copies in pixels; smaller videos keep their size.
        workers: threads.
        tick: called after each video.

    Raises:
        OSError: a copy cannot be written.
    """
    listing = config.listing()

    def one(clip: Clip) -> bool | UnreadableVideo:
        try:
            return _copied(config.folder / clip.path, target / copy_of(clip.path), side)
        except UnreadableVideo as error:
            return error
        finally:
            tick()

    clips = (*listing.train, *listing.validation)
    with ThreadPoolExecutor(workers) as pool:
        results = dict(zip(clips, pool.map(one, clips), strict=True))
    copied = [clip for clip, result in results.items() if not isinstance(result, UnreadableVideo)]
    rows = [
        (copy_of(clip.path), clip.label, split)
        for split, mine in zip(config.splits, (listing.train, listing.validation), strict=True)
        for clip in mine
        if clip in set(copied)
    ]
    target.mkdir(parents=True, exist_ok=True)
    write_aside(target / LIST, lambda aside: _write_list(aside, rows))
    return PackReport(
        written=sum(result is True for result in results.values()),
        kept=sum(result is False for result in results.values()),
        unreadable={clip.path: str(error) for clip, error in results.items() if isinstance(error, UnreadableVideo)},
        bytes_before=sum((config.folder / clip.path).stat().st_size for clip in copied),
        bytes_after=sum((target / copy_of(clip.path)).stat().st_size for clip in copied),
    )


def copy_of(path: str) -> str:
    """The relative path of a video's copy."""
    return str(PurePosixPath(path).with_suffix(".mp4"))


def _copied(source: Path, target: Path, side: int) -> bool:
    """Whether a copy was made now."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    write_aside(target, lambda aside: _shrunk(source, aside, side))
    return True


def _shrunk(source: Path, aside: Path, side: int) -> None:
    shrink(source, aside, side)


def _write_list(aside: Path, rows: list[tuple[str, str, str]]) -> None:
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)
