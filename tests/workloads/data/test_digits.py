"""Digit recall: the clips are what the docstring says, the label needs other frames, and preparing is done once."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from workloads.data.digits import DigitClips, make_clips, make_still_images, paste
from workloads.data.digits_config import DigitsConfig, DigitsHardConfig
from workloads.progress import Finished
from workloads.registry import parse_workload
from workloads.spec import RunContext, TrialSpec

SMALL = {"train_clips": 300, "validation_clips": 200, "still_images": 64}


def test_configs_and_defaults_need_no_torch():
    code = (
        "import sys; from workloads.registry import parse_workload; "
        "config = parse_workload('digits'); config.defaults(); parse_workload('digits-hard'); "
        "assert config.caveat and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_both_presets_parse_by_name():
    assert parse_workload("digits") == DigitsConfig()
    hard = parse_workload("digits-hard")
    assert (hard, hard.keys) == (DigitsHardConfig(), 3)
    assert (hard.classes, hard.channels, hard.fingerprint()) == (10, 1, "")


@pytest.mark.parametrize("keys", [2, 3])
def test_clips_are_the_same_every_time_and_differ_by_part_and_seed(keys):
    config = DigitsConfig(**SMALL, keys=keys)
    first, again = make_clips(config, "train"), make_clips(config, "train")
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.labels, again.labels)
    assert first.frames.shape == (300, 4, 16, 16)
    assert first.frames.min() >= 0
    assert first.frames.max() <= 1
    other = make_clips(config.model_copy(update={"seed": 5}), "train")
    assert not np.array_equal(first.frames, other.frames)
    assert make_clips(config, "validation").frames.shape == (200, 4, 16, 16)


def test_every_class_is_a_label_about_equally_often():
    labels = make_clips(DigitsConfig(train_clips=4000), "train").labels
    counts = np.bincount(labels, minlength=10)
    assert counts.min() > 320
    assert counts.max() < 480


def test_the_label_is_the_value_beside_the_queried_key(monkeypatch):
    """With scans that are constant patches of brightness digit / 10, a clip can be read and solved by rule."""
    import workloads.data.digits as digits

    values = np.repeat(np.arange(10), 3)
    images = np.broadcast_to(values[:, None, None] / 10 + 0.05, (30, 8, 8)).astype(np.float32)
    monkeypatch.setattr(digits, "_BACKGROUND", 0.01)
    monkeypatch.setattr(digits, "_scans", lambda part, validation: (images, values))
    clips = make_clips(DigitsConfig(train_clips=50), "train")
    for frames, label in zip(clips.frames, clips.labels, strict=True):
        pairs, queries = {}, set()
        for frame in frames:
            key, value, anywhere = _read(frame)
            if value is None:
                queries.add(anywhere)
            else:
                pairs[key] = value
        assert len(pairs) == 2
        assert len(set(pairs.values())) == 2
        (query,) = queries
        assert pairs[query] == label


def _read(frame):
    """(left digit, right digit, None) of a pair frame, (None, None, digit) of a query frame."""
    shown = frame > 0.02
    digit = np.rint((frame - 0.05) * 10).astype(int)
    if shown.sum() == 64:
        (only,) = set(digit[shown])
        return None, None, only
    (left,), (right,) = set(digit[:, :8][shown[:, :8]]), set(digit[:, 8:][shown[:, 8:]])
    return left, right, None


def test_no_scan_is_in_both_parts():
    from workloads.data.digits import _scans

    for validation in ("last", "first"):
        train, held_out = (_scans(part, validation)[0] for part in ("train", "validation"))
        assert (len(train), len(held_out)) == (1200, 597)
    last, first = (_scans("validation", where)[0] for where in ("last", "first"))
    assert not np.array_equal(last, first)


def test_still_images_show_what_they_say():
    frames, shown = make_still_images(DigitsConfig(still_images=500))
    assert frames.shape == (500, 16, 16)
    assert set(shown.sum(axis=1)) == {1, 2}
    bright_right_half = (frames[:, :, 8:] > 0.2).any(axis=(1, 2))
    assert bright_right_half[shown.sum(axis=1) == 2].all()


def test_paste_keeps_the_brighter_pixel_at_the_right_place():
    frames = np.full((1, 16, 16), 0.5, np.float32)
    scan = np.zeros((1, 8, 8), np.float32)
    scan[0, 0, 0] = 1.0
    paste(frames, scan, np.array([3]), np.array([5]))
    assert frames[0, 3, 5] == 1.0
    assert np.sort(frames.ravel())[-2] == 0.5


def test_prepare_makes_files_once(tmp_path):
    workload = DigitsConfig(**SMALL).open()
    context = RunContext(cache_dir=tmp_path, checkpoint_dir=tmp_path / "trial")
    workload.prepare(context)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(made) == 2
    workload.prepare(context)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    hard = DigitsHardConfig(**SMALL)
    hard.open().prepare(context)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 3, "both presets share the pre-trained weights"


def test_clips_come_back_from_the_file_as_they_were_made(tmp_path):
    config = DigitsConfig(**SMALL)
    made = make_clips(config, "train")
    for _ in range(2):
        source = DigitClips(config, tmp_path)
        (batch,) = source.training(0, [np.array([7, 3])])
        np.testing.assert_array_equal(batch.inputs[:, 0].numpy(), made.frames[[7, 3]])
        assert batch.labels.tolist() == made.labels[[7, 3]].tolist()


def test_a_backbone_or_protocol_that_does_not_fit_is_refused(tmp_path):
    context = RunContext(cache_dir=tmp_path, checkpoint_dir=tmp_path / "trial")
    with pytest.raises(ValueError, match=r"given {'frames': 8}"):
        _trial(backbone={"frames": 8}).workload.open().run(_trial(backbone={"frames": 8}), context)
    spec = _trial(protocol="views_2x3")
    with pytest.raises(ValueError, match="one view per clip"):
        list(spec.workload.open().run(spec, context))


@pytest.mark.slow
def test_non_local_beats_no_block_by_far_with_the_default_recipe(tmp_path):
    """One seed, 500 steps each; 40 to 42 points apart in five seeds of five."""
    top1 = {}
    for block, insertion in (("none", {}), ("nl", {"res3": [0]})):
        spec = _trial(block=block, insertion=insertion, workload={}, recipe={})
        context = RunContext(cache_dir=tmp_path / "cache", checkpoint_dir=tmp_path / block)
        (finished,) = [event for event in spec.workload.open().run(spec, context) if isinstance(event, Finished)]
        top1[block] = finished.metrics["top1_percent"]
    assert top1["none"] < 60
    assert top1["nl"] > top1["none"] + 20


def _trial(*, backbone=None, protocol="centre", block="nl", insertion=None, workload=None, recipe=None):
    config = DigitsConfig(**(SMALL if workload is None else workload))
    defaults = config.defaults()
    return TrialSpec.model_validate(
        {
            "workload": config,
            "backbone": {**defaults["backbone"], **(backbone or {})},
            "block": {"name": block},
            "insertion": {"res3": [0]} if insertion is None else insertion,
            "recipe": {**defaults["recipe"], **({"epochs": 1} if recipe is None else recipe)},
            "protocol": protocol,
            "seed": 0,
        }
    )
