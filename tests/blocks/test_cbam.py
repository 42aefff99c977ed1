"""CBAM against a second implementation, the printed parameters and a number by hand."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.cbam import CBAM
from blocks.configs import CBAMConfig, Shape
from blocks.executed import observe

C, R, K = 21, 3, 3
SIZES = [(2, 3, 5, 7), (1, 4, 2, 6), (3, 1, 5, 2)]


def make(shape: Shape, dtype: torch.dtype = torch.float64) -> CBAM:
    torch.manual_seed(0)
    block = CBAM(CBAMConfig(reduction=R, kernel=K), shape).to(dtype)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def naive(block: CBAM, x: Tensor) -> Tensor:
    """Equations 1 to 3: matrices for the MLP, a sum of shifted maps for the convolution."""

    def mlp(pooled: Tensor) -> Tensor:
        hidden = (pooled @ block.down.weight.T + block.down.bias).clamp(min=0)
        return hidden @ block.up.weight.T + block.up.bias

    flat = x.flatten(2)
    gate = 1 / (1 + (-(mlp(flat.sum(2) / flat.shape[2]) + mlp(flat.max(2).values))).exp())
    x = gate[..., None, None, None] * x
    pooled = torch.stack((x.max(1).values, x.sum(1) / x.shape[1]), 1)
    padded, half = F.pad(pooled, [K // 2] * 6), torch.zeros_like(pooled[:, 0])
    t, h, w = x.shape[2:]
    for i, j, k in torch.cartesian_prod(*[torch.arange(K)] * 3).tolist():
        for side in range(2):
            half = half + block.spatial.weight[0, side, i, j, k] * padded[:, side, i : i + t, j : j + h, k : k + w]
    if block.training:
        mean, var = half.mean(), half.var(unbiased=False)
    else:
        assert block.norm.running_mean is not None
        assert block.norm.running_var is not None
        mean, var = block.norm.running_mean, block.norm.running_var
    normed = (half - mean) / (var + block.norm.eps).sqrt() * block.norm.weight + block.norm.bias
    return x / (1 + (-normed[:, None]).exp())


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *block.parameters()], cotangent)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-4)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_a_second_implementation(
    size: tuple[int, ...], training: bool, dtype: torch.dtype, tolerance: float
) -> None:
    b, *thw = size
    block = make(Shape(C, *thw), dtype).train(training)
    x = (torch.randn(b, C, *thw, dtype=dtype) - 2).requires_grad_()  # so that maxima have both signs
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_half_precision_stays_within_three_percent() -> None:
    block, x = make(Shape(C, 3, 5, 7), torch.float32).eval(), torch.randn(2, C, 3, 5, 7)
    exact = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x)
    assert (half - exact).norm() <= 0.03 * exact.norm()


def test_one_number_by_hand() -> None:
    # x = [1, 3]: mean 2, max 3; MLP(v) = 2v - 5 after ReLU(v): -1 + 1 = 0, M_c = 1/2, x' = [0.5, 1.5];
    # one tap on the maximum (2) and one on the mean (-2) cancel: 0, M_s = 1/2.
    block = CBAM(CBAMConfig(reduction=1, kernel=1), Shape(1, 2, 1, 1)).eval()
    for layer, weight, bias in ((block.down, 1.0, 0.0), (block.up, 2.0, -5.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    block.spatial.weight.data = torch.tensor([2.0, -2.0]).reshape(1, 2, 1, 1, 1)
    assert block(torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1, 1)).flatten().tolist() == [0.25, 0.75]


def test_parameters_of_rnl_table_3_are_printed_in_the_row_of_gc() -> None:
    added = sum(
        count * CBAM.closed_form(CBAMConfig(), Shape(channels, 8, 28, 28)).params
        for channels, count in ((512, 2), (1024, 3))
    )
    assert added == 463_104 + 5 * (2 * 7**3 + 2)
    assert round(24.327632 + added / 1e6, 2) == 24.79  # printed: CBAM 24.80, GC 24.79


@pytest.mark.parametrize("shape", [Shape(C, 3, 5, 7), Shape(C, 1, 2, 3), Shape(R, 3, 5, 7), Shape(2, 3, 5, 7)], ids=str)
def test_cost_is_what_runs(shape: Shape) -> None:
    with torch.device("meta"):
        block = CBAM(CBAMConfig(reduction=min(R, shape.channels)), shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())
    assert cost.macs == 4 * shape.channels * max(1, shape.channels // R) + 2 * 7**3 * prod(shape[1:])


def test_has_no_attention_map_and_a_stable_state_dict() -> None:
    block = make(Shape(C, 3, 5, 7))
    assert block.attention(torch.randn(1, C, 3, 5, 7, dtype=torch.float64), (0, 0, 0)) is None
    norm = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}
    assert set(block.state_dict()) == norm | {"down.weight", "down.bias", "up.weight", "up.bias", "spatial.weight"}


def test_bad_choices_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel must be odd, given 4"):
        CBAMConfig(kernel=4)
    with pytest.raises(ValueError, match="24 channels are not divisible by reduction=16"):
        CBAM(CBAMConfig(), Shape(24, 3, 5, 7))
