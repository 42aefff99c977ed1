"""The global context block against a second implementation, the printed parameters and a number by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from blocks.configs import GCConfig, Shape
from blocks.executed import observe
from blocks.gc import GC

C, R = 21, 3
SIZES = [(2, 3, 5, 7), (1, 4, 2, 6), (3, 1, 5, 2), (1, 1, 1, 1)]


def make(shape: Shape, dtype: torch.dtype = torch.float64) -> GC:
    """A block with random weights everywhere, so that nothing is hidden by an initial zero."""
    torch.manual_seed(0)
    block = GC(GCConfig(reduction=R), shape).to(dtype)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def naive(block: GC, x: Tensor) -> Tensor:
    """Clip after clip, position after position."""
    assert block.key.bias is not None
    assert block.down.bias is not None
    assert block.up.bias is not None
    added = []
    for clip in x:
        positions = clip.flatten(1).T
        scores = torch.stack([block.key.weight.flatten() @ position + block.key.bias[0] for position in positions])
        shares = scores.exp() / scores.exp().sum()
        context = torch.stack([share * position for share, position in zip(shares, positions, strict=True)]).sum(0)
        hidden = block.down.weight[:, :, 0, 0, 0] @ context + block.down.bias
        hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + block.norm.eps).sqrt()
        hidden = (hidden * block.norm.weight.flatten() + block.norm.bias.flatten()).clamp(min=0)
        delta = block.up.weight[:, :, 0, 0, 0] @ hidden + block.up.bias
        added.append(clip + delta[:, None, None, None])
    return torch.stack(added)


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *block.parameters()], cotangent)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-3)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_agrees_with_a_second_implementation(size: tuple[int, ...], dtype: torch.dtype, tolerance: float) -> None:
    b, *thw = size
    block = make(Shape(C, *thw), dtype)
    x = torch.randn(b, C, *thw, dtype=dtype, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_half_precision_stays_within_five_percent() -> None:
    block, x = make(Shape(C, 3, 5, 7), torch.float32), torch.randn(2, C, 3, 5, 7)
    exact = block(x) - x
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x) - x
    assert (half - exact).norm() <= 0.05 * exact.norm()


def test_one_number_by_hand() -> None:
    # equal scores: the context is the mean [2, 0]; W_v1 = I: [2, 0], normalised [1, -1], after ReLU [1, 0];
    # W_v2 = 3 I and bias 1: [4, 1], added to every position.
    block = GC(GCConfig(reduction=1), Shape(2, 2, 1, 1))
    nn.init.zeros_(block.key.weight)
    for conv, scale, bias in ((block.down, 1.0, 0.0), (block.up, 3.0, 1.0)):
        assert conv.bias is not None
        conv.weight.data = scale * torch.eye(2)[:, :, None, None, None]
        nn.init.constant_(conv.bias, bias)
    block.norm.eps = 0.0
    x = torch.tensor([[1.0, 3.0], [-5.0, 5.0]]).reshape(1, 2, 2, 1, 1)
    assert block(x).flatten().tolist() == [5.0, 7.0, -4.0, 6.0]


def test_identity_at_start_and_every_gradient_later() -> None:
    torch.manual_seed(0)
    block, x = GC(GCConfig(reduction=R), Shape(C, 3, 5, 7)), torch.randn(2, C, 3, 5, 7)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().sum().backward()
        optimizer.step()
    # A bias of the scores shifts all of them alike: the softmax does not see it, in the paper's block either.
    unseen = {"key.bias"}
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None
        assert name in unseen or parameter.grad.abs().max() > 0, name


def test_parameters_of_rnl_table_3_are_printed_in_the_row_of_cbam() -> None:
    added = sum(
        count * GC.closed_form(GCConfig(), Shape(channels, 8, 28, 28)).params
        for channels, count in ((512, 2), (1024, 3))
    )
    assert added == 467_717
    assert round(24.327632 + added / 1e6, 2) == 24.80  # printed: CBAM 24.80, GC 24.79


def test_attention_is_one_map_for_all_positions_and_sums_to_one() -> None:
    block, x = make(Shape(C, 3, 5, 7)), torch.randn(2, C, 3, 5, 7, dtype=torch.float64)
    maps = block.attention(x, (0, 1, 2))
    assert maps.shape == (2, 1, 3, 5, 7)
    assert torch.equal(maps, block.attention(x, (2, 4, 6)))
    torch.testing.assert_close(maps.sum((1, 2, 3, 4)), torch.ones(2, dtype=torch.float64))
    context = (maps * x).sum((2, 3, 4))[..., None, None, None]
    torch.testing.assert_close(block(x) - x, block.up(block.norm(block.down(context)).relu()).expand_as(x))


@pytest.mark.parametrize("shape", [Shape(C, 3, 5, 7), Shape(C, 1, 1, 1), Shape(2 * R, 3, 5, 7)], ids=str)
def test_cost_is_what_runs(shape: Shape) -> None:
    with torch.device("meta"):
        block = GC(GCConfig(reduction=R), shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())


def test_state_dict_is_stable() -> None:
    names = {f"{layer}.{kind}" for layer in ("key", "down", "norm", "up") for kind in ("weight", "bias")}
    state = make(Shape(C, 3, 5, 7)).state_dict()
    assert set(state) == names
    assert state["norm.weight"].shape == (*state["down.weight"].shape[:1], 1, 1, 1), "as in the released checkpoints"


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="24 channels are not divisible by reduction=16"):
        GC(GCConfig(), Shape(24, 3, 5, 7))


def test_a_bottleneck_of_one_channel_is_refused_since_its_norm_is_zero() -> None:
    with pytest.raises(ValueError, match="reduction=16 leaves one of 16 channels"):
        GC(GCConfig(), Shape(16, 3, 5, 7))
    assert GCConfig(reduction=8).problems(Shape(16, 3, 5, 7)) == []
