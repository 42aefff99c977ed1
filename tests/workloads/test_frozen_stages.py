"""Frozen stages, and the cut in front of the first trainable layer."""

import pytest
import torch

from workloads.backbones.model import build_model
from workloads.frozen_stages import cut, freeze_stages, inserted_blocks, train_mode
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec

CLIPS = torch.rand(3, 1, 4, 16, 16)


def model_with(insertion, block="nl", backbone="resnet_tiny"):
    torch.manual_seed(0)
    shape = {"frames": 4, "size": 16 if backbone == "resnet_tiny" else 32, "classes": 10, "channels": 1}
    config = parse_backbone({"name": backbone, **shape})
    model = build_model(ModelSpec(backbone=config, block={"name": block}, insertion=insertion))
    for inserted in inserted_blocks(model):
        torch.nn.init.ones_(inserted.norm.weight)  # not the identity, so that a lost block shows
    return model.eval()


@pytest.mark.parametrize(
    ("insertion", "trained_from"),
    [
        ({}, "res3"),
        ({"res3": [0]}, "res3"),
        ({"res2": [0]}, "the block"),
        ({"res2": [0], "res4": [0]}, "the block"),
        ({"res2/conv1": [0]}, "res2"),
        ({"res2": [0], "res2/conv1": [0]}, "res2"),
        ({"head": [0]}, "res3"),
    ],
)
def test_both_parts_of_a_cut_are_the_whole(insertion, trained_from):
    model = model_with(insertion)
    front, behind = cut(model, ("stem", "res2"))
    with torch.no_grad():
        features = front(CLIPS)
        assert torch.equal(behind(features), model(CLIPS))
    first = behind._layers[0]
    expected = {stage: model.units(stage)[0] for stage in ("res2", "res3")}
    expected["the block"] = next(inserted_blocks(model), None)
    assert first is expected[trained_from]


def test_units_of_a_frozen_stage_behind_a_block_run_in_every_step():
    model = model_with({"res3": [0]}, backbone="resnet18")
    front, behind = cut(model, ("stem", "res2", "res3"))
    clips = torch.rand(2, 1, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(behind(front(clips)), model(clips))
    assert behind._layers[1] is model.units("res3")[1]


def test_nothing_frozen_cuts_in_front_of_everything():
    model = model_with({"res3": [0]})
    front, behind = cut(model, ())
    assert front(CLIPS) is CLIPS
    with torch.no_grad():
        assert torch.equal(behind(CLIPS), model(CLIPS))


def test_a_block_in_a_frozen_stage_is_trained_and_nothing_else_there():
    model = model_with({"res2": [0]})
    freeze_stages(model, ("stem", "res2"))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    in_res2 = {name for name in trained if name.startswith("layer1")}
    assert in_res2
    assert all(".long_range." in name for name in in_res2)
    assert not any(name.startswith(("conv1", "bn1")) for name in trained)
    train_mode(model, ("stem", "res2"))
    assert not model.bn1.training
    assert model.layer2.training
    assert next(inserted_blocks(model)).norm.training


@pytest.mark.parametrize("freeze", [("res2",), ("stem", "res3"), ("stem", "res9"), ("res2", "stem")])
def test_only_the_first_stages_can_be_frozen(freeze):
    with pytest.raises(ValueError, match="freeze must name the first of the stages stem, res2, res3, res4, res5"):
        freeze_stages(model_with({}), freeze)
