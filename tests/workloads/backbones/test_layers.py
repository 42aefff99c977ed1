"""Folding frames into the batch: right, a view, and the same as a 3-D convolution."""

import pytest
import torch
from torch import nn

from workloads.backbones.layers import ChannelsLast, FrameConv, FrameMaxPool, LongRange, convolution, fold, unfold

LAST = torch.channels_last_3d


def test_fold_puts_frames_after_clips():
    x = torch.arange(2 * 3 * 5.0).view(2, 3, 5, 1, 1)
    folded = fold(x)
    assert folded.shape == (10, 3, 1, 1)
    assert all(torch.equal(folded[b * 5 + t], x[b, :, t]) for b in range(2) for t in range(5))
    assert torch.equal(unfold(folded, 5), x)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7, 11), (2, 1, 5, 7, 11), (1, 3, 1, 7, 11)])
def test_folding_channels_last_clips_copies_nothing(shape):
    x = ChannelsLast()(torch.randn(shape))
    assert x.is_contiguous(memory_format=LAST)
    assert fold(x).data_ptr() == x.data_ptr()
    assert fold(x).stride()[1] == 1
    assert unfold(fold(x), shape[2]).data_ptr() == x.data_ptr()
    assert unfold(fold(x), shape[2]).is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(("side", "stride", "groups"), [(1, 1, 1), (1, 2, 1), (3, 1, 2), (3, 2, 4), (7, 2, 1)])
def test_per_frame_convolution_is_the_3d_one_with_a_flat_kernel(side, stride, groups):
    torch.manual_seed(0)
    flat = convolution(8, 12, side, stride=stride, groups=groups)
    assert isinstance(flat, FrameConv)
    assert flat.weight.shape == (12, 8 // groups, side, side)
    half = side // 2
    deep = nn.Conv3d(8, 12, (1, side, side), (1, stride, stride), (0, half, half), groups=groups, bias=False)
    deep.weight.data = flat.weight.data.unsqueeze(2)
    x = torch.randn(2, 8, 3, 11, 13)
    torch.testing.assert_close(flat(x), deep(x), rtol=1e-4, atol=1e-5)


def test_convolutions_that_see_or_skip_frames_have_3d_weights():
    assert convolution(4, 6, 1, time=3).weight.shape == (6, 4, 3, 1, 1)
    skipping = convolution(4, 6, 7, stride=2, time_stride=2)
    assert skipping.weight.shape == (6, 4, 1, 7, 7)
    assert skipping(torch.randn(1, 4, 5, 13, 17)).shape == (1, 6, 3, 7, 9)


def test_per_frame_pool_is_the_3d_one():
    x = torch.randn(2, 3, 5, 11, 14)
    assert torch.equal(FrameMaxPool(3, 2, 1)(x), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))(x))


class Contiguous(nn.Module):
    def forward(self, x):
        return x.contiguous() + 0


class Last(nn.Module):
    def forward(self, x):
        return ChannelsLast()(x) + 0


@pytest.mark.parametrize("block", [Contiguous(), Last()])
@pytest.mark.parametrize("layout", [ChannelsLast(), nn.Identity(), Last()])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7, 11), (2, 3, 5, 1, 1), (1, 3, 1, 1, 1)])
def test_a_block_s_output_goes_on_in_the_memory_format_that_the_block_was_given(block, layout, shape):
    holder = LongRange({"unit": block})
    x = layout(torch.randn(shape)).requires_grad_()
    out = holder(x)
    assert out.stride() == x.stride()
    assert torch.equal(out, x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.ones(shape))
    assert holder(x, "branch") is x
