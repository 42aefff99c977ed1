"""Which clips there are and what they show, read from folders and lists. No torch here.

A listing is a plain value: clips by split with their labels as text, and everything that is wrong with them. Paths are
relative to the root of the data set, with forward slashes, so that a listing is the same on every machine.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts"}
    | {".webm", ".wmv"}
)
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

_SHOWN = 5  # examples in a message


class Clip(NamedTuple):
    """One labelled clip: a file, or a folder of frames."""

    path: str
    label: str


@dataclass(frozen=True)
class Listing:
    """The clips of a data set.

    Attributes:
        train: in a fixed order.
        validation: in a fixed order.
        missing: paths that a list names but the disk does not have; they are in neither split.
        problems: mistakes in the lists themselves.
        labels: every label that a list names, sorted; empty: the clips' own. Missing clips must not move the others'
            classes.
    """

    train: tuple[Clip, ...] = ()
    validation: tuple[Clip, ...] = ()
    missing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label, in order of text; a class's place is its index."""
        return self.labels or tuple(sorted({clip.label for clip in (*self.train, *self.validation)}))

    def restricted(self, labels: set[str], problems: Iterable[str] = ()) -> Listing:
        """Only the clips of these classes."""
        return Listing(
            tuple(clip for clip in self.train if clip.label in labels),
            tuple(clip for clip in self.validation if clip.label in labels),
            self.missing,
            (*self.problems, *problems),
            tuple(label for label in self.classes if label in labels),
        )


def read_folders(root: Path, splits: tuple[str, str], suffixes: frozenset[str] | None) -> Listing:
    """Clips of `<root>/<split>/<class>/*`.

    Args:
        root: an existing folder.
        splits: folder names of training and validation.
        suffixes: file names that count as clips; None: every folder is a clip (of frames).
    """
    found: list[tuple[Clip, ...]] = []
    problems = []
    for split in splits:
        if not (root / split).is_dir():
            others = ", ".join(sorted(entry.name for entry in os.scandir(root) if entry.is_dir())) or "none"
            problems.append(f"{root}: no folder {split!r} in it; its folders: {others}")
            found.append(())
            continue
        found.append(tuple(_clips_below(root, split, suffixes)))
    return Listing(found[0], found[1], problems=tuple(problems))


def _clips_below(root: Path, split: str, suffixes: frozenset[str] | None) -> Iterator[Clip]:
    classes = sorted(entry.name for entry in os.scandir(root / split) if entry.is_dir())
    for label in classes:
        names = sorted(
            entry.name
            for entry in os.scandir(root / split / label)
            if (entry.is_dir() if suffixes is None else Path(entry.name).suffix.lower() in suffixes)
            and not entry.name.startswith(".")
        )
        yield from (Clip(f"{split}/{label}/{name}", label) for name in names)


