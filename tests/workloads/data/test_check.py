import os
import shutil

import numpy as np
import pytest
from videos import make_folder, write_video

from workloads.data.check import SAMPLE, check, looked_at
from workloads.data.decode import probe
from workloads.data.folder_config import FolderConfig
from workloads.data.pack import pack


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "data", train=3, validation=2)


def test_a_sound_data_set_is_usable_and_described(root):
    ticks = []
    report = check(FolderConfig(root=str(root)), full=True, tick=lambda: ticks.append(1))
    assert report.usable
    assert report.train == {"left": 3, "right": 3}
    assert report.validation == {"left": 2, "right": 2}
    assert (report.looked_at, len(ticks), report.unreadable) == (10, 10, {})
    assert report.frames == (8, 8, 8)
    assert report.rate is not None
    assert report.rate.median == pytest.approx(10)
    assert report.shapes == {"32x32": 10}
    assert report.codecs == {"h264": 10}


def test_broken_videos_and_leaks_between_splits_are_found(root):
    shutil.copy(root / "train" / "left" / "001.mp4", root / "val" / "left" / "copy.mp4")
    (root / "train" / "right" / "000.mp4").write_bytes(b"no video")
    report = check(FolderConfig(root=str(root)), full=False)
    assert list(report.unreadable) == ["train/right/000.mp4"]
    assert "invalid data" in report.unreadable["train/right/000.mp4"]
    # The two splits of this data set are made of the same motions, so there are more pairs than the copy.
    assert ("train/left/001.mp4", "val/left/copy.mp4") in report.leaks
    assert not report.usable


def test_only_a_full_check_sees_damage_in_the_middle(tmp_path, root):
    path = root / "train" / "left" / "000.mp4"
    write_video(path, [frame for number in range(4) for frame in _noise(number)], key_every=4)
    content = bytearray(path.read_bytes())
    middle = content.index(b"mdat") + (content.rindex(b"moov") - content.index(b"mdat")) // 2
    content[middle - 400 : middle + 400] = os.urandom(800)
    path.write_bytes(content)
    config = FolderConfig(root=str(root))
    assert not check(config, full=False).unreadable
    assert list(check(config, full=True).unreadable) == ["train/left/000.mp4"]


def _noise(seed):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 255, (48, 48, 3), np.uint8) for _ in range(4)]


def test_large_data_sets_are_sampled_evenly(tmp_path):
    for split in ("train", "val"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(SAMPLE):
                (tmp_path / split / label / f"{number}.mp4").touch()
    listing = FolderConfig(root=str(tmp_path)).listing()
    chosen = looked_at(listing, full=False)
    assert len(chosen) == SAMPLE
    assert {clip.path.split("/")[0] for clip in chosen} == {"train", "val"}
    assert len(looked_at(listing, full=True)) == 4 * SAMPLE


def test_packing_copies_every_readable_video_once(tmp_path, root):
    (root / "train" / "right" / "002.mp4").write_bytes(b"no video")
    write_video(root / "train" / "left" / "big.avi", _big(), codec="mpeg4")
    config, target = FolderConfig(root=str(root)), tmp_path / "packed"
    report = pack(config, target, 16)
    assert (report.written, report.kept, list(report.unreadable)) == (10, 0, ["train/right/002.mp4"])
    copy = probe(target / "train" / "left" / "big.mp4")
    assert (copy.width, copy.height) == (24, 16)
    again = pack(config, target, 16)
    assert (again.written, again.kept) == (0, 10)
    packed = FolderConfig(root=str(target))
    listed = FolderConfig(root=str(target), annotation="annotation.csv")
    assert packed.clips() == listed.clips() == (6, 4)
    assert packed.problems() == listed.problems() == []
    assert not list(target.rglob("*.aside"))


def _big():
    return [np.full((64, 96, 3), 10 * number, np.uint8) for number in range(6)]
