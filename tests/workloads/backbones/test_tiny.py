"""resnet-tiny: its size, its maps, and that its stages are the network."""

import pytest
import torch

from workloads.backbones.model import build_model
from workloads.registry import parse_backbone, parse_workload
from workloads.spec import ModelSpec


def tiny(**fields):
    spec = ModelSpec(backbone=parse_backbone({"name": "resnet_tiny", **fields}), block={"name": "none"}, insertion={})
    return build_model(spec)


def test_has_the_parameters_of_its_definition():
    # stem 16*9 + 32; res2 2*(16*16*9 + 32); res3 16*32*9 + 32*32*9 + 16*32 + 3*64; res4 32*64*9 + 64*64*9 + 32*64
    # + 3*128; res5 2*(64*64*9 + 128); fc 650.
    assert sum(parameter.numel() for parameter in tiny().parameters()) == 151_738


def test_the_memory_format_stays_the_fast_one_for_one_channel():
    model = tiny()
    maps = model.stage_modules()["stem"](torch.randn(3, 1, 4, 16, 16))
    assert maps.shape == (3, 16, 4, 8, 8)
    assert maps.is_contiguous(memory_format=torch.channels_last_3d)
    assert model.features(torch.randn(3, 1, 4, 16, 16)).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("frames", [1, 4, 7])
def test_a_clip_s_scores_are_the_mean_of_its_frames_scores(frames):
    model = tiny().eval()
    clip = torch.randn(2, 1, frames, 16, 16)
    alone = torch.stack([model(clip[:, :, [t]]) for t in range(frames)]).mean(dim=0)
    torch.testing.assert_close(model(clip), alone)


def test_widths_and_strides_are_checked():
    with pytest.raises(ValueError, match=r"widths must be positive, given \[16, 0, 64, 64\]"):
        tiny(widths=[16, 0, 64, 64])


def test_the_shifted_one_is_the_same_network_that_sees_the_order_of_frames():
    fields = {
        "frames": 4,
        "size": 16,
        "classes": 10,
        "channels": 1,
        "widths": [16, 32, 64, 64],
        "strides": [1, 2, 2, 1],
    }
    shifted = parse_backbone({"name": "tsm_tiny", **fields}).build().eval()
    plain = tiny(**fields).eval()
    shifted.load_state_dict(plain.state_dict())
    clip = torch.randn(2, 1, 4, 16, 16)
    torch.testing.assert_close(plain(clip.flip(2)), plain(clip))
    assert not torch.allclose(shifted(clip.flip(2)), shifted(clip), atol=1e-3)
    assert [
        type(unit.shift).__name__ for stage in ("res2", "res3", "res4", "res5") for unit in shifted.units(stage)
    ] == ["TemporalShift"] * 4


def test_the_shifted_one_is_the_default_for_ones_own_videos():
    given = parse_workload({"name": "folder", "class_count": 7}).defaults()["backbone"]
    shape = parse_backbone({"classes": 7, **given}).stages()["res5"].shape
    assert (given["name"], tuple(shape)) == ("tsm_tiny", (128, 8, 4, 4))
