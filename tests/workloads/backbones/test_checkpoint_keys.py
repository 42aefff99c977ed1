"""Keys and shapes are those of the published checkpoints, spelled out here independently of the networks."""

import pytest
import torch

from workloads.backbones.families import PRESETS


def norm(name, width):
    vectors = {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def torchvision_resnet(units, *, bottleneck, groups=1, base=64, gate=False, classes=1000):
    """Keys and shapes of torchvision's ResNet (with `gate`, of pretrainedmodels' SE modules inside)."""
    keys = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    cin = 64
    for stage, count in enumerate(units):
        planes = 64 << stage
        width = planes * base // 64 * groups
        out = planes * (4 if bottleneck else 1)
        for unit in range(count):
            at = f"layer{stage + 1}.{unit}"
            convs = [(width, cin, 1), (width, width // groups, 3), (out, width, 1)]
            if not bottleneck:
                convs = [(planes, cin, 3), (planes, planes, 3)]
            for number, (co, ci, side) in enumerate(convs, start=1):
                keys |= {f"{at}.conv{number}.weight": (co, ci, side, side), **norm(f"{at}.bn{number}", co)}
            if gate:
                narrow = out // 16
                keys |= {f"{at}.se_module.fc1.weight": (narrow, out, 1, 1), f"{at}.se_module.fc1.bias": (narrow,)}
                keys |= {f"{at}.se_module.fc2.weight": (out, narrow, 1, 1), f"{at}.se_module.fc2.bias": (out,)}
            if unit == 0 and (stage > 0 or bottleneck):
                keys |= {f"{at}.downsample.0.weight": (out, cin, 1, 1), **norm(f"{at}.downsample.1", out)}
            cin = out
    return keys | {"fc.weight": (classes, cin), "fc.bias": (classes,)}


def mfnet_3d():
    """Keys and shapes of MFNet-3D's checkpoint, 400 classes."""
    keys = {"conv1.conv.weight": (16, 3, 3, 5, 5), **norm("conv1.bn", 16)}
    cin = 16
    for stage, (count, width) in enumerate([(3, 96), (4, 192), (6, 384), (3, 768)], start=2):
        for unit in range(1, count + 1):
            at, first = f"conv{stage}.B{unit:02d}", unit == 1
            parts = {
                "conv_i1": (cin, width // 4, (1, 1, 1), 1),
                "conv_i2": (width // 4, cin, (1, 1, 1), 1),
                "conv_m1": (cin, width, (3, 3, 3), 16),
                "conv_m2": (width, width, (1, 1, 1), 1) if first else (width, width, (1, 3, 3), 16),
            }
            if first:
                parts["conv_w1"] = (cin, width, (1, 1, 1), 1)
            for part, (ci, co, kernel, groups) in parts.items():
                keys |= {**norm(f"{at}.{part}.bn", ci), f"{at}.{part}.conv.weight": (co, ci // groups, *kernel)}
            cin = width
    return keys | {**norm("tail.bn", 768), "classifier.weight": (400, 768), "classifier.bias": (400,)}


def shapes(name, **fields):
    config = PRESETS[name].model_copy(update=fields)
    with torch.device("meta"):
        return {key: tuple(value.shape) for key, value in config.build().state_dict().items()}


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("resnet18", {"units": (2, 2, 2, 2), "bottleneck": False}),
        ("resnet50", {"units": (3, 4, 6, 3), "bottleneck": True}),
        ("resnet152", {"units": (3, 8, 36, 3), "bottleneck": True}),
        ("resnext50_32x4d", {"units": (3, 4, 6, 3), "bottleneck": True, "groups": 32, "base": 4}),
        ("resnext101_32x8d", {"units": (3, 4, 23, 3), "bottleneck": True, "groups": 32, "base": 8}),
        ("se_resnext101_32x4d", {"units": (3, 4, 23, 3), "bottleneck": True, "groups": 32, "base": 4, "gate": True}),
        ("c2d_resnet50", {"units": (3, 4, 6, 3), "bottleneck": True, "classes": 400}),
        ("tsm_resnet50", {"units": (3, 4, 6, 3), "bottleneck": True, "classes": 400}),
    ],
)
def test_resnets_have_torchvision_s_keys(name, layout):
    assert shapes(name) == torchvision_resnet(**layout)


def test_mfnet_has_the_keys_of_its_checkpoint():
    assert shapes("mfnet") == mfnet_3d()
