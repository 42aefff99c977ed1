"""Every preset: its closed-form stages are what flows, its parameters and MACs are the published ones."""

import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from workloads.backbones.families import PRESETS, C2DConfig, ResNetConfig
from workloads.backbones.insertion import PLACES, insertion_points, places
from workloads.counting.shapes import ShapesOnly
from workloads.registry import parse_backbone


def on_meta(config):
    with torch.device("meta"), ShapesOnly():
        return config.build().eval(), torch.empty(2, config.channels, config.frames, config.size, config.size)


def what_flows(config):
    """Stage -> shape after it, and every place -> shape there, seen by hooks on a run on the meta device."""
    model, x = on_meta(config)
    stages, at = {}, {}

    def see(stage, unit):
        return lambda _, args: at.__setitem__((stage, unit, (*args, "unit")[1]), tuple(args[0].shape[1:]))

    for stage in config.stages():
        for unit, holder in enumerate(model.units(stage)):
            holder.long_range.register_forward_pre_hook(see(stage, unit))
    with torch.no_grad(), ShapesOnly():
        for stage, module in model.stage_modules().items():
            x = module(x)
            stages[stage] = tuple(x.shape[1:])
    return stages, at


def odd(config):
    """The same net on 11 frames of 101 x 101: sizes that no stride divides."""
    return type(config).model_validate({**config.model_dump(), "frames": 11, "size": 101})


@pytest.mark.parametrize("name", PRESETS)
def test_stages_are_what_flows_at_every_place(name):
    config = odd(PRESETS[name])
    stages, at = what_flows(config)
    assert list(stages) == ["stem", *config.stages()]
    assert stages.pop("head") == (config.classes,)
    stages.pop("stem")
    assert stages == {name: tuple(stage.shape) for name, stage in config.stages().items() if name != "head"}
    everywhere = {
        (stage if place == "unit" else f"{stage}/{place}"): "all"
        for stage, found in config.stages().items()
        for place in places(found, stage)
    }
    points = insertion_points(config, everywhere)
    assert at == {(point.stage, point.unit, point.place): tuple(point.shape) for point in points}


@pytest.mark.parametrize("pool", ["padded", "unpadded", "ceil"])
@pytest.mark.parametrize("size", [64, 65, 67, 70])
def test_stem_pools_round_as_stated(pool, size):
    config = ResNetConfig(name="x", depth=18, stem_pool=pool, size=size)
    stages, _ = what_flows(config)
    assert stages["res2"] == tuple(config.stages()["res2"].shape)


@pytest.mark.parametrize("frames", [5, 16, 31])
@pytest.mark.parametrize("strides", [(1, 1, 2), (2, 2, 2), (2, 1, 1), (1, 2, 1)])
@pytest.mark.parametrize("inflate", ["none", "alternate"])
def test_temporal_strides_round_as_stated(frames, strides, inflate):
    config = C2DConfig(name="x", depth=18, frames=frames, size=32, temporal_strides=strides, inflate=inflate)
    stages, _ = what_flows(config)
    for stage in ("res2", "res5"):
        assert stages[stage] == tuple(config.stages()[stage].shape)


def test_published_layouts_at_224():
    def maps(**given):
        return [tuple(stage.shape) for stage in parse_backbone(given).stages().values()]

    # RNL Table I: TSM keeps all eight frames.
    eight = [(256, 8, 56, 56), (512, 8, 28, 28), (1024, 8, 14, 14), (2048, 8, 7, 7), (2048, 8, 1, 1)]
    assert maps(name="tsm_resnet50") == eight
    # BAT: T halves after res2; with the unpadded stem pool res2 is 55 x 55.
    bat = [(256, 8, 55, 55), (512, 4, 28, 28), (1024, 4, 14, 14), (2048, 4, 7, 7), (2048, 4, 1, 1)]
    assert maps(name="c2d_resnet50", stem_pool="unpadded") == bat
    # Non-local paper: 32 frames come out as 4 behind res2.
    nonlocal_paper = [(256, 8, 56, 56), (512, 4, 28, 28), (1024, 4, 14, 14), (2048, 4, 7, 7), (2048, 4, 1, 1)]
    assert maps(name="c2d_resnet50", frames=32, temporal_strides=[2, 2, 2]) == nonlocal_paper
    mfnet = [(96, 8, 56, 56), (192, 8, 28, 28), (384, 8, 14, 14), (768, 8, 7, 7), (768, 8, 1, 1)]
    assert maps(name="mfnet") == mfnet


