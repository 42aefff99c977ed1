import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from orchestrator.trial import Trial
from workloads.data.folder_config import FolderConfig
from workloads.spec import TrialSpec


def lay_out(root, tree):
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    return root


SMALL = {
    "train/cat/1.mp4": "a",
    "train/dog/1.mp4": "bb",
    "train/dog/2.MKV": "c",
    "train/dog/notes.txt": "not a clip",
    "train/dog/.hidden.mp4": "",
    "val/cat/9.mp4": "d",
    "val/dog/9.mp4": "e",
}


def test_folders_give_clips_and_classes(tmp_path):
    config = FolderConfig(root=str(lay_out(tmp_path / "pets", SMALL)))
    assert config.dataset == "pets"
    assert config.classes == 2
    assert config.clips() == (3, 2)
    assert [clip.path for clip in config.listing().train] == ["train/cat/1.mp4", "train/dog/1.mp4", "train/dog/2.MKV"]
    assert config.problems() == []


def test_a_list_gives_clips_wherever_they_are(tmp_path):
    rows = "path,label,split,fps\na/1.mp4,cat,train,3\nb/2.mp4,dog,train,3\na/3.mp4,cat,val,3\nb/4.mp4,dog,val,3\n"
    extra = "c/5.mp4,cow,extra,3\n"
    files = {f"{folder}/{number}.mp4": "x" for folder, number in (("a", 1), ("b", 2), ("a", 3), ("b", 4), ("c", 5))}
    root = lay_out(tmp_path, {"list.csv": "\ufeff" + rows + extra, **files})
    config = FolderConfig(root=str(root), annotation="list.csv")
    assert config.clips() == (2, 2)
    assert config.listing().classes == ("cat", "dog")
    assert config.problems() == []


def test_two_lists_are_read_as_one(tmp_path):
    files = {
        "t.csv": "path,label,split\n1.mp4,cat,train\n2.mp4,dog,train\n",
        "v.csv": "path,label,split\n3.mp4,cat,val\n4.mp4,dog,val\n",
        **{f"{number}.mp4": "x" for number in (1, 2, 3, 4)},
    }
    config = FolderConfig(root=str(lay_out(tmp_path, files)), annotation=("t.csv", "v.csv"))
    assert config.clips() == (2, 2)


def test_everything_wrong_with_the_data_is_said_at_once(tmp_path):
    rows = ["path,label,split", "1.mp4,cat,train", "2.mp4,dog,train", "1.mp4,cat,train", "3.mp4,cow,val"]
    root = lay_out(tmp_path, {"list.csv": "\n".join(rows), **{f"{number}.mp4": "x" for number in (1, 2, 3)}})
    text = "\n".join(FolderConfig(root=str(root), annotation="list.csv", class_count=2).problems())
    assert "cow not in training" in text
    assert "cat, dog not in validation" in text
    assert "1 clips are listed more than once: 1.mp4" in text
    assert "3 classes are on disk, class_count is 2" in text


@pytest.mark.parametrize(
    ("tree", "fields", "expected"),
    [
        ({"train/cat/1.mp4": "x"}, {}, "no folder 'val' in it; its folders: train"),
        ({"train/cat/1.mp4": "x", "val/readme": ""}, {}, "no validation clips"),
        ({"train/cat/1.txt": "x", "val/cat/1.mp4": ""}, {}, "no training clips"),
        ({"train/cat/1.mp4": "x", "val/cat/1.mp4": ""}, {}, "all clips have one label"),
        ({"train/a": ""}, {"annotation": "none.csv"}, "none.csv: cannot be read: No such file"),
        ({"list.csv": "file,label\n"}, {"annotation": "list.csv"}, "path, label, split are needed, given file, label"),
        ({"list.csv": "path,label,split\n,cat,train\n"}, {"annotation": "list.csv"}, "must not be empty"),
        ({"list.csv": "path,label,split\n1.mp4,cat,test\n"}, {"annotation": "list.csv"}, "their splits: test"),
        (
            {"list.csv": "path,label,split\n1.mp4,cat,train\n2.mp4,cat,val\n", "1.mp4": ""},
            {"annotation": "list.csv"},
            "1 of 2 listed clips are not in",
        ),
    ],
)
def test_each_problem_is_named(tmp_path, tree, fields, expected):
    config = FolderConfig(root=str(lay_out(tmp_path, tree)), class_count=2, **fields)
    assert expected in "\n".join(config.problems())