def read_table(file: Path, columns: Sequence[str]) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of a CSV file with a header, and what is wrong with it.

    Args:
        file: UTF-8, with or without a byte order mark.
        columns: those that must be there; others are kept too.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            reader = csv.DictReader(text)
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                given = ", ".join(reader.fieldnames or ()) or "none"
                return [], [f"{file}: columns {', '.join(columns)} are needed, given {given}"]
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return [], [f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"]
    short = [number for number, row in enumerate(rows, 2) if any(not row[column] for column in columns)]
    if short:
        return [], [f"{file}: {', '.join(columns)} must not be empty, but are in {examples('line', short)}"]
    return rows, []


def read_lines(file: Path) -> tuple[list[str], list[str]]:
    """Lines of a text file that are not empty, and what is wrong with it."""
    try:
        return [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()], []
    except (OSError, UnicodeDecodeError) as error:
        return [], [f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}"]


def read_lists(root: Path, files: Iterable[Path], splits: tuple[str, str]) -> Listing:
    """Clips of CSV lists with columns path, label and split; rows of other splits are left out."""
    rows: list[dict[str, str]] = []
    problems: list[str] = []
    for file in files:
        table, wrong = read_table(file, ("path", "label", "split"))
        rows += table
        problems += wrong
    clips = [[Clip(row["path"], row["label"]) for row in rows if row["split"] == split] for split in splits]
    names = ", ".join(sorted({row["split"] for row in rows}))
    absent = [split for split, mine in zip(splits, clips, strict=True) if rows and not mine]
    problems += [f"no row of the lists has split {split!r}; their splits: {names}" for split in absent]
    return on_disk(root, clips[0], clips[1], problems)


def on_disk(root: Path, train: Iterable[Clip], validation: Iterable[Clip], problems: Iterable[str] = ()) -> Listing:
    """A listing of the clips that exist below `root`; the others are its `missing`."""
    folders: dict[str, set[str]] = {}
    missing: list[str] = []

    def exists(path: str) -> bool:
        # One look at each folder instead of one at each file: lists name hundreds of thousands.
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            here = root / folder
            folders[folder] = set(os.listdir(here)) if here.is_dir() else set()
        return name in folders[folder]

    kept = []
    labels: set[str] = set()
    for clips in (train, validation):
        listed = list(clips)
        labels |= {clip.label for clip in listed}
        there = [clip for clip in listed if exists(clip.path)]
        missing += [clip.path for clip in listed if not exists(clip.path)]
        kept.append(tuple(there))
    return Listing(kept[0], kept[1], tuple(missing), tuple(problems), tuple(sorted(labels)))


def draw(listing: Listing, *, classes: int, train: int, validation: int, seed: int) -> Listing:
    """A subset: so many classes, and so many clips of each, drawn without replacement.

    The draw of a class depends on the seed and its label alone, so that a video that appears or vanishes elsewhere
    does not move it.
    """
    ordered = sorted(listing.classes, key=lambda label: _lot(seed, "class", label))
    problems = [] if len(ordered) >= classes else [f"{classes} classes are to be drawn from {len(ordered)}"]
    found = listing.restricted(set(ordered[:classes]), problems)
    return replace(
        found, train=_of_each(found.train, train, seed), validation=_of_each(found.validation, validation, seed)
    )


def _of_each(clips: Sequence[Clip], count: int, seed: int) -> tuple[Clip, ...]:
    """So many clips of each class, in the order they had."""
    by_class: dict[str, list[Clip]] = {}
    for clip in clips:
        by_class.setdefault(clip.label, []).append(clip)
    lots = (sorted(mine, key=lambda clip: _lot(seed, "clip", clip.path))[:count] for mine in by_class.values())
    drawn = set(chain.from_iterable(lots))
    return tuple(clip for clip in clips if clip in drawn)


def _lot(seed: int, *what: str) -> bytes:
    return hashlib.sha256("/".join((str(seed), *what)).encode()).digest()


def problems(listing: Listing, root: Path, class_count: int | None) -> list[str]:
    """Everything that is wrong with a listing: empty splits, labels that do not match, clips listed twice."""
    found = list(listing.problems)
    for name, clips in (("training", listing.train), ("validation", listing.validation)):
        if not clips and not found:
            found.append(f"{root}: no {name} clips in it")
    found += _label_problems(listing, class_count)
    every = Counter(clip.path for clip in (*listing.train, *listing.validation))
    twice = [path for path, times in every.items() if times > 1]
    if twice:
        found.append(f"{root}: {len(twice)} clips are listed more than once: {examples('', twice)}")
    return found


def _label_problems(listing: Listing, class_count: int | None) -> list[str]:
    train = {clip.label for clip in listing.train}
    validation = {clip.label for clip in listing.validation}
    found = []
    if train and validation:
        sides = (("training", validation - train), ("validation", train - validation))
        found += [
            f"the splits do not have the same classes: {examples('', sorted(lacking))} not in {side}"
            for side, lacking in sides
            if lacking
        ]
    count = len(listing.classes)
    if not found and 0 < count < 2:
        found.append("all clips have one label: two classes are the least")
    if class_count is not None and count > class_count:
        found.append(f"{count} classes are on disk, class_count is {class_count}: raise it or leave it out")
    return found


def fingerprint(root: Path, listing: Listing) -> str:
    """16 hex digits over paths, labels, splits and sizes of all clips; a folder of frames counts its files."""
    total = hashlib.sha256()
    for split, clips in (("train", listing.train), ("validation", listing.validation)):
        for clip, size in zip(clips, sizes(root, clips), strict=True):
            total.update(f"{split}\0{clip.path}\0{clip.label}\0{size}\n".encode())
    return total.hexdigest()[:16]


def sizes(root: Path, clips: Iterable[Clip]) -> Iterator[int]:
    """Bytes of each file, number of files of each folder, -1 where it cannot be read."""
    for clip in clips:
        path = root / clip.path
        try:
            status = path.stat()
            yield len(os.listdir(path)) if os.path.isdir(path) else status.st_size
        except OSError:
            yield -1


def examples(what: str, values: Sequence[object]) -> str:
    """`line 3, 5, 9, ... (12 in all)`."""
    shown = ", ".join(str(value) for value in values[:_SHOWN])
    more = f", ... ({len(values)} in all)" if len(values) > _SHOWN else ""
    return f"{what} {shown}{more}".lstrip()


def indices(clips: Sequence[Clip], classes: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The class index of each clip, `[n]`."""
    at = {label: index for index, label in enumerate(classes)}
    return np.array([at[clip.label] for clip in clips], np.int64)
