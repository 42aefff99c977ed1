"""The papers' data sets as their owners have them on disk, with the settings the papers print. No torch here.

Class counts are fixed, so that every sweep on them can be planned and priced without the data; `needs` says what the
root must hold. None of them is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from workloads.data import annotations as lists
from workloads.data.annotations import Clip, Listing
from workloads.data.folder_config import FolderConfig, Kind


class KineticsConfig(FolderConfig):
    """Kinetics: folders, a list with columns path, label, split, or the official lists.

    The official lists have columns label, youtube_id, time_start, time_end, split. Their videos are found anywhere
    below the split's folder by the usual names, `<id>_<start>_<end>` with six digits each, or `<id>`. Videos that are
    gone from the web are missing from every copy: they are counted in each result's notes.
    """

    tolerates_missing: ClassVar[bool] = True
    official: ClassVar[tuple[str, ...]] = ("label", "youtube_id", "time_start", "time_end", "split")

    sampling: Literal["segments", "dense"] = "dense"
    stride: int = Field(8, ge=1)
    flip: bool = True

    def read(self) -> Listing:
        if self.annotation is None:
            return super().read()
        rows: list[dict[str, str]] = []
        problems: list[str] = []
        for file in self.annotation_files():
            table, wrong = lists.read_table(file, ("label", "split"))
            rows += table
            problems += wrong
        if rows and "path" in rows[0]:
            return super().read()
        lacking = [column for column in self.official if rows and column not in rows[0]]
        if lacking:
            return Listing(problems=(f"the lists need a column path, or all of {', '.join(self.official)}",))
        found = [self._found(split, list(_of(split, rows))) for split in self.splits]
        labels = tuple(sorted({row["label"] for row in rows}))
        missing = (*found[0][1], *found[1][1])
        return Listing(tuple(found[0][0]), tuple(found[1][0]), missing, tuple(problems), labels)

    def _found(self, split: str, rows: list[dict[str, str]]) -> tuple[list[Clip], list[str]]:
        below = {Path(path).stem: path for path in _files_below(self.folder, split)}
        clips, missing = [], []
        for row in rows:
            name = row["youtube_id"]
            timed = f"{name}_{int(float(row['time_start'])):06d}_{int(float(row['time_end'])):06d}"
            path = below.get(timed) or below.get(name)
            if path is None:
                missing.append(f"{split}/{timed}")
            else:
                clips.append(Clip(path, row["label"]))
        return clips, missing


class Kinetics400Config(KineticsConfig):
    """Kinetics-400 with RNL's settings: 8 frames, one in 8."""

    title: ClassVar[str] = "Kinetics-400: 400 human actions, 10 s videos"
    needs: ClassVar[str] = "Kinetics-400 videos: train/<class>/*.mp4 and val/<class>/*.mp4, or the official lists"
    nominal: ClassVar[tuple[int, int]] = (246_535, 19_907)

    name: str = "kinetics400"
    dataset: str = "kinetics400"
    class_count: int | None = Field(400, ge=2)

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "tsm_resnet50"},
            "recipe": {"name": "rnl"},
            "protocol": {"name": "views_10x3"},
        }


