import numpy as np
import pytest
import torch

from workloads.backbones.model import build_model
from workloads.clips import Batch
from workloads.counting import profile
from workloads.data.check import check
from workloads.data.features import FeatureClips, read_features
from workloads.data.features_config import FrameFeaturesConfig
from workloads.data.pictures import UnreadableVideo
from workloads.progress import Finished
from workloads.protocols import Protocol
from workloads.registry import parse_backbone, parse_workload
from workloads.spec import RunContext, TrialSpec

WIDTH = 16
HGNL = {"name": "hgnl", "g1": 4, "g2": 2, "reduction": 2}


def first(count):
    return np.arange(min(count, 2))


@pytest.fixture
def root(tmp_path):
    """Two classes that differ in the direction of their features."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for label, sign in (("down", -1.0), ("up", 1.0)):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                features = generator.normal(0.3 * sign, 1.0, (10 + number, WIDTH)).astype(np.float16)
                np.savez_compressed(folder / f"{number:02d}.npz", features=features)
    return tmp_path / "data"


def context(folder):
    return RunContext(cache_dir=folder / "cache", checkpoint_dir=folder / "checkpoints")


def trial(root, block, insertion):
    return TrialSpec.model_validate(
        {
            "workload": {"name": "frame-features", "root": str(root), "width": WIDTH},
            "backbone": {"name": "frame_features", "channels": WIDTH, "classes": 2, "frames": 4},
            "block": block,
            "insertion": insertion,
            "recipe": {"name": "custom", "epochs": 4, "batch": 8, "lr": 1e-2},
            "protocol": {"name": "segments_25"},
            "seed": 0,
        }
    )


def test_frames_are_sampled_as_of_videos(root, tmp_path):
    config = FrameFeaturesConfig(root=str(root), width=WIDTH)
    backbone = parse_backbone({"name": "frame_features", "channels": WIDTH, "classes": 2, "frames": 4})
    clips = FeatureClips(config, backbone, context(tmp_path), seed=0)
    (batch,) = clips.training(0, [np.array([3, 20])])
    assert isinstance(batch, Batch)
    assert batch.inputs.shape == (2, WIDTH, 4, 1, 1)
    assert batch.labels.tolist() == [0, 1]
    (again,) = clips.training(0, [np.array([3, 20])])
    assert torch.equal(batch.inputs, again.inputs)
    (views,) = clips.validation(Protocol(clips=2, frames=25), [np.array([0])])
    assert views.inputs.shape == (1, 2, WIDTH, 25, 1, 1)
    with pytest.raises(ValueError, match="no three crops"):
        list(clips.validation(Protocol(crops="three"), [np.array([0])]))
    stored = np.load(root / "val" / "down" / "00.npz")["features"].astype(np.float32)
    (whole,) = clips.validation(Protocol(frames=10), [np.array([0])])
    assert np.array_equal(whole.inputs[0, 0, :, :, 0, 0].numpy(), stored.T)


@pytest.mark.parametrize(("block", "insertion"), [({"name": "none"}, {}), (HGNL, {"head": [0]})])
def test_a_block_at_the_head_is_trained_on_features(root, tmp_path, block, insertion):
    spec = trial(root, block, insertion)
    *_, last = spec.workload.open().run(spec, context(tmp_path))
    assert isinstance(last, Finished)
    assert last.metrics["top1_percent"] > 80


def test_the_head_is_counted_like_any_network(root):
    spec = trial(root, HGNL, {"head": [0]})
    counted = profile(spec.model)
    assert counted.params == sum(parameter.numel() for parameter in build_model(spec.model).parameters())
    assert counted.executed_macs > 0


def test_plans_need_no_data():
    config = parse_workload({"name": "frame-features", "class_count": 700})
    assert config.channels == 2048
    assert "features" in config.problems()[0]


def test_unreadable_features_are_typed_errors_and_found_by_the_check(root):
    path = root / "train" / "up" / "00.npz"
    for content in (b"", b"no zip", path.read_bytes()[:300]):
        path.write_bytes(content)
        with pytest.raises(UnreadableVideo, match=r"00\.npz"):
            read_features(path, first, WIDTH)
    np.savez(path, other=np.zeros((3, WIDTH)))
    with pytest.raises(UnreadableVideo, match="no array 'features'"):
        read_features(path, first, WIDTH)
    np.savez(path, features=np.zeros((3, WIDTH + 1)))
    with pytest.raises(UnreadableVideo, match=r"\[3, 17\], \[frames, 16\] is needed"):
        read_features(path, first, WIDTH)
    np.savez(path, features=np.full((3, WIDTH), np.nan))
    with pytest.raises(UnreadableVideo, match="not finite"):
        read_features(path, first, WIDTH)
    np.savez(path, features=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UnreadableVideo, match="no array"):
        read_features(path, first, WIDTH)
    report = check(FrameFeaturesConfig(root=str(root), width=WIDTH), full=True)
    assert list(report.unreadable) == ["train/up/00.npz"]
    assert report.frames is not None
    assert report.frames.highest == 21
