"""Labelled videos in a folder: `<root>/<split>/<class>/<clip>`, or a CSV list. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from workloads.data import annotations as lists
from workloads.data.annotations import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Listing
from workloads.registry import WorkloadConfig

if TYPE_CHECKING:
    from workloads.registry import Workload

Kind = Literal["video", "frames", "image", "features"]

# What may be unreadable before a trial fails; issue and design call it the 1 % rule.
MAY_SKIP = 0.01


class FolderConfig(WorkloadConfig):
    """Any labelled clips on disk.

    The root is not part of a trial's identity, so that the same data in another place is the same data: `dataset` is,
    and the fingerprint of the file list is compared before a finished trial is reused.

    Attributes:
        root: the folder of the data set.
        dataset: its name in results; the root's own name if not given.
        annotation: a CSV list with columns path, label, split (below the root), or one for each split; None: the
            folders.
        splits: names of the training and the validation split.
        class_count: outputs of the classifier; None: as many as there are on disk. Give it to plan without the data.
        colour: `rgb`, or `grey` for one channel.
        sampling: `segments` takes one frame from each of as many equal segments as the network has frames (a random
            one in training, the middle one in tests); `dense` takes frames `stride` apart (from a random start in
            training, around the middle in tests), starting over where the clip is too short.
        stride: of dense sampling, in frames.
        augment: False shows the same centre crop in every epoch.
        jitter: in training the frame is enlarged by a random factor in this range before it is cropped.
        crop: training crops are `random`, `corners` (one of four corners and the centre, several scales), `area`
            (random area and shape, as for images) or `centre`.
        flip: mirror half of the training clips; off wherever left and right mean something.
        mean: of the inputs per channel, in [0, 1]; grey inputs take the average of the three.
        std: likewise.
        draw_classes: use only so many classes, drawn by `draw_seed`; None: all.
        draw_train: use only so many training clips per class; None: all.
        draw_validation: likewise.
        draw_seed: of these draws.
    """

    title: ClassVar[str] = "Your own labelled videos"
    kind: ClassVar[Kind] = "video"
    nominal: ClassVar[tuple[int, int] | None] = None  # clips as published, to price plans made without the data
    tolerates_missing: ClassVar[bool] = False  # lists that name videos which no longer exist are normal here
    needs: ClassVar[str] = "train/<class>/*.mp4 and val/<class>/*.mp4, or a list"  # below the root

    name: str = "folder"
    root: str = ""
    dataset: str = ""
    annotation: str | tuple[str, str] | None = None
    splits: tuple[str, str] = ("train", "val")
    class_count: int | None = Field(None, ge=2)
    colour: Literal["rgb", "grey"] = "rgb"
    sampling: Literal["segments", "dense"] = "segments"
    stride: int = Field(8, ge=1)
    augment: bool = True
    jitter: tuple[float, float] = (1.0, 1.25)
    crop: Literal["random", "corners", "area", "centre"] = "random"
    flip: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    draw_classes: int | None = Field(None, ge=2)
    draw_train: int | None = Field(None, ge=1)
    draw_validation: int | None = Field(None, ge=1)
    draw_seed: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        unnamed = isinstance(given, dict) and not given.get("dataset") and not cls.model_fields["dataset"].default
        if unnamed and given.get("root"):
            return {**given, "dataset": Path(str(given["root"])).expanduser().resolve().name}
        return given

    @model_validator(mode="after")
    def _can_be_planned(self) -> Self:
        wrong = []
        if self.class_count is None and not self.folder.is_dir():
            wrong.append(f"{self._root_problem()}; to plan without the data, give class_count")
        if not 1.0 <= self.jitter[0] <= self.jitter[1]:
            wrong.append(f"jitter must be [low, high] with 1 <= low <= high, given {list(self.jitter)}")
        if self.splits[0] == self.splits[1]:
            wrong.append(f"splits must be two different names, given {list(self.splits)}")
        if min(self.std) <= 0:
            wrong.append(f"std must be positive, given {list(self.std)}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def folder(self) -> Path:
        """The root as a path; one that does not exist if no root is given."""
        return Path(self.root).expanduser() if self.root else Path("no root given")

    @property
    def classes(self) -> int:
        return self.class_count or max(2, len(self.listing().classes))

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @property
    def input_mean(self) -> tuple[float, ...]:
        """`mean` for each channel there is."""
        return self.mean if self.channels == 3 else (sum(self.mean) / 3,)

    @property
    def input_std(self) -> tuple[float, ...]:
        """`std` for each channel there is."""
        return self.std if self.channels == 3 else (sum(self.std) / 3,)

    def listing(self) -> Listing:
        """The clips on disk; empty without the data. Read once per process while the folders do not change."""
        if not self.folder.is_dir():
            return Listing()
        return _listing(self, _stamp(self))

    def read(self) -> Listing:
        """Read the lists and folders; `listing` is this, kept, with the draws applied."""
        if self.annotation is None:
            return lists.read_folders(self.folder, self.splits, self._suffixes())
        return lists.read_lists(self.folder, self.annotation_files(), self.splits)

    def drawn(self, found: Listing) -> Listing:
        """The subset that is used."""
        if (self.draw_classes, self.draw_train, self.draw_validation) == (None, None, None):
            return found
        every = len(found.train) + len(found.validation)
        return lists.draw(
            found,
            classes=self.draw_classes or len(found.classes),
            train=self.draw_train or every,
            validation=self.draw_validation or every,
            seed=self.draw_seed,
        )

    def annotation_files(self) -> list[Path]:
        """Every list that is read."""
        given = (self.annotation,) if isinstance(self.annotation, str) else self.annotation or ()
        return [self.folder / name for name in given]

    def clips(self) -> tuple[int, int] | None:
        found = self.listing()
        if found.train and found.validation:
            return len(found.train), len(found.validation)
        return self.nominal

    def problems(self) -> list[str]:
        if not self.folder.is_dir():
            return [self._root_problem()]
        found = self.listing()
        wrong = lists.problems(found, self.folder, self.class_count)
        listed = len(found.train) + len(found.validation) + len(found.missing)
        if found.missing and not self.tolerates_missing and len(found.missing) > MAY_SKIP * listed:
            wrong.append(
                f"{len(found.missing)} of {listed} listed clips are not in {self.folder}: "
                f"{lists.examples('', found.missing)}"
            )
        return wrong

    def fingerprint(self) -> str:
        if not self.folder.is_dir():
            return ""
        return _fingerprint(self, _stamp(self))

    def defaults(self) -> dict[str, Any]:
        # Found on 283 small depth clips: 45 s per trial on one core. Not from a paper.
        recipe = {"epochs": 20, "batch": 16, "lr": 5e-3, "weight_decay": 5e-2, "warmup_epochs": 2.0}
        return {
            "backbone": {"name": "tsm_tiny"},
            "recipe": {"name": "custom", **recipe},
            "protocol": {"name": "centre"},
        }

    def open(self) -> Workload:
        from workloads.data.folder import Folder

        return Folder(self)

    def _suffixes(self) -> frozenset[str] | None:
        return {"video": VIDEO_SUFFIXES, "image": IMAGE_SUFFIXES, "features": frozenset({".npz"})}.get(self.kind)

    def _root_problem(self) -> str:
        if not self.root:
            return f"no data: give the folder that holds {self.needs}, e.g. --set workload.root=/data/{self.name}"
        what = "is a file, not a folder" if self.folder.exists() else "does not exist"
        return f"workload.root {self.root} {what}: give the folder that holds {self.needs}"


@lru_cache(maxsize=64)
def _listing(config: FolderConfig, stamp: tuple[int, ...]) -> Listing:
    return config.drawn(config.read())


@lru_cache(maxsize=64)
def _fingerprint(config: FolderConfig, stamp: tuple[int, ...]) -> str:
    return lists.fingerprint(config.folder, config.listing())


def _stamp(config: FolderConfig) -> tuple[int, ...]:
    """Changes when clips are added to or taken from the folders, or a list is rewritten."""
    return tuple(_modified(config))


def _modified(config: FolderConfig) -> Iterator[int]:
    for file in config.annotation_files():
        yield file.stat().st_mtime_ns if file.exists() else 0
    for split in config.splits:
        below = config.folder / split
        if below.is_dir():
            yield below.stat().st_mtime_ns
            yield from (entry.stat().st_mtime_ns for entry in sorted(below.iterdir()) if entry.is_dir())