# Parameters and GMACs (torchvision prints the latter as GFLOPS) with the published head, from outside this project:
# torchvision's model pages; 28.1 M SE-ResNet-50, 24.3 M TSM and C2D, 28.04 M I3D (BAT); 8.0 M and 11.1 G MFNet-3D.
PUBLISHED = {
    "resnet_tiny": (151_738, None),
    "resnet18": (11_689_512, 1.814),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50_32x4d": (25_028_904, 4.230),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_32x4d": (44_177_704, None),
    "se_resnet50": (28_088_024, None),
    "se_resnext101_32x4d": (48_955_416, None),
    "tsm_resnet50": (24_327_632, 32.704),  # eight times ResNet-50 with 400 classes: 8 * (4.0892 - 0.0012)
    "c2d_resnet50": (24_327_632, None),
    "i3d_resnet50": (28_043_472, None),
    "mfnet": (7_996_368, 11.045),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_macs_are_the_published_ones(name):
    params, gmacs = PUBLISHED[name]
    model, clip = on_meta(PRESETS[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == params
    if gmacs is not None:
        with ShapesOnly(), FlopCounterMode(display=False) as counter:
            model(clip[:1])
        assert round(counter.get_total_flops() / 2e9, 3) == gmacs


def test_mfnet_with_200_classes_has_7_843_million_parameters():
    model, _ = on_meta(parse_backbone({"name": "mfnet", "classes": 200}))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 3) == 7.843


def test_i3d_inflates_every_unit_of_res2_and_alternate_ones_later():
    model, _ = on_meta(PRESETS["i3d_resnet101"])
    seen = {
        stage: [unit for unit, module in enumerate(model.units(stage)) if module.conv1.weight.dim() == 5]
        for stage in ("res2", "res3", "res4", "res5")
    }
    assert seen == {"res2": [0, 1, 2], "res3": [0, 2], "res4": list(range(0, 23, 2)), "res5": [1]}
    assert model.conv1.weight.shape == (64, 3, 5, 7, 7)


def test_values_that_do_not_go_together_are_refused_before_anything_is_built():
    config = ResNetConfig(name="x", depth=18, groups=32, width_per_group=4)
    with pytest.raises(ValueError, match=r"depth 18 has basic units without groups.*given 32 and 4"):
        config.build()
    with pytest.raises(ValueError, match="1 frames vanish on the way"):
        parse_backbone({"name": "c2d_resnet50", "frames": 1}).build()
    with pytest.raises(ValueError, match="stem_pool 'ceil' cannot stride in time"):
        parse_backbone({"name": "c2d_resnet18", "stem_pool": "ceil", "temporal_strides": [1, 2, 1]}).build()
    with pytest.raises(ValueError, match="width=88 channels are not divisible by groups=16"):
        parse_backbone({"name": "mfnet", "width": 88}).build()


def test_every_preset_is_known_by_its_name_and_survives_json():
    for name, config in PRESETS.items():
        assert config.name == name
        assert parse_backbone(config.to_json()) == config
        assert set(places(config.stages()["res3"], "res3")) <= set(PLACES)


def test_configs_and_stages_need_no_torch():
    code = (
        "import sys; from workloads.backbones.families import PRESETS; from workloads.backbones.insertion import "
        "insertion_points; insertion_points(PRESETS['tsm_resnet50'], {'res3': [1]}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
