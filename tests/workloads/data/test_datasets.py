import csv

import numpy as np
import pytest

from workloads.data.datasets import (
    ImageNetConfig,
    Kinetics400Config,
    Kinetics700Config,
    MiniKinetics200Config,
    SomethingV1Config,
    UCF101Config,
)
from workloads.data.folder_config import FolderConfig
from workloads.protocols import PROTOCOLS
from workloads.recipes import RECIPES
from workloads.registry import parse_backbone, parse_workload

PUBLISHED = {
    "kinetics400": (400, 246_535, 19_907),
    "kinetics600": (600, 392_622, 30_001),
    "kinetics700": (700, 545_317, 35_000),
    "mini-kinetics200": (200, 80_000, 5_000),
    "something-v1": (174, 86_017, 11_522),
    "ucf101": (101, 9_537, 3_783),
    "imagenet": (1000, 1_281_167, 50_000),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_data_set_can_be_planned_without_the_data(name):
    config = parse_workload(name)
    classes, train, validation = PUBLISHED[name]
    assert isinstance(config, FolderConfig)
    assert config.classes == classes
    assert config.clips() == (train, validation)
    assert config.needs in config.problems()[0]
    defaults = config.defaults()
    backbone = parse_backbone({"classes": classes, "channels": config.channels, **defaults["backbone"]})
    assert backbone.problems() == []
    assert defaults["recipe"]["name"] in RECIPES
    assert defaults["protocol"]["name"] in PROTOCOLS


def test_flips_are_off_where_left_and_right_mean_something():
    assert not SomethingV1Config().flip
    assert Kinetics400Config().flip
    assert ImageNetConfig().flip


def test_the_training_of_each_paper():
    assert (Kinetics400Config().sampling, Kinetics400Config().stride) == ("dense", 8)
    assert Kinetics700Config().sampling == "segments"
    assert Kinetics700Config().defaults()["backbone"]["name"] == "tsn_se_resnext101_32x4d"
    assert ImageNetConfig().crop == "area"


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def write_rows(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


OFFICIAL = ("label", "youtube_id", "time_start", "time_end", "split")


def test_official_kinetics_lists_find_videos_and_count_the_missing(tmp_path):
    rows = [("zumba", "abc_-DEFghi", 12, 22), ("archery", "gone", 0, 10), ("archery", "k", 1, 11)]
    rows = [(*row, "train") for row in rows]
    write_rows(tmp_path / "train.csv", OFFICIAL, rows)
    write_rows(tmp_path / "val.csv", OFFICIAL, [("zumba", "v", 3, 13, "validate"), ("archery", "w", 3, 13, "validate")])
    touch(tmp_path, "train/zumba/abc_-DEFghi_000012_000022.mp4", "train/k.mkv")
    touch(tmp_path, "val/v_000003_000013.mp4", "val/archery/w.webm")
    config = Kinetics400Config(root=str(tmp_path), annotation=("train.csv", "val.csv"))
    found = config.listing()
    assert [(clip.path, clip.label) for clip in found.train] == [
        ("train/zumba/abc_-DEFghi_000012_000022.mp4", "zumba"),
        ("train/k.mkv", "archery"),
    ]
    assert [clip.path for clip in found.validation] == ["val/v_000003_000013.mp4", "val/archery/w.webm"]
    assert found.missing == ("train/gone_000000_000010",)
    assert config.problems() == []
    assert config.dataset == "kinetics400"


def test_a_class_whose_videos_are_all_gone_keeps_its_place(tmp_path):
    rows = [("a", "gone", 0, 1, "train"), ("b", "x", 0, 1, "train"), ("b", "y", 0, 1, "val")]
    write_rows(tmp_path / "list.csv", OFFICIAL, rows)
    touch(tmp_path, "train/x.mp4", "val/y.mp4")
    assert Kinetics400Config(root=str(tmp_path), annotation="list.csv").listing().classes == ("a", "b")


def test_kinetics_takes_plain_lists_and_folders_too(tmp_path):
    write_rows(tmp_path / "list.csv", ("path", "label", "split"), [("1.mp4", "a", "train"), ("2.mp4", "a", "val")])
    touch(tmp_path, "1.mp4", "2.mp4", "train/b/3.mp4", "val/b/4.mp4")
    assert Kinetics400Config(root=str(tmp_path), annotation="list.csv").listing().classes == ("a",)
    assert Kinetics400Config(root=str(tmp_path)).listing().classes == ("b",)
    write_rows(tmp_path / "odd.csv", ("label", "split", "url"), [("a", "train", "u")])
    assert "all of label, youtube_id" in Kinetics400Config(root=str(tmp_path), annotation="odd.csv").problems()[0]


@pytest.fixture
def many(tmp_path):
    for split in ("train", "val"):
        touch(tmp_path, *(f"{split}/c{label}/{number}.mp4" for label in range(8) for number in range(5)))
    return tmp_path


def test_mini_kinetics_is_drawn_by_a_stated_seed(many):
    def drawn(**fields):
        sizes = {"draw_classes": 3, "draw_train": 2, "draw_validation": 1, "class_count": 3}
        return MiniKinetics200Config(root=str(many), **{**sizes, **fields}).listing()

    assert (len(drawn().train), len(drawn().validation), len(drawn().classes)) == (6, 3, 3)
    assert drawn() == drawn(draw_seed=0)
    assert len({drawn(draw_seed=seed).classes for seed in range(4)}) > 1


def test_mini_kinetics_takes_a_list_of_classes_or_of_clips(many):
    (many / "classes.txt").write_text("c1\nc6\n\nnot there\n")
    config = MiniKinetics200Config(root=str(many), class_list="classes.txt", draw_train=2, draw_classes=2)
    assert config.listing().classes == ("c1", "c6")
    assert len(config.listing().train) == 4
    assert "classes without clips: not there" in config.problems()[0]
    rows = [("train/c1/0.mp4", "c1", "train"), ("train/c1/1.mp4", "c1", "train"), ("val/c1/0.mp4", "c1", "val")]
    write_rows(many / "list.csv", ("path", "label", "split"), rows)
    listed = MiniKinetics200Config(root=str(many), annotation="list.csv", draw_train=1).listing()
    assert len(listed.train) == 2  # a list of clips is taken as it is


def test_something_reads_frame_folders_and_official_lists(tmp_path):
    (tmp_path / "something-something-v1-train.csv").write_text("7;Holding [something]\n12;Turning; twice\n")
    (tmp_path / "something-something-v1-validation.csv").write_text("9;Holding [something]\n3;Turning; twice\n")
    for video in (7, 12, 9, 3):
        touch(tmp_path, f"20bn-something-something-v1/{video}/00001.jpg")
    config = SomethingV1Config(root=str(tmp_path))
    assert config.problems() == []
    assert config.listing().classes == ("Holding [something]", "Turning; twice")
    assert [clip.path for clip in config.listing().train] == [f"20bn-something-something-v1/{n}" for n in (7, 12)]
    before = config.fingerprint()
    touch(tmp_path, "20bn-something-something-v1/7/00002.jpg")
    (tmp_path / "something-something-v1-train.csv").touch()
    assert SomethingV1Config(root=str(tmp_path)).fingerprint() != before


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_has_three_official_splits(tmp_path, split):
    folder = tmp_path / "ucfTrainTestlist"
    folder.mkdir()
    (folder / f"trainlist0{split}.txt").write_text("Archery/v_Archery_g08_c01.avi 1\nBowling/v_Bowling_g08_c01.avi 2\n")
    (folder / f"testlist0{split}.txt").write_text("Archery/v_Archery_g01_c01.avi\nBowling/v_Bowling_g01_c01.avi\n")
    names = [f"{label}/v_{label}_g{group}_c01.avi" for label in ("Archery", "Bowling") for group in ("08", "01")]
    touch(tmp_path, *(f"UCF-101/{name}" for name in names))
    config = UCF101Config(root=str(tmp_path), split=split)
    assert config.problems() == []
    assert config.clips() == (2, 2)
    assert config.listing().classes == ("Archery", "Bowling")
    assert np.sum(UCF101Config(split=split).clips()) == 13_320
    other = UCF101Config(root=str(tmp_path), split=split % 3 + 1)
    assert "cannot be read" in other.problems()[0]
