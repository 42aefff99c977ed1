"""Single images as clips of one frame, as ImageNet comes."""

from __future__ import annotations

from pathlib import Path

from workloads.data.decode import read_image
from workloads.data.pictures import Choose, Pixels, Scale


def read_single_image(path: Path, choose: Choose, scale: Scale) -> Pixels:
    """The image as often as it is chosen, `[t, H, W, channels]`.

    Raises:
        UnreadableVideo: not an image.
    """
    return read_image(path, scale)[choose(1)]
