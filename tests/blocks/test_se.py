"""Squeeze-and-excitation against a second implementation, the printed parameters and a number by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from blocks.configs import SEConfig, Shape
from blocks.executed import observe
from blocks.se import SE

C, R = 21, 3
SIZES = [(2, 3, 5, 7), (1, 4, 2, 6), (3, 1, 5, 2), (1, 1, 1, 1)]


def make(shape: Shape, dtype: torch.dtype = torch.float64) -> SE:
    torch.manual_seed(0)
    block = SE(SEConfig(reduction=R), shape).to(dtype)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def naive(block: SE, x: Tensor) -> Tensor:
    """Clip after clip, from matrices."""
    gated = []
    for clip in x:
        squeezed = torch.stack([channel.sum() / channel.numel() for channel in clip])
        hidden = (block.down.weight @ squeezed + block.down.bias).clamp(min=0)
        gate = 1 / (1 + (-(block.up.weight @ hidden + block.up.bias)).exp())
        gated.append(torch.stack([g * channel for g, channel in zip(gate, clip, strict=True)]))
    return torch.stack(gated)


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *block.parameters()], cotangent)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_a_second_implementation(size: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    b, *thw = size
    block = make(Shape(C, *thw), dtype)
    x = torch.randn(b, C, *thw, dtype=dtype, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_half_precision_stays_within_two_percent() -> None:
    block, x = make(Shape(C, 3, 5, 7), torch.float32), torch.randn(2, C, 3, 5, 7)
    exact = block(x)
    half = block.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half - exact).norm() <= 0.02 * exact.norm()


def test_one_number_by_hand() -> None:
    # mean of [1, 3] = 2; W_1 = 2, b_1 = -1: 3; W_2 = 1, b_2 = -3: 0; sigmoid(0) = 1/2.
    block = SE(SEConfig(reduction=1), Shape(1, 2, 1, 1))
    for layer, weight, bias in ((block.down, 2.0, -1.0), (block.up, 1.0, -3.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    assert block(torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1, 1)).flatten().tolist() == [0.5, 1.5]


def test_parameters_of_rnl_table_3() -> None:
    added = sum(
        count * SE.closed_form(SEConfig(), Shape(channels, 8, 28, 28)).params
        for channels, count in ((512, 2), (1024, 3))
    )
    assert added == 463_104
    assert round(24.327632 + added / 1e6, 2) == 24.79


@pytest.mark.parametrize("shape", [Shape(C, 3, 5, 7), Shape(C, 1, 1, 1)], ids=str)
def test_cost_is_what_runs(shape: Shape) -> None:
    with torch.device("meta"):
        block = SE(SEConfig(reduction=R), shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())


def test_has_no_attention_map_and_a_stable_state_dict() -> None:
    block = make(Shape(C, 3, 5, 7))
    assert block.attention(torch.randn(1, C, 3, 5, 7, dtype=torch.float64), (0, 0, 0)) is None
    assert set(block.state_dict()) == {"down.weight", "down.bias", "up.weight", "up.bias"}


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="24 channels are not divisible by reduction=16"):
        SE(SEConfig(), Shape(24, 3, 5, 7))