class MiniKinetics200Config(Kinetics400Config):
    """Mini-Kinetics-200: 400 training and 25 validation clips of each of 200 classes of Kinetics-400.

    No paper gives its list. Give one as `annotation` (columns path, label, split; then nothing is drawn), the classes
    as `class_list`, or let all be drawn by `draw_seed`.

    Attributes:
        class_list: a file with one class name per line, below the root; None: classes are drawn.
    """

    title: ClassVar[str] = "Mini-Kinetics-200: 200 classes of Kinetics-400, drawn by a stated seed"
    caveat: ClassVar[str] = "Papers do not publish which classes and clips they drew; numbers of other draws differ."
    needs: ClassVar[str] = "Kinetics-400 videos: train/<class>/*.mp4 and val/<class>/*.mp4, or lists"
    nominal: ClassVar[tuple[int, int]] = (80_000, 5_000)

    name: str = "mini-kinetics200"
    dataset: str = "mini-kinetics200"
    class_count: int | None = Field(200, ge=2)
    class_list: str | None = None
    draw_classes: int | None = Field(200, ge=2)
    draw_train: int | None = Field(400, ge=1)
    draw_validation: int | None = Field(25, ge=1)

    def read(self) -> Listing:
        found = super().read()
        if self.class_list is None:
            return found
        wanted, problems = lists.read_lines(self.folder / self.class_list)
        unknown = sorted(set(wanted) - set(found.classes))
        if unknown:
            problems.append(f"{self.class_list} names classes without clips: {lists.examples('', unknown)}")
        return found.restricted(set(wanted), problems)

    def drawn(self, found: Listing) -> Listing:
        given = isinstance(self.annotation, str) and len(found.classes) <= (self.draw_classes or 0)
        return found if given else super().drawn(found)

    def annotation_files(self) -> list[Path]:
        also = [self.folder / self.class_list] if self.class_list else []
        return [*super().annotation_files(), *also]

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "c2d_resnet50"},
            "recipe": {"name": "bat_mini"},
            "protocol": {"name": "centre"},
        }


class Kinetics600Config(KineticsConfig):
    """Kinetics-600 with TSN's settings: what HG-NL's networks start from."""

    title: ClassVar[str] = "Kinetics-600: 600 human actions, 10 s videos"
    needs: ClassVar[str] = "Kinetics-600 videos: train/<class>/*.mp4 and val/<class>/*.mp4, or the official lists"
    nominal: ClassVar[tuple[int, int]] = (392_622, 30_001)

    name: str = "kinetics600"
    dataset: str = "kinetics600"
    class_count: int | None = Field(600, ge=2)
    sampling: Literal["segments", "dense"] = "segments"
    crop: Literal["random", "corners", "area", "centre"] = "corners"

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "tsn_se_resnext101_32x4d"},
            "recipe": {"name": "hgnl_tsn"},
            "protocol": {"name": "segments_25"},
        }


class Kinetics700Config(Kinetics600Config):
    """Kinetics-700 with HG-NL's settings: 3 segments in training, 25 in tests."""

    title: ClassVar[str] = "Kinetics-700: 700 human actions, 10 s videos"
    needs: ClassVar[str] = "Kinetics-700 videos: train/<class>/*.mp4 and val/<class>/*.mp4, or the official lists"
    nominal: ClassVar[tuple[int, int]] = (545_317, 35_000)

    name: str = "kinetics700"
    dataset: str = "kinetics700"
    class_count: int | None = Field(700, ge=2)


class SomethingV1Config(FolderConfig):
    """Something-Something V1 with RNL's settings: folders of frames and the official lists `id;label`.

    Attributes:
        annotation: the beginning of the lists' names, before `-train.csv` and `-validation.csv`.
        frames_folder: holds one folder of images per video.
    """

    title: ClassVar[str] = "Something-Something V1: 174 interactions with things; left and right matter"
    kind: ClassVar[Kind] = "frames"
    needs: ClassVar[str] = (
        "20bn-something-something-v1/<id>/*.jpg, something-something-v1-train.csv and -validation.csv"
    )
    nominal: ClassVar[tuple[int, int]] = (86_017, 11_522)

    name: str = "something-v1"
    dataset: str = "something-v1"
    class_count: int | None = Field(174, ge=2)
    annotation: str | tuple[str, str] | None = "something-something-v1"
    frames_folder: str = "20bn-something-something-v1"

    def read(self) -> Listing:
        clips, problems = [], []
        for file in self.annotation_files():
            lines, wrong = lists.read_lines(file)
            pairs = [line.split(";", 1) for line in lines]
            bad = [number for number, pair in enumerate(pairs, 1) if len(pair) < 2]
            problems += wrong + ([f"{file}: id;label is needed, see {lists.examples('line', bad)}"] if bad else [])
            clips.append([Clip(f"{self.frames_folder}/{pair[0]}", pair[1].strip()) for pair in pairs if len(pair) == 2])
        return lists.on_disk(self.folder, clips[0], clips[1], problems)

    def annotation_files(self) -> list[Path]:
        return [self.folder / f"{self.annotation}-{split}.csv" for split in ("train", "validation")]

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "tsm_resnet50"},
            "recipe": {"name": "rnl"},
            "protocol": {"name": "views_2x3"},
        }


