"""The temporal shift, by hand and against a loop."""

import pytest
import torch

from workloads.backbones.families import TSMConfig
from workloads.backbones.tsm import TemporalShift


def test_by_hand():
    # Four channels, three frames, one pixel; divisor 4: one channel each way. Channel c of frame t is 10 * c + t.
    x = torch.tensor([[[1.0, 2, 3], [11, 12, 13], [21, 22, 23], [31, 32, 33]]]).view(1, 4, 3, 1, 1)
    shifted = TemporalShift(4)(x).view(4, 3)
    assert shifted.tolist() == [
        [2, 3, 0],  # from the next frame
        [0, 11, 12],  # from the previous frame
        [21, 22, 23],
        [31, 32, 33],
    ]


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_against_a_loop_over_frames_forward_and_backward(frames):
    x = torch.randn(2, 17, frames, 3, 7, dtype=torch.float64, requires_grad=True)
    n = 17 // 8
    out = torch.zeros_like(x)
    for t in range(frames):
        for c in range(17):
            source = t + 1 if c < n else t - 1 if c < 2 * n else t
            if 0 <= source < frames:
                out[:, c, t] = x[:, c, source]
    weights = torch.randn_like(out)
    (expected,) = torch.autograd.grad((out * weights).sum(), x)
    (got,) = torch.autograd.grad((TemporalShift(8)(x) * weights).sum(), x)
    assert torch.equal(TemporalShift(8)(x), out)
    assert torch.equal(got, expected)


def test_shift_keeps_the_memory_format():
    x = torch.randn(2, 16, 3, 5, 7).contiguous(memory_format=torch.channels_last_3d)
    assert TemporalShift(8)(x).is_contiguous(memory_format=torch.channels_last_3d)


def test_every_unit_shifts_its_branch_and_not_its_shortcut():
    torch.manual_seed(0)
    model = TSMConfig(name="x", depth=18, frames=3, size=32, classes=5).build().eval()
    units = [unit for stage in ("res2", "res3", "res4", "res5") for unit in model.units(stage)]
    assert [type(unit.shift).__name__ for unit in units] == ["TemporalShift"] * 8
    unit = model.layer1[0]
    x = torch.randn(1, 64, 3, 5, 7)
    with torch.no_grad():
        shifted = unit.shift(x)
        by_hand = torch.relu(unit.bn2(unit.conv2(torch.relu(unit.bn1(unit.conv1(shifted))))) + x)
        assert torch.equal(unit(x), by_hand)


def test_a_frame_sees_only_its_neighbourhood():
    torch.manual_seed(0)
    model = TSMConfig(name="x", depth=18, frames=7, size=32, classes=5).build().eval()
    x = torch.randn(1, 3, 7, 32, 32)
    changed = x.clone()
    changed[:, :, 6] += 1
    with torch.no_grad():
        before, after = (model.layer1(model.stage_modules()["stem"](clip)) for clip in (x, changed))
    differs = [not torch.equal(before[:, :, t], after[:, :, t]) for t in range(7)]
    assert differs == [False, False, False, False, True, True, True]  # two units of res2: two frames away
