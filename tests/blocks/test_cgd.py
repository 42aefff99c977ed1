"""CGD against its equations written out channel by channel."""

from math import exp, tanh

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blocks.cgd import CGD
from blocks.configs import CGDConfig, Shape


def make(shape: Shape, dtype: torch.dtype = torch.float64) -> CGD:
    torch.manual_seed(0)
    block = CGD(CGDConfig(), shape).to(dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return block


def naive(block: CGD, x: Tensor) -> Tensor:
    clips = []
    for clip in x:
        mean = torch.stack([channel.sum() / channel.numel() for channel in clip])
        highest = torch.stack([channel.max() for channel in clip])
        share = mean.exp() / mean.exp().sum()
        a, m = (mean * block.w0[:, 0]).sum(), (highest * block.w1[:, 0]).sum()
        psi = [torch.tanh(s * a + b) for s, b in zip(share, block.b0, strict=True)]
        phi = [torch.tanh(s * m + b) for s, b in zip(share, block.b1, strict=True)]
        c = sum(f * w for f, w in zip(phi, block.w2[:, 0], strict=True))
        gates = [1 + torch.tanh(f * c + b) for f, b in zip(psi, block.b2, strict=True)]
        clips.append(torch.stack([channel * gate for channel, gate in zip(clip, gates, strict=True)]))
    return torch.stack(clips)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("shape", [Shape(7, 3, 5, 2), Shape(3, 1, 4, 11)], ids=str)
def test_equals_the_equations_forward_and_backward(shape: Shape, dtype: torch.dtype, tolerance: float) -> None:
    block = make(shape, dtype)
    x = torch.randn(2, *shape, dtype=dtype, requires_grad=True)
    inputs = [x, *block.parameters()]
    ours, plain = block(x), naive(block, x)
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    goal = torch.randn_like(ours)
    for given_grad, expected in zip(
        torch.autograd.grad((ours * goal).sum(), inputs), torch.autograd.grad((plain * goal).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(given_grad, expected, atol=10 * tolerance, rtol=10 * tolerance)


def test_one_gate_by_hand() -> None:
    block = CGD(CGDConfig(), Shape(2, 1, 1, 2)).double()
    with torch.no_grad():
        for parameter, values in (
            (block.w0, [1.0, 0.5]), (block.w1, [0.25, -0.25]), (block.w2, [2.0, 1.0]),
            (block.b0, [0.1, 0.0]), (block.b1, [0.0, 0.3]), (block.b2, [0.2, -0.1]),
        ):  # fmt: skip
            parameter.copy_(torch.tensor(values, dtype=torch.float64).view_as(parameter))
    x = torch.tensor([[1.0, 3.0], [0.0, 2.0]], dtype=torch.float64).view(1, 2, 1, 1, 2)
    share = exp(2) / (exp(2) + exp(1))  # means 2 and 1, maxima 3 and 2; a.w0 = 2.5, m.w1 = 0.25
    weighted = 2 * tanh(0.25 * share) + tanh(0.25 * (1 - share) + 0.3)
    gate = 1 + tanh(tanh(2.5 * share + 0.1) * weighted + 0.2)
    assert block(x)[0, 0, 0, 0, 1].item() == pytest.approx(3 * gate, rel=1e-12)


@given(st.permutations(range(2 * 3 * 5)))
@settings(max_examples=10, deadline=None)
def test_commutes_with_any_permutation_of_positions(order: list[int]) -> None:
    block, x = make(Shape(4, 2, 3, 5)), torch.randn(2, 4, 2, 3, 5, dtype=torch.float64)

    def permuted(maps: Tensor) -> Tensor:
        return maps.flatten(2)[:, :, order].view_as(maps)

    torch.testing.assert_close(block(permuted(x)), permuted(block(x)))


def test_bfloat16_stays_close() -> None:
    block, x = make(Shape(8, 3, 5, 7), torch.float32), torch.randn(2, 8, 3, 5, 7)
    expected = block(x)
    error = (block.bfloat16()(x.bfloat16()).float() - expected).abs().max()
    assert error < 0.05 * expected.abs().max()


def test_resnet50_with_a_gate_after_every_conv1_has_the_printed_parameters() -> None:
    """PNL Table 5, Res50-CGD: 25.58 M. ResNet-50 with its 1000-class head has 25,557,032."""
    widths = [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3
    gates = sum(CGD.closed_form(CGDConfig(), Shape(width, 1, 7, 7)).params for width in widths)
    assert round((25_557_032 + gates) / 1e6, 2) == 25.58


def test_weights_start_uniform_by_xavier_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    block, bound = CGD(CGDConfig(), Shape(600, 1, 1, 1)), (6 / 601) ** 0.5
    for weight in (block.w0, block.w1, block.w2):
        assert 0.95 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not any(bias.any() for bias in (block.b0, block.b1, block.b2))