class UCF101Config(FolderConfig):
    """UCF101 with PNL's settings: 32 frames for ResNet-50; one of the three official splits.

    Attributes:
        split: 1, 2 or 3; papers report the mean over the three.
        annotation: the folder with `trainlist01.txt`, `testlist01.txt`, ...
        videos_folder: holds `<class>/<video>.avi`.
    """

    title: ClassVar[str] = "UCF101: 101 human actions, one of three official splits"
    needs: ClassVar[str] = "UCF-101/<class>/*.avi and ucfTrainTestlist/trainlist01.txt, testlist01.txt, ..."
    sizes: ClassVar[dict[int, tuple[int, int]]] = {1: (9_537, 3_783), 2: (9_586, 3_734), 3: (9_624, 3_696)}

    name: str = "ucf101"
    dataset: str = "ucf101"
    class_count: int | None = Field(101, ge=2)
    split: Literal[1, 2, 3] = 1
    annotation: str | tuple[str, str] | None = "ucfTrainTestlist"
    videos_folder: str = "UCF-101"
    sampling: Literal["segments", "dense"] = "dense"
    stride: int = Field(2, ge=1)
    flip: bool = True

    def read(self) -> Listing:
        clips, problems = [], []
        for file in self.annotation_files():
            lines, wrong = lists.read_lines(file)
            problems += wrong
            paths = [line.rsplit(" ", 1)[0] if line.rsplit(" ", 1)[-1].isdigit() else line.strip() for line in lines]
            bad = [number for number, path in enumerate(paths, 1) if "/" not in path]
            problems += [f"{file}: <class>/<video> is needed, see {lists.examples('line', bad)}"] if bad else []
            clips.append([Clip(f"{self.videos_folder}/{path}", path.split("/")[0]) for path in paths if "/" in path])
        return lists.on_disk(self.folder, clips[0], clips[1], problems)

    def clips(self) -> tuple[int, int] | None:
        return super().clips() or self.sizes[self.split]

    def annotation_files(self) -> list[Path]:
        return [self.folder / f"{self.annotation}/{kind}list0{self.split}.txt" for kind in ("train", "test")]

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "c2d_resnet50", "frames": 32},
            "recipe": {"name": "pnl"},
            "protocol": {"name": "centre"},
        }


class ImageNetConfig(FolderConfig):
    """ImageNet (ILSVRC 2012) with BAT's settings."""

    title: ClassVar[str] = "ImageNet: 1000 classes of images"
    kind: ClassVar[Kind] = "image"
    needs: ClassVar[str] = "train/<class>/*.JPEG and val/<class>/*.JPEG"
    nominal: ClassVar[tuple[int, int]] = (1_281_167, 50_000)

    name: str = "imagenet"
    dataset: str = "imagenet"
    class_count: int | None = Field(1000, ge=2)
    crop: Literal["random", "corners", "area", "centre"] = "area"
    flip: bool = True

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "resnet50"},
            "recipe": {"name": "bat_imagenet"},
            "protocol": {"name": "centre"},
        }


def _of(split: str, rows: list[dict[str, str]]) -> Iterator[dict[str, str]]:
    """Rows of a split; the official lists spell out what folders shorten."""
    names = {"val": {"val", "validate", "validation"}}.get(split, {split})
    return (row for row in rows if row["split"] in names)


def _files_below(root: Path, split: str) -> Iterator[str]:
    for folder, _, names in os.walk(root / split):
        yield from (Path(folder, name).relative_to(root).as_posix() for name in names)
