"""Frames of video and image files: the ones asked for, or a typed error. Only this and `pictures` import av (PyAV).

What makes "frame number i" mean something: frames are numbered in display order. Packets are read first (that decodes
nothing), which gives the time stamp of every frame and the places where decoding can start; then only the groups of
pictures that hold wanted frames are decoded. Where time stamps are missing, doubled or not what the decoder gives, or
the container does not lead to where it was sent, the file is decoded from its start and its frames are counted.

A decoder that met an error goes on with invented pictures, and so do all pictures that build on them: every frame
between an error and the next place where decoding starts afresh counts as unreadable.

Errors are `UnreadableVideo`, whatever the file holds: FFmpeg gets regular files only (a pipe would block it), looks
at the clock between packets, and never sees pictures above `MAX_PIXELS`.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from workloads.data.pictures import Choose, Pixels, Scale, UnreadableVideo, check_size, resampled, stacked, to_pixels

SECONDS = 60.0  # for one file


@dataclass(frozen=True)
class VideoInfo:
    """What a file says about itself, without decoding it.

    Attributes:
        frames: packets of its video stream, which is the number of frames in all but odd files.
        seconds: duration; 0 where unknown.
        rate: frames per second; 0 where unknown.
        width: as stored; 0 where unknown.
        height: as stored; 0 where unknown.
        codec: name of the decoder.
        key_frames: places where decoding can start.
    """

    frames: int
    seconds: float
    rate: float
    width: int
    height: int
    codec: str
    key_frames: int


def read_frames(path: Path, choose: Choose, scale: Scale, *, threads: int = 1, seconds: float = SECONDS) -> Pixels:
    """The chosen frames of a video.

    Args:
        path: the file.
        choose: gets the number of frames and says which ones; may be called twice if the file misstates its number.
        scale: size and colour of the result.
        threads: of the decoder; they change nothing but speed.
        seconds: time limit.

    Returns:
        `[t, H, W, channels]`, upright.

    Raises:
        UnreadableVideo: no such frames.
    """
    deadline = monotonic() + seconds
    with _opened(path, threads) as (container, stream):
        table = _packets(container, stream, deadline)
        if table.sound:
            wanted = _checked(choose(len(table.times)), len(table.times))
            found = _decode_wanted(container, stream, table, wanted, scale, deadline)
            if found is not None:
                return found
    with _opened(path, threads) as (container, stream):
        count = sum(1 for _ in _decode_all(container.demux(stream), stream, deadline))
        if not count:
            raise UnreadableVideo("no frame could be decoded")
    wanted = _checked(choose(count), count)
    with _opened(path, threads) as (container, stream):
        every = enumerate(_decode_all(container.demux(stream), stream, deadline))
        made = {at: to_pixels(frame, scale) for at, frame in every if at in wanted}
    return stacked([made[at] for at in wanted.tolist()])


def read_image(path: Path, scale: Scale) -> Pixels:
    """An image, `[1, H, W, channels]`. The content decides its format, not the name.

    Raises:
        UnreadableVideo: not an image.
    """
    with _typed_errors(path):
        _require_file(path)
        with av.open(io.BytesIO(path.read_bytes()), metadata_errors="replace") as container:
            stream = _video_stream(container, 1)
            for frame in _decode_all(container.demux(stream), stream, monotonic() + SECONDS):
                return stacked([to_pixels(frame, scale)])
        raise UnreadableVideo("no image in it")


def probe(path: Path, *, seconds: float = SECONDS) -> VideoInfo:
    """What a video says about itself.

    Raises:
        UnreadableVideo: it cannot be opened or holds no video; whether its frames decode is another question.
    """
    with _opened(path, 1) as (container, stream):
        table = _packets(container, stream, monotonic() + seconds)
        if not table.packets:
            raise UnreadableVideo("no packets in its video stream")
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        duration = float(stream.duration * stream.time_base) if stream.duration else 0.0
        context = stream.codec_context
        length = duration or (table.packets / rate if rate else 0.0)
        return VideoInfo(table.packets, length, rate, context.width, context.height, context.name, len(table.keys))


def shrink(source: Path, target: Path, side: int, *, key_every: int = 12, quality: int = 18) -> int:
    """Write a copy with the given shorter side that is fast to read: H.264, no sound, many key frames.

    Args:
        source: any video.
        target: an `.mp4` file that does not exist yet.
        side: shorter side of the copy in pixels, made even; smaller videos keep their size.
        key_every: frames between places where decoding can start.
        quality: x264's constant rate factor; 18 looks like the source.

    Returns:
        Frames written. Time stamps are evenly spaced afterwards, frame numbers stay.

    Raises:
        UnreadableVideo: the source cannot be decoded to its end.
        OSError: the target cannot be written.
    """
    deadline = monotonic() + 60 * SECONDS
    written = 0
    with _opened(source, 0) as (container, stream), av.open(str(target), "w", format="mp4") as output:
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25).limit_denominator(1000)
        copy: Any = None
        for frame in _decode_all(container.demux(stream), stream, deadline):
            pixels = to_pixels(frame, Scale(min(side, frame.width, frame.height)))
            even = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]
            if copy is None:
                copy = output.add_stream("libx264", rate=rate, options={"crf": str(quality), "g": str(key_every)})
                copy.height, copy.width = even.shape[:2]
                copy.pix_fmt = "yuv420p"
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
            output.mux(copy.encode(resampled(picture, copy.width, copy.height, "yuv420p")))
            written += 1
        if copy is None:
            raise UnreadableVideo("no frame could be decoded")
        output.mux(copy.encode(None))
    return written


@dataclass(frozen=True)
class _Table:
    """What the packets of a stream tell.

    Attributes:
        packets: how many.
        times: time stamps of the frames in display order.
        keys: time stamps of those where decoding can start.
        sound: whether every packet has a time stamp of its own.
    """

    packets: int
    times: list[int]
    keys: list[int]
    sound: bool

    def start_for(self, time: int) -> int:
        """The time stamp to start decoding at for the frame at `time`."""
        before = bisect_right(self.keys, time)
        return self.keys[before - 1] if before else self.times[0]


def _packets(container: Any, stream: Any, deadline: float) -> _Table:
    stamps: list[int | None] = []
    keys: list[int] = []
    try:
        for packet in container.demux(stream):
            _in_time(deadline)
            if packet.size == 0 or packet.is_discard:
                continue
            stamps.append(packet.pts)
            if packet.is_keyframe and packet.pts is not None:
                keys.append(packet.pts)
    except av.FFmpegError:
        if not stamps:
            raise
        # A container that breaks off: what was listed so far can be asked for.
    times = sorted(stamp for stamp in stamps if stamp is not None)
    sound = bool(times) and bool(keys) and len(set(times)) == len(stamps)
    return _Table(len(stamps), times, sorted(keys), sound)


def _decode_wanted(
    container: Any, stream: Any, table: _Table, wanted: NDArray[np.int64], scale: Scale, deadline: float
) -> Pixels | None:
    """The wanted frames by time stamp; None if packets or decoder give other time stamps than those listed."""
    times = [table.times[at] for at in wanted.tolist()]
    left = sorted(set(times))
    made: dict[int, Pixels] = {}
    position: int | None = None  # time stamp of the last decoded frame; None before the first
    every = frozenset(left)
    frames: Iterator[Any] = iter(())
    while left:
        start = table.start_for(left[0])
        if position is None or start > position:
            # Cheaper to start at that key frame than to decode up to it.
            packets = _packets_from(container, stream, start)
            if packets is None:
                return None
            frames = _decode_all(packets, stream, deadline, every)
        position = _next_time(frames, left[0], made, every, scale)
        if position is None:
            return None
        left = [time for time in left if time > position]
    if any(time not in made for time in times):
        return None
    return stacked([made[time] for time in times])


def _packets_from(container: Any, stream: Any, start: int) -> Iterator[Any] | None:
    """The packets from a key frame at time stamp `start` or before; None if the container leads elsewhere.

    Some containers lead to a packet that builds on others. Decoders make a picture of it without saying that it is
    invented.
    """
    try:
        container.seek(start, stream=stream, backward=True)
    except av.FFmpegError:
        return None
    packets: Iterator[Any] = container.demux(stream)
    first = next(packets, None)
    if first is None or not first.is_keyframe or first.pts is None or first.pts > start:
        return None
    return chain([first], packets)


def _next_time(
    frames: Iterator[Any], goal: int, made: dict[int, Pixels], wanted: frozenset[int], scale: Scale
) -> int | None:
    """Decode until the frame at `goal` is made; the time stamp reached, or None if it is not among the frames."""
    for frame in frames:
        if frame.pts is None or frame.pts > goal:
            return None
        if frame.pts in wanted:
            made[frame.pts] = to_pixels(frame, scale)
        if frame.pts == goal:
            return goal
    return None


def _decode_all(
    packets: Iterator[Any], stream: Any, deadline: float, wanted: frozenset[int] | None = None
) -> Iterator[Any]:
    """Frames in display order.

    Args:
        packets: from the start of the stream or a place where decoding can start.
        stream: their stream.
        deadline: on the monotonic clock.
        wanted: time stamps of the frames that matter: others are left undecoded where no frame builds on them.

    Raises:
        UnreadableVideo: the time is up, or a damaged frame is reached.
    """
    count, skips = 0, ""
    context = stream.codec_context
    try:
        for packet in packets:
            if wanted is not None:
                skip = "DEFAULT" if packet.pts is None or packet.pts in wanted else "NONREF"
                if skip != skips:
                    context.skip_frame = skips = skip
            for frame in packet.decode():
                _in_time(deadline)
                check_size(frame.width, frame.height)
                if frame.is_corrupt:
                    raise UnreadableVideo(f"damaged after {count} frames")
                count += 1
                yield frame
    except av.FFmpegError as error:
        raise UnreadableVideo(f"after {count} frames: {_reason(error)}") from error


@contextmanager
def _opened(path: Path, threads: int) -> Iterator[tuple[Any, Any]]:
    """The file and its video stream, ready to decode with so many threads (0: as many as there are cores)."""
    with _typed_errors(path):
        _require_file(path)
        with av.open(str(path), metadata_errors="replace") as container:
            yield container, _video_stream(container, threads)


@contextmanager
def _typed_errors(path: Path) -> Iterator[None]:
    """Every error about the content or the reading of `path` becomes `UnreadableVideo` that names it."""
    try:
        yield
    except UnreadableVideo as error:
        raise UnreadableVideo(f"{path}: {error}") from error.__cause__
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideo(f"{path}: {_reason(error)}") from error


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise UnreadableVideo("a folder or a special file, not a video" if path.exists() else "no such file")
    if path.stat().st_size == 0:
        raise UnreadableVideo("the file is empty")


def _video_stream(container: Any, threads: int) -> Any:
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        raise UnreadableVideo(f"no video stream in it, only {', '.join(kinds)}")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise UnreadableVideo("this build of FFmpeg has no decoder for its video stream")
    check_size(stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.thread_count = threads
    stream.thread_type = "SLICE" if threads == 1 else "AUTO"
    return stream


def _checked(wanted: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    assert wanted.size, "no frame was chosen"
    assert 0 <= wanted.min() <= wanted.max() < count, "frames were chosen that do not exist"
    return wanted


def _in_time(deadline: float) -> None:
    if monotonic() > deadline:
        raise UnreadableVideo("the time limit for one file is over")


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
