"""Clips per second from video files: ours, with two workers, against plain PyAV that reads every file whole.

    python -m benchmarks.decoding [FOLDER ...] [--clips 16] [--repeats 5] [--out FILE]

All give the same thing: 8 frames, one in 8, from a random place of the video, shorter side 256, cropped to 224, as a
normalised float tensor. The plain way decodes all frames one after the other in one process and picks the 8; with
PyAV's automatic threading it is measured too. Ours is `FolderClips` as a trial uses it, with two data workers.
torchcodec is measured where it can be imported (it needs FFmpeg's shared libraries). The ways take turns, so that a
machine that slows down slows all of them; every time is kept. A ratio is the median over turns of the ratio within a
turn. CPU time per clip is told as well: where other work takes the cores, two workers cannot be faster than one.

Videos of the usual kind are made first: 10 s of 340x256, 30 frames per second, H.264 as x264 does it by default (places
to start up to 250 frames apart), a noisy moving texture. Each FOLDER, `<root>/train/<class>/<clip>`, is one more case.
Results go to `benchmarks/results/decoding-cpu.json`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import av
import numpy as np
import torch

from benchmarks import record
from workloads.data import augment, store
from workloads.data.annotations import VIDEO_SUFFIXES
from workloads.data.folder import FolderClips
from workloads.data.folder_config import FolderConfig
from workloads.registry import parse_backbone
from workloads.spec import RunContext

FRAMES, STRIDE, SIZE, SHORT = 8, 8, 224, 256
WORKERS = 2
OURS, THEIRS = f"ours, {WORKERS} workers", f"torchcodec, {WORKERS} workers"


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

    found = {
        "plain, whole file": plain("SLICE"),
        "plain, whole file, automatic threads": plain("AUTO"),
        "ours, in place": ours(0),
        OURS: ours(WORKERS),
    }
    if isinstance(torchcodec_of(), str):
        return found
    return {**found, THEIRS: lambda repeat: with_torchcodec(paths, repeat)}


def torchcodec_of() -> Any:
    """torchcodec's decoders, or why there are none."""
    try:
        from torchcodec import decoders
    except (ImportError, OSError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return decoders


def with_torchcodec(paths: list[Path], repeat: int) -> int:
    from torchcodec.transforms import Resize

    decoder = torchcodec_of().VideoDecoder

    def read(number: int) -> torch.Tensor:
        open_as = {"source": str(paths[number]), "seek_mode": "approximate", "num_ffmpeg_threads": 1}
        known = decoder(**open_as).metadata
        scale = SHORT / min(known.height, known.width)
        size = (round(known.height * scale), round(known.width * scale))
        generator = np.random.default_rng(1000 * repeat + number)
        start = int(generator.integers(0, max(1, known.num_frames - STRIDE * (FRAMES - 1))))
        wanted = [(start + STRIDE * step) % known.num_frames for step in range(FRAMES)]
        frames = decoder(**open_as, transforms=[Resize(size=size)]).get_frames_at(wanted).data
        top, left = (size[0] - SIZE) // 2, (size[1] - SIZE) // 2
        clip = frames[:, :, top : top + SIZE, left : left + SIZE].transpose(0, 1)
        return augment.normalise(clip[None], (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    with ThreadPoolExecutor(WORKERS) as pool:
        return sum(len(clip) for clip in pool.map(read, range(len(paths))))


def measure(root: Path, clips: int, repeats: int) -> dict[str, Any]:
    readers = ways(root, clips)
    samples: dict[str, list[float]] = {name: [] for name in readers}
    busy: dict[str, list[float]] = {name: [] for name in readers}
    for repeat in range(repeats):
        for name, read in readers.items():
            started, started_cpu = perf_counter(), process_time()
            count = read(repeat)
            samples[name].append(count / (perf_counter() - started))
            busy[name].append(1000 * (process_time() - started_cpu) / count)
    others = [name for name in readers if name != OURS]
    return {
        "clips": clips,
        "clips_per_second": {name: median(found) for name, found in samples.items()},
        "cpu_ms_per_clip": {name: median(found) for name, found in busy.items()},
        "ratio_to": {name: ratio(samples[OURS], samples[name]) for name in others},
        "cpu_ratio_to": {name: ratio(busy[name], busy[OURS]) for name in others},
        "samples": samples,
    }


def ratio(first: list[float], second: list[float]) -> float:
    """The median ratio within a turn."""
    return median(one / other for one, other in zip(first, second, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="data sets: <root>/train/<class>/<clip>")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="[default: benchmarks/results/decoding-cpu.json]")
    given = parser.parse_args()
    for folder in given.folders:
        if not any(path.suffix in VIDEO_SUFFIXES for path in folder.rglob("*")):
            parser.error(f"no videos in {folder}")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        make_videos(Path(made), given.clips + 1)
        cases = {"made, 340x256, 10 s": Path(made), **{folder.name: folder for folder in given.folders}}
        found = {name: measure(root, given.clips, given.repeats) for name, root in cases.items()}
    codec = torchcodec_of()
    reason = f"cannot be imported: {codec}" if isinstance(codec, str) else "measured"
    target = record.write("decoding", "cpu", {"torchcodec": reason, "goal": 3.0, "cases": found}, given.out)
    for name, case in found.items():
        print(name)
        for way, rate in case["clips_per_second"].items():
            compared = f", ours is {case['ratio_to'][way]:.1f} times as fast" if way in case["ratio_to"] else ""
            print(f"  {way}: {rate:.1f} clips/s, {case['cpu_ms_per_clip'][way]:.1f} ms CPU per clip{compared}")
    print(f"torchcodec: {reason}")
    print(target)


if __name__ == "__main__":
    main()
