"""What is in a data set and what is wrong with it: counts, unreadable clips, durations, rates, leaks across splits."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workloads.data import annotations as lists
from workloads.data.annotations import Clip, Listing
from workloads.data.decode import probe
from workloads.data.folder_config import MAY_SKIP, FolderConfig
from workloads.data.pictures import Scale, UnreadableVideo
from workloads.data.readers import Reader

SAMPLE = 200  # clips that are looked at unless all are
_SIDE = 32  # decoded frames are only proof that they can be decoded

Tick = Callable[[], None]


class Spread(NamedTuple):
    """A quantity over clips."""

    lowest: float
    median: float
    highest: float


@dataclass(frozen=True)
class CheckReport:
    """The state of a data set on disk.

    Attributes:
        dataset: its name.
        root: where it is.
        fingerprint: of the file list.
        train: clips of each class.
        validation: clips of each class.
        looked_at: how many clips were opened.
        full: whether every frame of them was decoded, or only the first and the last one.
        problems: mistakes of lists and folders.
        missing: listed clips that are not on disk.
        unreadable: path -> why.
        leaks: pairs of a training and a validation file with the same content.
        frames: per clip; None where no clip could be opened, as for the next two.
        seconds: per clip.
        rate: frames per second.
        shapes: `WxH` as stored -> clips.
        codecs: name -> clips.
    """

    dataset: str
    root: str
    fingerprint: str
    train: dict[str, int]
    validation: dict[str, int]
    looked_at: int
    full: bool
    problems: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: dict[str, str]
    leaks: tuple[tuple[str, str], ...]
    frames: Spread | None
    seconds: Spread | None
    rate: Spread | None
    shapes: dict[str, int]
    codecs: dict[str, int]

    @property
    def usable(self) -> bool:
        """Whether a trial would start, and end with no more unreadable clips than it may skip."""
        return not self.problems and len(self.unreadable) <= MAY_SKIP * max(1, self.looked_at)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.__dict__, "usable": self.usable}


def check(config: FolderConfig, *, full: bool, workers: int = 2, tick: Tick = lambda: None) -> CheckReport:
    """Look at a data set.

    Args:
        config: which one; its root must exist.
        full: decode every frame of every clip, instead of two frames of a sample of `SAMPLE`.
        workers: threads.
        tick: called after each clip.
    """
    listing = config.listing()
    chosen = looked_at(listing, full=full)
    with ThreadPoolExecutor(workers) as pool:
        looks = list(pool.map(lambda clip: _look(config, clip, full, tick), chosen))
    found = [look for look in looks if not isinstance(look, UnreadableVideo)]
    pairs = zip(chosen, looks, strict=True)
    return CheckReport(
        dataset=config.dataset,
        root=str(config.folder),
        fingerprint=config.fingerprint(),
        train=_per_class(listing.train),
        validation=_per_class(listing.validation),
        looked_at=len(chosen),
        full=full,
        problems=tuple(config.problems()),
        missing=listing.missing,
        unreadable={clip.path: str(look) for clip, look in pairs if isinstance(look, UnreadableVideo)},
        leaks=tuple(_leaks(config.folder, listing)),
        frames=_spread([look.frames for look in found]),
        seconds=_spread([look.seconds for look in found if look.seconds]),
        rate=_spread([look.rate for look in found if look.rate]),
        shapes=_counted(look.shape for look in found),
        codecs=_counted(look.codec for look in found),
    )


def looked_at(listing: Listing, *, full: bool) -> Sequence[Clip]:
    """The clips that a check opens: all, or some spread evenly over the lists."""
    clips = (*listing.train, *listing.validation)
    if full or len(clips) <= SAMPLE:
        return clips
    return [clips[at] for at in np.linspace(0, len(clips) - 1, SAMPLE).astype(int)]


class _Look(NamedTuple):
    frames: int
    seconds: float
    rate: float
    shape: str
    codec: str


def _look(config: FolderConfig, clip: Clip, full: bool, tick: Tick) -> _Look | UnreadableVideo:
    try:
        return _opened(config, clip, full)
    except UnreadableVideo as error:
        return error
    finally:
        tick()


def _opened(config: FolderConfig, clip: Clip, full: bool) -> _Look:
    """What a clip says about itself, after its frames were decoded.

    Raises:
        UnreadableVideo: they could not be.
    """
    counts: list[int] = []

    def choose(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        counts.append(count)
        return np.arange(count) if full else np.array([0, count - 1])

    if config.kind == "features":
        from workloads.data.features import read_features  # with torch, which no other kind needs here

        read_features(config.folder / clip.path, choose, config.channels)
        return _Look(counts[-1], 0.0, 0.0, str(config.channels), "npz")
    pixels = Reader(config.folder, config.kind, Scale(_SIDE, grey=True)).read(clip.path, choose)
    if config.kind != "video":
        return _Look(counts[-1], 0.0, 0.0, f"{pixels.shape[2]}:{pixels.shape[1]}", "image")
    info = probe(config.folder / clip.path)
    return _Look(counts[-1], info.seconds, info.rate, f"{info.width}x{info.height}", info.codec)


def _leaks(root: Path, listing: Listing) -> Iterator[tuple[str, str]]:
    """Training and validation files with the same bytes; only files of equal size are read."""
    train, validation = (
        [(clip.path, size) for clip, size in zip(clips, lists.sizes(root, clips), strict=True) if size > 0]
        for clips in (listing.train, listing.validation)
    )
    shared = {size for _, size in train} & {size for _, size in validation}
    hashes = {
        content: path for path, size in train if size in shared and (content := _content(root / path)) is not None
    }
    for path, size in validation:
        content = _content(root / path) if size in shared else None
        if content in hashes:
            yield hashes[content], path


def _content(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # a folder of frames, or a file that cannot be read, which is reported as such
        return None


def _per_class(clips: Sequence[Clip]) -> dict[str, int]:
    return _counted(clip.label for clip in clips)


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(float(min(values)), float(np.median(values)), float(max(values)))
