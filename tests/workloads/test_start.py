"""Starting weights: known by content, loaded whole or not at all, told in the result."""

import shutil
from pathlib import Path

import pytest
import torch

from workloads import checkpoints
from workloads.backbones.model import build_model
from workloads.backbones.weights import save_weights
from workloads.progress import Finished
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec, RunContext, TrialSpec
from workloads.start import Start
from workloads.starting import load_start, start_problems

TINY = {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": 10, "channels": 1}


def trial(*, block="none", backbone=None, seed=0, start=None, **recipe):
    return TrialSpec.model_validate(
        {
            "workload": {"name": "digits", "train_clips": 64, "validation_clips": 40, "still_images": 0},
            "backbone": backbone or TINY,
            "block": {"name": block, **({"g1": 2, "g2": 2} if block == "hgnl" else {})},
            "insertion": {"res3": [0]} if block != "none" else {},
            "recipe": {"name": "quick", "epochs": 1, "batch": 16, "freeze": [], **recipe},
            "protocol": "centre",
            "seed": seed,
            "start": start,
        }
    )


def run(spec: TrialSpec, folder: Path) -> Finished:
    context = RunContext(cache_dir=folder / "cache", checkpoint_dir=folder / "checkpoints")
    *_, last = spec.workload.open().run(spec, context)
    return last


def network(**fields):
    return parse_backbone({**TINY, **fields}).build()


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(5)
    save_weights(network(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_a_spec_without_start_says_nothing_of_it():
    """So that it keeps the id it always had."""
    assert "start" not in trial().to_json()
    assert TrialSpec.model_validate(trial().to_json()) == trial()


def test_the_file_is_known_by_its_content(weights, tmp_path):
    shutil.copy(weights, tmp_path / "same.safetensors")
    here, there = (trial(start={"path": str(tmp_path / name)}) for name in ("weights.safetensors", "same.safetensors"))
    assert here.start.sha256 == there.start.sha256
    assert len(here.start.sha256) == 64
    again = TrialSpec.model_validate(here.to_json())
    assert again == here
    weights.unlink()
    assert TrialSpec.model_validate(here.to_json()) == here, "records can be read where the file is gone"
    assert "does not exist" in again.start.problems()[0]


def test_another_file_in_its_place_is_refused(weights):
    start = Start(path=str(weights))
    torch.manual_seed(6)
    save_weights(network(), weights)
    (problem,) = start.problems()
    assert "plan again" in problem
    with pytest.raises(ValueError, match="plan again"):
        load_start(network(), start)


@pytest.mark.parametrize("missing", ["nothing.pt", "folder"])
def test_no_file_is_found_when_the_spec_is_made(tmp_path, missing):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"give a (local )?file of weights"):
        Start(path=str(tmp_path / missing))


def test_a_trial_starts_from_another_trials_checkpoint(tmp_path):
    """As HG-NL starts from TSN: every key of the backbone, the new block as it is drawn."""
    first = trial(ema=0.5)
    run(first, tmp_path / "first")
    newest = checkpoints.newest(tmp_path / "first" / "checkpoints")
    spec = trial(block="hgnl", start={"path": str(tmp_path / "first" / "checkpoints")})
    assert start_problems(spec) == []
    model = build_model(spec.model)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_start(model, spec.start)
    assert report.missing
    assert all("long_range" in key for key in report.missing)
    for key, value in model.state_dict().items():
        if "long_range" in key:
            assert torch.equal(value, fresh[key])
        elif f"ema/{key}" in newest.tensors:
            assert torch.equal(value, newest.tensors[f"ema/{key}"]), "what was evaluated are the averaged weights"
        else:
            assert torch.equal(value, newest.tensors[f"model/{key}"])
    (note,) = [text for text in run(spec, tmp_path / "second").notes if "started from" in text]
    assert spec.start.sha256[:16] in note
    assert "not from the file: " in note


def test_training_really_begins_there(weights, tmp_path):
    """At a learning rate of almost nothing the trained weights are the file's."""
    spec = trial(start={"path": str(weights)}, lr=1e-30, backbone_lr=1e-30, weight_decay=0.0)
    model = network()
    load_start(model, spec.start)
    run(spec, tmp_path)
    tensors = checkpoints.newest(tmp_path / "checkpoints").tensors
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter, tensors[f"model/{name}"], rtol=0, atol=1e-20), name


@pytest.mark.parametrize("block", ["nl", "hgnl", "rnl"])
def test_blocks_that_start_as_identity_keep_the_loaded_networks_output(weights, block):
    spec = trial(block=block, start={"path": str(weights)})
    torch.manual_seed(0)
    plain, with_block = build_model(trial().model), build_model(spec.model)
    for model in (plain, with_block):
        load_start(model.eval(), spec.start)
    clips = torch.rand(3, 1, 4, 16, 16)
    assert torch.equal(plain(clips), with_block(clips))


def test_another_number_of_classes_must_be_said(tmp_path):
    torch.manual_seed(0)
    save_weights(network(classes=7), tmp_path / "seven.safetensors")
    spec = trial(start={"path": str(tmp_path / "seven.safetensors")})
    (problem,) = start_problems(spec)
    assert "fc.bias (ours [10], file [7])" in problem
    allowed = trial(start={"path": str(tmp_path / "seven.safetensors"), "allow": ["fc.*"]})
    assert start_problems(allowed) == []
    report = load_start(build_model(allowed.model), allowed.start)
    assert [mismatch.key for mismatch in report.mismatched] == ["fc.bias", "fc.weight"]


def test_blocks_in_the_file_must_fit(tmp_path):
    """Only a file without blocks leaves the network's blocks as they are drawn."""
    held = build_model(
        ModelSpec.model_validate({"backbone": TINY, "block": {"name": "nl"}, "insertion": {"res3": [0]}})
    )
    save_weights(held, tmp_path / "nl.safetensors")
    other = trial(block="rnl", start={"path": str(tmp_path / "nl.safetensors")})
    assert "long_range" in start_problems(other)[0]
    assert start_problems(trial(block="nl", start={"path": str(tmp_path / "nl.safetensors")})) == []


def test_a_file_that_is_no_checkpoint_is_a_problem_of_the_plan(weights, tmp_path):
    (tmp_path / "garbage.pt").write_bytes(b"not weights")
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:5000])
    for name, message in (("garbage.pt", "not a file of tensors"), ("cut.safetensors", "not a readable checkpoint")):
        (problem,) = start_problems(trial(start={"path": str(tmp_path / name)}))
        assert message in problem


@pytest.mark.slow
@pytest.mark.parametrize("how", ["centre", "mean"])
def test_image_weights_are_inflated(tmp_path, how):
    torch.manual_seed(0)
    image = parse_backbone({"name": "resnet18", "size": 32, "classes": 5}).build()
    save_weights(image, tmp_path / "image.safetensors")
    backbone = parse_backbone({"name": "i3d_resnet18", "size": 32, "frames": 4, "classes": 5})
    video = backbone.build()
    report = load_start(video, Start(path=str(tmp_path / "image.safetensors"), inflate=how))
    assert report.complete
    assert report.refitted
    ours, theirs = video.state_dict(), image.state_dict()
    key = next(key for key in report.refitted if ours[key].shape[2] > 1)
    assert torch.allclose(ours[key].sum(dim=2), theirs[key], atol=1e-6)
