"""Whole networks: stages are the network, blocks change nothing but what they add, any clip goes through."""

import copy

import pytest
import torch
from torch import nn

from blocks.base import Block
from blocks.configs import BlockConfig
from blocks.registry import BUILTIN, block_type, parse_config, register_block
from workloads.backbones.families import (
    C2DConfig,
    MFNetConfig,
    ResNetConfig,
    StNetConfig,
    TinyConfig,
    TSMConfig,
    TSNConfig,
)
from workloads.backbones.model import build_model, insert_blocks
from workloads.backbones.weights import load_weights, save_weights
from workloads.registry import parse_backbone
from workloads.spec import ModelSpec

# One small net per family: every layer kind, few parameters.
SMALL = {"frames": 4, "size": 32, "classes": 7}
NETS = {
    "tiny": TinyConfig(name="resnet_tiny"),
    "resnet": ResNetConfig(name="x", depth=18, **SMALL),
    "se_resnext": ResNetConfig(name="x", gate="se", groups=4, width_per_group=4, **SMALL),
    "neck": ResNetConfig(name="x", depth=18, neck_width=11, **SMALL),
    "c2d": C2DConfig(name="x", depth=18, **SMALL),
    "i3d": C2DConfig(name="x", depth=18, inflate="alternate", **SMALL),
    "nonlocal_c2d": C2DConfig(name="x", depth=18, **{**SMALL, "frames": 8}, temporal_strides=(2, 2, 2)),
    "tsm": TSMConfig(name="x", depth=18, **SMALL),
    "tsn": TSNConfig(name="x", depth=18, **SMALL),
    "tsn_max": TSNConfig(name="x", depth=18, consensus="max_scores", **SMALL),
    "stnet": StNetConfig(name="x", depth=18, stacked=2, neck_width=6, **SMALL),
    "mfnet": MFNetConfig(name="x", groups=4, width=16, stem_width=8, **SMALL),
}


def build(config, block="none", insertion=None, seed=0):
    torch.manual_seed(seed)
    given = parse_config(block if isinstance(block, dict) else {"name": block})
    return build_model(ModelSpec(backbone=config, block=given, insertion=insertion or {}))


def clips(config, *, batch=2, frames=None, height=None, width=None, seed=1):
    torch.manual_seed(seed)
    side = config.size
    return torch.randn(batch, config.channels, frames or config.frames, height or side, width or side)


def used(model, config):
    """The model in eval mode, with batch statistics that are not the initial ones."""
    model.train()
    with torch.no_grad():
        model(clips(config, seed=2))
    return model.eval()


@pytest.fixture(scope="module", params=NETS)
def net(request):
    config = NETS[request.param]
    return config, used(build(config), config)


def test_stages_one_after_the_other_are_the_network_bit_for_bit(net):
    config, model = net
    x = out = clips(config)
    with torch.no_grad():
        for stage in model.stage_modules().values():
            out = stage(out)
        assert torch.equal(out, model(x))


def test_stage_modules_share_the_network_s_parameters_and_add_no_key(net):
    _, model = net
    keys = set(model.state_dict())
    shared = {id(parameter) for stage in model.stage_modules().values() for parameter in stage.parameters()}
    assert shared == {id(parameter) for parameter in model.parameters()}
    assert set(model.state_dict()) == keys


def test_any_clip_goes_through(net):
    config, model = net
    with torch.no_grad():
        out = model(clips(config, batch=3, frames=5, height=37, width=41))
        assert out.shape == (3, config.classes)
        head = config.stages()["head"].shape
        features = model.frame_features(clips(config))
        assert tuple(features.shape) == (2, *head)


def test_a_clip_s_answer_does_not_depend_on_its_batch(net):
    config, model = net
    x = clips(config)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[1:], model(x[1:]), rtol=1e-4, atol=1e-5)


def test_every_parameter_learns(net):
    config, model = net
    learner = copy.deepcopy(model).train()
    learner(clips(config)).square().sum().backward()
    assert [name for name, parameter in learner.named_parameters() if not torch.any(parameter.grad)] == []


def test_memory_format_does_not_change_the_answer(net):
    config, model = net
    x = clips(config)
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(model(x.contiguous(memory_format=torch.channels_last_3d)), expected)
        torch.testing.assert_close(model(x.transpose(3, 4).contiguous().transpose(3, 4)), expected)