def test_a_missing_root_is_a_problem_that_does_not_keep_from_planning(tmp_path):
    config = FolderConfig(root=str(tmp_path / "none"), class_count=7)
    assert (config.classes, config.clips(), config.fingerprint()) == (7, None, "")
    assert "does not exist" in config.problems()[0]
    assert "--set workload.root" in FolderConfig(class_count=7).problems()[0]
    with pytest.raises(ValidationError, match="to plan without the data, give class_count"):
        FolderConfig(root=str(tmp_path / "none"))


def test_wrong_choices_are_named_together(tmp_path):
    with pytest.raises(ValidationError) as caught:
        FolderConfig(class_count=2, jitter=(0.5, 2.0), splits=("train", "train"), std=(0.0, 1.0, 1.0))
    for part in ("jitter must be", "splits must be two different names", "std must be positive"):
        assert part in str(caught.value)


def test_the_fingerprint_knows_names_labels_splits_and_sizes_but_not_the_place(tmp_path):
    def fingerprint(name, tree):
        return FolderConfig(root=str(lay_out(tmp_path / name, tree))).fingerprint()

    first = fingerprint("a", SMALL)
    assert first == fingerprint("b", SMALL)
    assert first != fingerprint("c", {**SMALL, "train/cat/1.mp4": "longer"})
    assert first != fingerprint("d", {**SMALL, "train/cat/2.mp4": ""})
    moved = {("val/dog/1.mp4" if path == "train/dog/1.mp4" else path): text for path, text in SMALL.items()}
    assert first != fingerprint("e", moved)


def test_changes_on_disk_are_seen_by_a_running_process(tmp_path):
    root = lay_out(tmp_path, SMALL)
    config = FolderConfig(root=str(root))
    before = config.fingerprint()
    os.utime(root / "train" / "cat", ns=(0, 0))
    (root / "train" / "cat" / "new.mp4").write_text("x")
    assert config.clips() == (4, 2)
    assert config.fingerprint() != before


def test_the_same_data_in_another_place_are_the_same_trial(tmp_path):
    def trial_id(root, **fields):
        workload = {"name": "folder", "root": str(root), "dataset": "pets", **fields}
        rest = {"backbone": {"name": "resnet_tiny"}, "block": {"name": "none"}, "recipe": "quick", "protocol": "centre"}
        return Trial(TrialSpec.model_validate({"workload": workload, **rest, "seed": 0})).trial_id

    here, there = lay_out(tmp_path / "here", SMALL), lay_out(tmp_path / "there", SMALL)
    assert trial_id(here) == trial_id(there)
    assert trial_id(here) != trial_id(there, dataset="other")
    assert trial_id(here) != trial_id(there, flip=True)


def test_drawn_subsets_depend_on_the_seed_and_keep_the_order(tmp_path):
    tree = {
        f"{split}/{label}/{number}.mp4": "x" for split in ("train", "val") for label in "abcdef" for number in range(6)
    }
    root = str(lay_out(tmp_path, tree))

    def drawn(seed):
        fields = {"draw_classes": 3, "draw_train": 4, "draw_validation": 2, "draw_seed": seed}
        return FolderConfig(root=root, **fields).listing()

    first = drawn(0)
    assert (len(first.classes), len(first.train), len(first.validation)) == (3, 12, 6)
    assert first == drawn(0)
    assert len({drawn(seed).train for seed in range(5)}) == 5
    assert [clip.path for clip in first.train] == sorted(clip.path for clip in first.train)
    too_many = FolderConfig(root=root, draw_classes=9, class_count=9)
    assert "9 classes are to be drawn from 6" in too_many.problems()[0]


def test_configs_import_no_torch():
    code = (
        "import sys; from workloads.registry import workload_names, parse_workload;"
        "[parse_workload({'name': name, **({'class_count': 2} if name in ('folder', 'frame-features') else {})})"
        " for name in workload_names()];"
        "sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
