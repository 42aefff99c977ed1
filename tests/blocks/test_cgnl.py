"""CGNL against the generalised non-local operation with its full (position, channel) x (position, channel) matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from blocks.cgnl import CGNL
from blocks.configs import CGNLConfig, Shape


def make(shape: Shape, groups: int, dtype: torch.dtype = torch.float64) -> CGNL:
    torch.manual_seed(0)
    block = CGNL(CGNLConfig(groups=groups), shape).to(dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return block


def naive(block: CGNL, x: Tensor) -> Tensor:
    groups = block.config.groups

    def embedded(conv: torch.nn.Conv3d) -> list[Tensor]:
        return list(torch.einsum("oc,bcthw->bothw", conv.weight.flatten(1), x).chunk(groups, 1))

    mixed = []
    for theta, phi, g in zip(*map(embedded, (block.theta, block.phi, block.g)), strict=True):
        kernel = theta.flatten(1).unsqueeze(2) * phi.flatten(1).unsqueeze(1)  # every pair of (channel, position)
        mixed.append((kernel @ g.flatten(1).unsqueeze(2)).view_as(theta))
    weights = block.z.weight.flatten(1).chunk(groups, 0)
    z = torch.cat([torch.einsum("oc,bcthw->bothw", w, y) for w, y in zip(weights, mixed, strict=True)], 1)
    return functional.group_norm(z, groups, block.norm.weight, block.norm.bias) + x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [(Shape(6, 2, 5, 3), 3), (Shape(4, 1, 7, 2), 1), (Shape(8, 3, 2, 2), 4)],
    ids=["odd map", "one frame, one group", "one channel per group"],
)
def test_equals_the_generalised_operation(shape: Shape, groups: int, dtype: torch.dtype, tolerance: float) -> None:
    block = make(shape, groups, dtype)
    x = torch.randn(2, *shape, dtype=dtype, requires_grad=True)
    inputs = [x, *block.parameters()]
    ours, plain = block(x), naive(block, x)
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    goal = torch.randn_like(ours)
    expected = torch.autograd.grad((plain * goal).sum(), inputs)
    scale = max(float(grad.abs().max()) for grad in expected)  # those of phi and g are nearly zero, see below
    for given_grad, grad in zip(torch.autograd.grad((ours * goal).sum(), inputs), expected, strict=True):
        torch.testing.assert_close(given_grad, grad, atol=10 * tolerance * scale, rtol=0)


def test_group_norm_leaves_phi_and_g_nothing_but_a_sign() -> None:
    """phi^T g is one number per group, and GroupNorm divides every group by its spread."""
    block, x = make(Shape(8, 2, 3, 5), 2), torch.randn(1, 8, 2, 3, 5, dtype=torch.float64)
    before = block(x)
    with torch.no_grad():
        block.phi.weight.mul_(10)
        block.g.weight.mul_(-10)
    torch.testing.assert_close(block(x) - x - 2 * bias(block), x - before, atol=1e-4, rtol=0)


def bias(block: CGNL) -> Tensor:
    return block.norm.bias.view(1, -1, 1, 1, 1)


def test_the_response_of_one_group_by_hand() -> None:
    """theta = x_0, phi = x_1, g = x_0 + x_1 of one position and one of zeros: 2 * (3 * (2 + 3)) = 30."""
    block = CGNL(CGNLConfig(groups=1), Shape(2, 1, 1, 2)).double()
    with torch.no_grad():
        for conv, weight in ((block.theta, [1.0, 0.0]), (block.phi, [0.0, 1.0]), (block.g, [1.0, 1.0])):
            conv.weight.copy_(torch.tensor(weight, dtype=torch.float64).view(1, 2, 1, 1, 1))
        block.z.weight.copy_(torch.tensor([1.0, -1.0], dtype=torch.float64).view(2, 1, 1, 1, 1))
    block.norm = torch.nn.Identity()
    x = torch.tensor([[2.0, 0.0], [3.0, 0.0]], dtype=torch.float64).view(1, 2, 1, 1, 2)
    assert (block(x) - x).flatten().tolist() == [30.0, 0.0, -30.0, 0.0]


@given(st.permutations(range(2 * 3 * 5)))
@settings(max_examples=10, deadline=None)
def test_commutes_with_any_permutation_of_positions(order: list[int]) -> None:
    block, x = make(Shape(8, 2, 3, 5), 2), torch.randn(2, 8, 2, 3, 5, dtype=torch.float64)

    def permuted(maps: Tensor) -> Tensor:
        return maps.flatten(2)[:, :, order].view_as(maps)

    torch.testing.assert_close(block(permuted(x)), permuted(block(x)))


def test_attention_is_the_kernel_summed_over_channels() -> None:
    block, x = make(Shape(8, 2, 3, 5), 2), torch.randn(2, 8, 2, 3, 5, dtype=torch.float64)
    theta, phi = block.theta(x), block.phi(x)
    maps = block.attention(x, (1, 0, 4))
    for group, channels in enumerate((slice(0, 2), slice(2, 4))):
        kernel = torch.einsum("bc,bdthw->bthw", theta[:, channels, 1, 0, 4], phi[:, channels])
        torch.testing.assert_close(maps[:, group], kernel)


def test_bfloat16_stays_close() -> None:
    block, x = make(Shape(16, 3, 5, 7), 4, torch.float32), torch.randn(2, 16, 3, 5, 7)
    expected = block(x)
    error = (block.bfloat16()(x.bfloat16()).float() - expected).abs().max()
    assert error < 0.05 * expected.abs().max()


def test_one_block_in_res4_adds_the_printed_parameters() -> None:
    """PNL Table 5, Res50-CGNL: 27.2 M. ResNet-50 with its 1000-class head has 25,557,032."""
    added = CGNL.closed_form(CGNLConfig(), Shape(1024, 4, 14, 14)).params
    assert round((25_557_032 + added) / 1e6, 1) == 27.2


def test_cost_is_linear_in_the_positions() -> None:
    small, large = (CGNL.closed_form(CGNLConfig(), Shape(64, frames, 7, 5)) for frames in (3, 6))
    assert large.macs == 2 * small.macs
    assert large.product_macs == 2 * small.product_macs == 2 * 2 * 32 * 3 * 7 * 5


def test_weights_start_at_the_scale_a_relu_keeps() -> None:
    torch.manual_seed(0)
    block = CGNL(CGNLConfig(), Shape(256, 1, 1, 1))
    for conv in (block.theta, block.phi, block.g, block.z):
        # PyTorch counts all outputs, grouped or not.
        assert conv.weight.std().item() == pytest.approx((2 / conv.out_channels) ** 0.5, rel=0.05)