IDENTITIES = [name for name in BUILTIN if name != "none" and block_type(name).identity_at_start]
PLACES = {"tiny": {"res3": [0]}, "c2d": {"res3": [0, 1], "res4": [1]}, "mfnet": {"res3": [1], "res4": [4]}}


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.parametrize("where", PLACES)
def test_a_new_block_that_starts_as_identity_leaves_the_output_bit_for_bit(where, name):
    config = NETS[where].model_copy(update={"size": 128} if where != "tiny" else {})
    model = used(build(config), config)
    x = clips(config, batch=1)
    with torch.no_grad():
        before = model(x)
        keys = list(model.state_dict())
        insert_blocks(model, parse_config(FITTING.get(name, {"name": name})), PLACES[where])
        model.eval()
        assert torch.equal(model(x), before)
    added = [key for key in model.state_dict() if key not in keys]
    assert [key for key in model.state_dict() if key in keys] == keys
    assert added
    assert all(".long_range.unit." in key for key in added)


LOADED = {
    "mfnet": ({"frames": 8, "size": 96}, "nl", {"res3": [0, 2], "res4": [0, 2, 4]}),
    "tsm_resnet50": ({"frames": 8, "size": 64}, "hgnl", {"head": [0]}),
    "tsn_resnet50": ({"frames": 3, "size": 64}, "nl", {"head": [0]}),
    "i3d_resnet50": ({"frames": 8, "size": 64}, "rnl", {"res3": [1, 3], "res2/branch": [0]}),
    "stnet": ({"frames": 10, "size": 64}, "hgnl", {"head": [0]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOADED)
def test_a_loaded_network_of_full_width_answers_bit_for_bit_as_before(tmp_path, name):
    """Small networks hide what a change of memory format does: their kernels sum in one order anyway."""
    fields, block, insertion = LOADED[name]
    config = parse_backbone({"name": name, "classes": 13, **fields})
    save_weights(used(build(config, seed=1), config), tmp_path / "weights.safetensors")
    model = build(config, seed=2)
    assert load_weights(model, tmp_path / "weights.safetensors").complete
    x = clips(config, batch=2)
    with torch.no_grad():
        before = model.eval()(x)
        given = {"name": block, "kernel": [3, 3, 3]} if block == "rnl" else {"name": block}
        insert_blocks(model, parse_config(given), insertion)
        assert torch.equal(model.eval()(x), before)


# Blocks whose defaults are for wide maps.
FITTING = {
    "hgnl": {"name": "hgnl", "g1": 2, "g2": 1},
    "rnl": {"name": "rnl", "kernel": [3, 3, 3]},
    "pnl": {"name": "pnl", "n": 2},
    "se_rnl": {"name": "se_rnl", "kernel": [3, 3, 3]},
}


def test_the_identity_test_covers_the_blocks_that_promise_it():
    assert {"nl", "rnl"} <= set(IDENTITIES)


def test_keys_of_a_block_start_with_its_unit_s():
    insertion = {"res3/branch": [1], "res4/conv1": [0], "head": [0], "res5": [1]}
    added = [key for key in build(NETS["c2d"], "se", insertion).state_dict() if "long_range" in key]
    expected = (
        "layer2.1.long_range.branch.",
        "layer3.0.long_range.conv1.",
        "layer4.1.long_range.unit.",
        "long_range.unit.",
    )
    assert all(key.startswith(expected) for key in added)
    assert all(any(key.startswith(start) for key in added) for start in expected)


class Doubling(Block[BlockConfig]):
    """Twice its input: shows where a block sits."""

    Config = BlockConfig

    def forward(self, x):
        return 2 * x

    @classmethod
    def closed_form(cls, config, shape):
        raise AssertionError("not asked for here")


class DoublingConfig(BlockConfig):
    name = "test-doubling"


Doubling.Config = DoublingConfig
register_block("test-doubling")(Doubling)


@pytest.mark.parametrize(
    ("place", "expected"),
    [("unit", lambda b, s: 2 * torch.relu(b + s)), ("branch", lambda b, s: torch.relu(2 * b + s))],
)
def test_places_in_a_unit_are_where_they_say(place, expected):
    config = NETS["resnet"]
    plain = used(build(config), config)
    blocked = copy.deepcopy(plain)
    insert_blocks(blocked, DoublingConfig(), {f"res2/{place}": [1]})
    x = torch.randn(1, 64, 3, 5, 7)
    with torch.no_grad():
        branch = plain.layer1[1].branch(x)
        torch.testing.assert_close(blocked.layer1[1](x), expected(branch, x))


def test_the_place_conv1_is_behind_the_first_convolution_s_relu():
    config = NETS["se_resnext"]
    model = used(build(config), config)
    insert_blocks(model, DoublingConfig(), {"res3/conv1": [0]})
    unit, seen = model.layer2[0], {}
    unit.bn1.register_forward_hook(lambda _, __, out: seen.__setitem__("bn1", out.clone()))
    unit.conv2.register_forward_pre_hook(lambda _, args: seen.__setitem__("conv2", args[0].clone()))
    with torch.no_grad():
        model(clips(config))
    assert torch.equal(seen["conv2"], 2 * seen["bn1"].relu())


def test_same_seed_same_backbone_whatever_the_block():
    plain = build(NETS["tiny"], seed=3).state_dict()
    blocked = build(NETS["tiny"], "nl", {"res3": [0]}, seed=3).state_dict()
    assert all(torch.equal(blocked[key], value) for key, value in plain.items())


def test_none_leaves_no_trace_but_still_checks_the_places():
    assert list(build(NETS["tiny"], "none", {"res3": "all"}).state_dict()) == list(build(NETS["tiny"]).state_dict())
    with pytest.raises(ValueError, match=r"res3 has units 0\.\.0"):
        build(NETS["tiny"], "none", {"res3": [1]})


def test_blocks_that_do_not_fit_are_refused_all_at_once_and_nothing_is_inserted():
    model = build(NETS["tiny"])
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=r"res3\.0: .*n=3.*; res4\.0: "):
        insert_blocks(model, parse_config({"name": "pnl", "n": 3}), {"res3": [0], "res4": [0]})
    assert list(model.state_dict()) == keys


def test_a_place_takes_one_block():
    model = build(NETS["tiny"], "se", {"res4": [0]})
    with pytest.raises(ValueError, match=r"res4\.0 holds a block already"):
        insert_blocks(model, parse_config({"name": "nl"}), {"res3": [0], "res4": [0]})
    insert_blocks(model, parse_config({"name": "nl"}), {"res3": [0], "res4/branch": [0]})


@pytest.mark.parametrize("block", [{"name": "nl"}, {"name": "hgnl", "level": "frames", "g1": 2, "g2": 1}])
def test_an_aggregator_at_the_head_takes_any_number_of_frames_at_test_time(block):
    config = NETS["tsn"].model_copy(update={"frames": 3, "neck_width": 16})
    model = build(config, block, {"head": [0]}).eval()
    with torch.no_grad():
        for frames in (1, 3, 25):
            assert model(clips(config, frames=frames)).shape == (2, 7)


def test_consensus_of_features_and_of_scores_agree_and_the_maximum_does_not():
    config = NETS["tsn"]
    models = {}
    for consensus in ("features", "scores", "max_features", "max_scores"):
        models[consensus] = build(config.model_copy(update={"consensus": consensus})).eval()
    with torch.no_grad():
        scores = {consensus: model(clips(config)) for consensus, model in models.items()}
        rows = models["scores"].frame_features(clips(config)).flatten(2).transpose(1, 2)
        by_hand = models["scores"].fc(rows)
    torch.testing.assert_close(scores["features"], scores["scores"])
    torch.testing.assert_close(scores["scores"], by_hand.mean(dim=1))
    torch.testing.assert_close(scores["max_scores"], by_hand.amax(dim=1))
    torch.testing.assert_close(scores["max_features"], models["scores"].fc(rows.amax(dim=1)))


def test_frozen_prefix_can_be_run_once_and_continued_later():
    config = NETS["tiny"]
    model = used(build(config, "nl", {"res3": [0]}), config)
    *prefix, res3, res4, res5, head = model.stage_modules().values()
    x = clips(config)
    with torch.no_grad():
        cached = nn.Sequential(*prefix)(x).permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
        assert torch.equal(nn.Sequential(res3, res4, res5, head)(cached), model(x))
