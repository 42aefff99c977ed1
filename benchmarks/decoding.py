"""Clips per second from video files: ours, with two workers, against plain PyAV that reads every file whole.

    python -m benchmarks.decoding [FOLDER] [--clips 24] [--repeats 3]

Both give the same thing: 8 frames, one in 8, from a random place of the video, shorter side 256, cropped to 224, as a
normalised float tensor. The plain way decodes all frames one after the other in one process and picks the 8; with
PyAV's automatic threading it is measured too. Ours is `FolderClips` as a trial uses it, with two data workers. The
ways take turns, so that a machine that slows down slows all of them; every time is kept and the median is the result.
CPU time per clip is told as well: where other work takes the cores, two workers cannot be faster than one.
Without FOLDER, videos of the usual kind are made first: 10 s of 340x256, 30 frames per second, H.264 as x264 does it
by default (places to start up to 250 frames apart), a noisy moving texture.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import av
import numpy as np
import torch

from workloads.data import augment, store
from workloads.data.annotations import VIDEO_SUFFIXES
from workloads.data.folder import FolderClips
from workloads.data.folder_config import FolderConfig
from workloads.registry import parse_backbone
from workloads.spec import RunContext

FRAMES, STRIDE, SIZE, SHORT = 8, 8, 224, 256
WORKERS = 2


def make_videos(root: Path, count: int) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (40, 40, 3), np.uint8)
    texture = coarse.repeat(16, 0).repeat(16, 1)
    for number in range(count):
        path = root / ("train" if number else "val") / f"class{number % 2}" / f"{number:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as output:
            stream: Any = output.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 340, 256, "yuv420p"
            for time in range(300):
                top, left = (time + 3 * number) % 300, 120 + round(100 * np.sin(number + time / 40))
                picture = texture[top : top + 256, left : left + 340]
                noisy = np.clip(picture + generator.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
            output.mux(stream.encode(None))
    (root / "val" / "class1").mkdir(parents=True, exist_ok=True)


def whole_file(path: Path, *, thread_type: str, generator: np.random.Generator) -> torch.Tensor:
    """What a first data loader looks like: every frame to an array, then the choice."""
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = thread_type
        for frame in container.decode(stream):
            scale = SHORT / min(frame.width, frame.height)
            size = (round(frame.width * scale), round(frame.height * scale))
            frames.append(frame.reformat(*size, format="rgb24").to_ndarray())
    start = int(generator.integers(0, max(1, len(frames) - STRIDE * (FRAMES - 1))))
    chosen = np.stack([frames[(start + STRIDE * step) % len(frames)] for step in range(FRAMES)])
    window = augment.centre(chosen.shape[1], chosen.shape[2], SIZE)
    clip = augment.to_clip(augment.crop(chosen, window), SIZE)
    return augment.normalise(clip[None], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def ways(root: Path, clips: int) -> dict[str, Callable[[int], int]]:
    """Name -> reads `clips` clips, differently each time it is called, and says how many they were."""
    config = FolderConfig(
        root=str(root), sampling="dense", stride=STRIDE, jitter=(1.0, 1.0), crop="centre", class_count=1000
    )
    paths = [root / clip.path for clip in config.listing().train][:clips]
    backbone = parse_backbone({"name": "c2d_resnet50", "frames": FRAMES, "size": SIZE})
    store.LIMIT_BYTES = 0  # as for data that do not fit in memory

    def plain(thread_type: str) -> Callable[[int], int]:
        def read(repeat: int) -> int:
            generator = np.random.default_rng(repeat)
            return sum(len(whole_file(path, thread_type=thread_type, generator=generator)) for path in paths)

        return read

    def ours(workers: int) -> Callable[[int], int]:
        nowhere = Path(tempfile.gettempdir())
        context = RunContext(cache_dir=nowhere, checkpoint_dir=nowhere, data_workers=workers)
        source = FolderClips(config, backbone, context, seed=0)
        batches = np.array_split(np.arange(len(paths)), max(1, len(paths) // 4))
        return lambda repeat: sum(len(batch.inputs) for batch in source.training(repeat, batches))

    return {
        "plain, whole file": plain("SLICE"),
        "plain, whole file, automatic threads": plain("AUTO"),
        "ours, in place": ours(0),
        f"ours, {WORKERS} workers": ours(WORKERS),
    }


def measure(root: Path, clips: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    readers = ways(root, clips)
    samples: dict[str, list[float]] = {name: [] for name in readers}
    busy: dict[str, list[float]] = {name: [] for name in readers}
    for repeat in range(repeats):
        for name, read in readers.items():
            started, started_cpu = perf_counter(), process_time()
            count = read(repeat)
            samples[name].append(count / (perf_counter() - started))
            busy[name].append(1000 * (process_time() - started_cpu) / count)
    rates = {name: median(found) for name, found in samples.items()}
    best = rates[f"ours, {WORKERS} workers"]
    return {
        "clips_per_second": rates,
        "cpu_ms_per_clip": {name: median(found) for name, found in busy.items()},
        "samples": samples,
        "ratio": best / rates["plain, whole file"],
        "ratio_to_automatic_threads": best / rates["plain, whole file, automatic threads"],
        "clips": clips,
        "torchcodec": "not installed, not compared",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="a data set: <root>/<split>/<class>/<clip>")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        root = given.folder or Path(made)
        if given.folder is None:
            make_videos(root, given.clips + 1)
        elif not any(path.suffix in VIDEO_SUFFIXES for path in root.rglob("*")):
            parser.error(f"no videos in {root}")
        print(json.dumps(measure(root, given.clips, given.repeats), indent=2))


if __name__ == "__main__":
    main()
