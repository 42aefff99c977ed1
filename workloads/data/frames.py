"""Clips stored as folders of numbered images (`00001.jpg`, ...), as Something-Something V1 comes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from workloads.data.annotations import IMAGE_SUFFIXES
from workloads.data.decode import read_image
from workloads.data.pictures import Choose, Pixels, Scale, UnreadableVideo


def frame_names(folder: Path) -> list[str]:
    """The images of a folder in the order of their numbers: `2.jpg` comes before `10.jpg`.

    Raises:
        UnreadableVideo: no such folder, or no image in it.
    """
    try:
        names = [name for name in os.listdir(folder) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    except OSError as error:
        raise UnreadableVideo(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    if not names:
        raise UnreadableVideo(f"{folder}: no image in it")
    return sorted(names, key=_in_order)


def read_frame_folder(folder: Path, choose: Choose, scale: Scale) -> Pixels:
    """The chosen frames, `[t, H, W, channels]`; only those files are read.

    Raises:
        UnreadableVideo: a chosen image cannot be read, or the images differ in size.
    """
    names = frame_names(folder)
    wanted = choose(len(names)).tolist()
    made = {at: read_image(folder / names[at], scale) for at in dict.fromkeys(wanted)}
    if len({image.shape for image in made.values()}) > 1:
        raise UnreadableVideo(f"{folder}: its images differ in size")
    return np.concatenate([made[at] for at in wanted])


def _in_order(name: str) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d+", Path(name).stem)], name
