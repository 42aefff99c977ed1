"""The SE + RNL chain: its gate against a second implementation, the printed parameters, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blocks.chain import SERNL, ChannelShift
from blocks.configs import SERNLConfig, Shape
from blocks.executed import observe

C, R = 26, 2
SIZES = [(2, 3, 5, 7), (3, 4, 2, 6), (2, 1, 5, 2)]


def make(shape: Shape, dtype: torch.dtype = torch.float64, **choices: Any) -> SERNL:
    """A block with random weights everywhere, so that nothing is hidden by an initial zero."""
    torch.manual_seed(0)
    block = SERNL(SERNLConfig.parse({"kernel": (3, 3, 5), "gate_reduction": R, **choices}), shape).to(dtype)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def naive_gate(gate: ChannelShift, x: Tensor) -> Tensor:
    """Equations 10 to 12, sums written out."""
    b, c = x.shape[:2]
    n = x[0, 0].numel()
    if gate.key is None:
        pooled = x.flatten(2).sum(2) / n
    else:
        assert gate.key.bias is not None
        score = torch.einsum("c,bcn->bn", gate.key.weight.flatten(), x.flatten(2)) + gate.key.bias
        share = score.exp() / score.exp().sum(1, keepdim=True)
        pooled = torch.einsum("bn,bcn->bc", share, x.flatten(2))
    hidden = torch.einsum("oc,bc->bo", gate.down.weight, pooled) + gate.down.bias
    if gate.training:
        mean, var = hidden.mean(0), hidden.var(0, unbiased=False)
    else:
        assert gate.norm.running_mean is not None
        assert gate.norm.running_var is not None
        mean, var = gate.norm.running_mean, gate.norm.running_var
    hidden = (hidden - mean) / (var + gate.norm.eps).sqrt() * gate.norm.weight + gate.norm.bias
    shift = torch.einsum("oc,bc->bo", gate.up.weight, hidden.clamp(min=0)) + gate.up.bias
    return x + shift.reshape(b, c, 1, 1, 1)


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *block.parameters()], cotangent)]


@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_is_the_gate_then_rnl(pool: str, size: tuple[int, ...], training: bool, implementation: str) -> None:
    b, *thw = size
    block = make(Shape(C, *thw), gate_pool=pool, implementation=implementation).train(training)
    x = torch.randn(b, C, *thw, dtype=torch.float64, requires_grad=True)
    expected = block.rnl(naive_gate(block.gate, x))
    for ours, theirs in zip(outcome(block(x), x, block), outcome(expected, x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_lower_precision_stays_within_rounding(pool: str) -> None:
    block = make(Shape(C, 3, 5, 7), torch.float32, gate_pool=pool).eval()
    x = torch.randn(2, C, 3, 5, 7, requires_grad=True)
    expected = block.rnl(naive_gate(block.gate, x))
    for ours, theirs in zip(outcome(block(x), x, block), outcome(expected, x, block), strict=True):
        assert (ours - theirs).norm() <= 2e-4 * theirs.norm() + 1e-4
    gated = naive_gate(block.gate, x) - x
    with torch.autocast("cpu", torch.bfloat16):
        half = block.gate(x) - x
    assert half.dtype == torch.float32
    assert (half - gated).norm() <= 0.03 * gated.norm()


def test_one_number_by_hand() -> None:
    # mean of [1, 3] = 2; W_1 = 3: 6; running mean 4, variance 1, gamma 1, beta 0: 2; W_2 = 5, bias 1: 11; added to x.
    gate = ChannelShift(1, 1, attention=False).eval()
    for layer, weight, bias in ((gate.down, 3.0, 0.0), (gate.up, 5.0, 1.0)):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    gate.norm.eps = 0.0
    assert gate.norm.running_mean is not None
    gate.norm.running_mean.fill_(4.0)
    assert gate(torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1, 1)).flatten().tolist() == [12.0, 14.0]


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_parameters_of_table_3(pool: str) -> None:
    added = 0
    for channels, kernel, count in ((512, (3, 7, 7), 2), (1024, (3, 3, 3), 3)):
        config = SERNLConfig.parse({"kernel": kernel, "parity": "masked_grouped", "gate_pool": pool})
        with torch.device("meta"):
            block = SERNL(config, Shape(channels, 8, 28, 28))
        assert block.cost().params == sum(parameter.numel() for parameter in block.parameters())
        added += count * block.cost().params
    assert round(24.327632 + added / 1e6, 2) == 35.95


def test_the_printed_reduction_of_2_does_not_give_table_3() -> None:
    gates = sum(
        count * sum(parameter.numel() for parameter in ChannelShift(channels, 2, attention=False).parameters())
        for channels, count in ((512, 2), (1024, 3))
    )
    assert round(35.483088 + gates / 1e6, 2) == 39.16


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_identity_at_start(pool: str) -> None:
    block = SERNL(SERNLConfig(gate_pool=pool, gate_reduction=R), Shape(C, 3, 5, 7))  # type: ignore[arg-type]
    x = torch.randn(2, C, 3, 5, 7)
    assert torch.equal(block(x), x)
    assert torch.equal(block.gate(x), x)


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_training_on_one_clip_is_refused_and_evaluating_it_is_not(pool: str) -> None:
    block, x = make(Shape(C, 3, 5, 7), gate_pool=pool), torch.randn(1, C, 3, 5, 7, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"at least 2 clips per device at once, given 1; use a micro-batch of 2"):
        block(x)
    assert block.eval()(x).shape == x.shape


@pytest.mark.parametrize("training", [True, False])
def test_attention_is_that_of_rnl_on_the_gated_map_and_leaves_no_trace(training: bool) -> None:
    block = make(Shape(C, 3, 5, 7), affinity="dot_product").train(training)  # softmax would see one position only
    x = torch.randn(1, C, 3, 5, 7, dtype=torch.float64)
    before = {name: value.clone() for name, value in block.state_dict().items()}
    maps = block.attention(x, (1, 2, 3))
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert block.gate.training == block.gate.norm.training == training
    torch.testing.assert_close(maps, block.rnl.attention(block.eval().gate(x), (1, 2, 3)))
    assert not torch.allclose(maps, block.rnl.attention(x, (1, 2, 3)), rtol=0.1)


@pytest.mark.parametrize("shape", [Shape(C, 3, 5, 7), Shape(C, 1, 3, 2), Shape(128, 2, 2, 3)], ids=str)
@pytest.mark.parametrize(
    "choices", [{}, {"gate_pool": "attention"}, {"kernel": (1, 1, 1), "affinity": "cosine"}], ids=str
)
def test_cost_is_what_runs(choices: dict[str, Any], shape: Shape) -> None:
    config = SERNLConfig.parse({"gate_reduction": R, "implementation": "reference", **choices})
    with torch.device("meta"):
        block = SERNL(config, shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())


def test_state_dict_is_stable() -> None:
    names = set(make(Shape(C, 3, 5, 7), gate_pool="attention").state_dict())
    gate = {f"gate.{layer}.{kind}" for layer in ("key", "down", "up", "norm") for kind in ("weight", "bias")}
    gate |= {f"gate.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert {name for name in names if name.startswith("gate.")} == gate
    assert {name.split(".")[0] for name in names} == {"gate", "rnl"}


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'se_rnl' cannot be inserted.*not divisible by gate_reduction=16"):
        SERNL(SERNLConfig(), Shape(24, 3, 5, 7))
