"""The depthwise convolution's own gradients against PyTorch's."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocks.depthwise import depthwise

odd = st.sampled_from([1, 3, 5, 7])
side = st.integers(1, 6)


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x, weight, padding=[size // 2 for size in weight.shape[2:]], groups=x.shape[1])


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.integers(1, 3), st.integers(1, 7), side, side, side), st.tuples(odd, odd, odd), st.booleans())
def test_agrees_with_conv3d_forward_and_backward(
    shape: tuple[int, ...], kernel: tuple[int, int, int], channels_last: bool
) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    x.requires_grad_()
    weight = torch.randn(shape[1], 1, *kernel, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(shape, dtype=torch.float64)
    ours, theirs = depthwise(x, weight), plain(x, weight)
    torch.testing.assert_close(ours, theirs)
    gradients = (torch.autograd.grad(y, (x, weight), cotangent) for y in (ours, theirs))
    for our, their in zip(*gradients, strict=True):
        torch.testing.assert_close(our, their)


def test_second_derivatives() -> None:
    x = torch.randn(2, 3, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 3, 1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(depthwise, (x, weight))


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight = torch.randn(2, 3, 3, 5, 4, requires_grad=True), torch.randn(3, 1, 3, 3, 3)
    (grad_x,) = torch.autograd.grad(depthwise(x, weight).sum(), x)
    assert grad_x.shape == x.shape
    y = depthwise(x.detach(), weight.requires_grad_())
    (grad_weight,) = torch.autograd.grad(y.sum(), weight)
    assert grad_weight.shape == weight.shape
    assert not depthwise(x.detach(), weight.detach()).requires_grad


def test_half_precision_stays_within_two_percent() -> None:
    x, weight = torch.randn(2, 7, 3, 5, 11, requires_grad=True), torch.randn(7, 1, 3, 5, 3, requires_grad=True)
    cotangent = torch.randn(2, 7, 3, 5, 11)
    exact = depthwise(x, weight)
    half = depthwise(x.bfloat16(), weight)
    assert half.dtype == torch.bfloat16
    expected = torch.autograd.grad(exact, (x, weight), cotangent)
    given_ = torch.autograd.grad(half, (x, weight), cotangent.bfloat16())
    for ours, theirs in zip((half, *given_), (exact, *expected), strict=True):
        assert (ours - theirs).norm() <= 0.02 * theirs.norm()


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3)])
def test_one_number_by_hand(kernel: tuple[int, int, int]) -> None:
    # [1, 2, 3] with [1, 10, 100] and zeros around: 10 + 200, 1 + 20 + 300, 2 + 30.
    taps = torch.zeros(1, 1, *kernel)
    along_time = kernel[0] == 3
    x = torch.tensor([1.0, 2.0, 3.0]).reshape((1, 1, 3, 1, 1) if along_time else (1, 1, 1, 1, 3))
    taps[0, 0, :, kernel[1] // 2, :] = torch.tensor([1.0, 10.0, 100.0]).reshape((3, 1) if along_time else (1, 3))
    assert depthwise(x, taps).flatten().tolist() == [210.0, 321.0, 32.0]
