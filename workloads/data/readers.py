"""One way to read each kind of clip, and what each would take in memory."""

from __future__ import annotations

from pathlib import Path

from workloads.data.decode import probe, read_frames, read_image
from workloads.data.folder_config import Kind
from workloads.data.frames import frame_names, read_frame_folder
from workloads.data.images import read_single_image
from workloads.data.pictures import Choose, Pixels, Scale

_WIDER = 4 / 3  # a video's sides where the container does not tell them


class Reader:
    """Reads the clips below a root.

    Args:
        root: of the data set.
        kind: what its clips are.
        scale: size and colour of decoded frames.
    """

    def __init__(self, root: Path, kind: Kind, scale: Scale) -> None:
        self.root, self.kind, self.scale = root, kind, scale

    def read(self, path: str, choose: Choose) -> Pixels:
        """The chosen frames of a clip, `[t, H, W, channels]`.

        Raises:
            UnreadableVideo: no such frames.
        """
        if self.kind == "frames":
            return read_frame_folder(self.root / path, choose, self.scale)
        if self.kind == "image":
            return read_single_image(self.root / path, choose, self.scale)
        return read_frames(self.root / path, choose, self.scale)

    def frame_bytes(self, path: str) -> int:
        """Decoded size of a clip, from its headers.

        Raises:
            UnreadableVideo: it cannot be opened.
        """
        assert self.scale.side is not None, "frames of their own size have no size known beforehand"
        if self.kind == "video":
            info = probe(self.root / path)
            short, long = sorted((info.width, info.height))
            ratio = long / short if short else _WIDER
            return round(info.frames * self.scale.side**2 * ratio) * self.scale.channels
        if self.kind == "image":
            return read_image(self.root / path, self.scale).size
        names = frame_names(self.root / path)
        return len(names) * read_image(self.root / path / names[0], self.scale).size
