"""StNet's super-images, temporal blocks and parameters."""

import pytest
import torch

from workloads.backbones.families import PRESETS, StNetConfig
from workloads.backbones.stnet import SuperImages, TemporalModelling, TemporalXception


def test_super_images_by_hand():
    # Two channels, five frames, one pixel; value 10 * channel + frame; N = 2: the last image repeats the last frame.
    x = torch.tensor([[[0.0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]]).view(1, 2, 5, 1, 1)
    images = SuperImages(2)(x)
    assert images.shape == (1, 4, 3, 1, 1)
    assert images.view(4, 3).T.tolist() == [[0, 10, 1, 11], [2, 12, 3, 13], [4, 14, 4, 14]]


def test_one_stacked_frame_is_the_clip_itself():
    x = torch.randn(2, 3, 5, 7, 11)
    assert torch.equal(SuperImages(1)(x), x)


def test_temporal_modelling_against_the_sum_over_three_frames():
    torch.manual_seed(0)
    block = TemporalModelling(5).eval().double()
    x = torch.randn(2, 5, 4, 3, 7, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (0, 0, 0, 0, 1, 1))
    weight = block.conv.weight[..., 0, 0]  # [out, in, 3]
    conv = sum(torch.einsum("oi,bithw->bothw", weight[..., k], padded[:, :, k : k + 4]) for k in range(3))
    bias = block.conv.bias.view(-1, 1, 1, 1)
    scale = 1 / (1 + block.bn.eps) ** 0.5  # fresh running statistics: mean 0, variance 1
    torch.testing.assert_close(block(x), x + scale * torch.relu(conv + bias))


def test_temporal_xception_against_plain_products():
    torch.manual_seed(0)
    block = TemporalXception(6, 4).eval().double()
    f = torch.randn(1, 6, 5, 1, 1, dtype=torch.float64)
    scale = 1 / (1 + block.bn.eps) ** 0.5

    def separable(layers, x):  # x: [C, T]
        channelwise, pointwise = layers
        padded = torch.nn.functional.pad(x, (1, 1))
        k = channelwise.weight[:, 0, :, 0, 0]
        mixed = sum(k[:, [j]] * padded[:, j : j + x.shape[1]] for j in range(3)) + channelwise.bias[:, None]
        return pointwise.weight[..., 0, 0, 0] @ mixed + pointwise.bias[:, None]

    b = scale * f[0, :, :, 0, 0]
    branch = separable(block.separable2, torch.relu(scale * separable(block.separable1, b)))
    shortcut = block.shortcut.weight[..., 0, 0, 0] @ b + block.shortcut.bias[:, None]
    torch.testing.assert_close(block(f)[0, :, :, 0, 0], torch.relu(scale * (shortcut + branch)))


def test_parameters_are_resnet_50_s_and_the_temporal_parts():
    with torch.device("meta"):
        model = PRESETS["stnet_resnet50"].build()
    resnet50_without_fc = 25_557_032 - 2_049_000
    stem = 64 * 12 * 49  # 15 input channels in place of 3
    modelling = sum(3 * c * c + c + 2 * c for c in (512, 1024))
    separables = (3 * 2048 + 2048) + (2048 * 1024 + 1024) + (3 * 1024 + 1024) + (1024 * 1024 + 1024)
    xception = 2 * 2048 + separables + 2 * 1024 + (2048 * 1024 + 1024) + 2 * 1024
    fc = 1024 * 400 + 400
    expected = resnet50_without_fc + stem + modelling + xception + fc
    assert sum(parameter.numel() for parameter in model.parameters()) == expected == 33_158_864


@pytest.mark.parametrize(("frames", "images"), [(35, 7), (8, 2), (1, 1), (11, 3)])
def test_any_number_of_frames_makes_whole_super_images(frames, images):
    config = StNetConfig(name="x", depth=18, frames=frames, size=32)
    assert {stage.shape.frames for stage in config.stages().values()} == {images}


def test_hgnl_s_stnet_takes_one_frame_per_segment():
    assert PRESETS["stnet_se_resnext101"].stages()["head"].shape == (1024, 3, 1, 1)
