"""HG-NL against a second implementation, the paper's printed parameters, a number by hand, and its properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blocks.configs import HGNLConfig, Shape
from blocks.executed import observe
from blocks.hgnl import HGNL, GroupedPointwise

Choices = dict[str, Any]
M, G1, G2 = 24, 6, 3
CHOICES: list[Choices] = [
    {},
    {"shared": True},
    {"normalise": "positions"},
    {"affinity": "softmax"},
    {"level": "frames"},
    {"level": "frames", "affinity": "softmax", "shared": True},
    {"level": "frames", "normalise": "positions"},
    {"g1": 1, "g2": 1, "reduction": 2, "affinity": "softmax"},
    {"g1": 4, "g2": 4, "reduction": 1},
]
# Odd and even, one frame, one position, H != W, one clip and several.
SIZES = [(2, 3, 5, 7), (1, 4, 2, 6), (3, 1, 5, 2), (1, 7, 1, 1)]


def make(shape: Shape, dtype: torch.dtype = torch.float64, seed: int = 0, **choices: Any) -> HGNL:
    """A block with random weights everywhere, so that nothing is hidden by an initial zero."""
    torch.manual_seed(seed)
    block = HGNL(HGNLConfig.parse({"g1": G1, "g2": G2, "reduction": 2, **choices}), shape).to(dtype)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.5)
    return block


def naive_conv(conv: GroupedPointwise, f_mn: Tensor) -> Tensor:
    """Group after group, output channel after output channel."""
    weight, bias, groups = conv.conv.weight[:, :, 0, 0, 0], conv.conv.bias, conv.groups
    assert bias is not None
    if conv.shared:
        weight, bias = weight.repeat(groups, 1), bias.repeat(groups)
    rows = []
    per_out, per_in = weight.shape[0] // groups, f_mn.shape[0] // groups
    for out in range(weight.shape[0]):
        group = out // per_out
        rows.append(weight[out] @ f_mn[group * per_in : (group + 1) * per_in] + bias[out])
    return torch.stack(rows)


def naive(block: HGNL, x: Tensor) -> Tensor:
    """Equations 3-5, 7 and 8 clip by clip and group by group, with every map formed."""
    config, outputs = block.config, []
    for clip in x:
        f = clip.flatten(2).mean(2) if config.level == "frames" else clip.flatten(1)
        q, k, v = (naive_conv(conv, f) for conv in (block.q, block.k, block.v))
        fo = []
        for q_g, k_g, v_g in zip(q.chunk(config.g2), k.chunk(config.g2), v.chunk(config.g2), strict=True):
            a = q_g.T @ k_g
            if config.affinity == "softmax":
                a = (a - a.amax(0)).exp()
                a = a / a.sum(0)
            else:
                a = a.clamp(min=0) / (f.shape[1] if config.normalise == "positions" else 1)
            fo.append(v_g @ a)
        fo_mn = torch.cat(fo)
        fo_mthw = fo_mn[:, :, None, None] if config.level == "frames" else fo_mn.reshape(clip.shape)
        outputs.append(clip + block.s * fo_mthw)
    return torch.stack(outputs)


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *block.parameters()], cotangent)]


@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_agrees_with_a_second_implementation(choices: Choices, size: tuple[int, ...], implementation: str) -> None:
    b, *thw = size
    block = make(Shape(M, *thw), implementation=implementation, **choices)
    x = torch.randn(b, M, *thw, dtype=torch.float64, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_single_precision_stays_within_rounding(choices: Choices) -> None:
    block = make(Shape(M, 3, 5, 7), torch.float32, **choices)
    x = torch.randn(2, M, 3, 5, 7, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        assert (ours - theirs).norm() <= 2e-5 * theirs.norm() + 1e-4


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_half_precision_stays_within_three_percent(choices: Choices) -> None:
    block = make(Shape(M, 3, 5, 7), torch.float32, **choices)
    x = torch.randn(2, M, 3, 5, 7)
    exact = block(x) - x
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x) - x
    assert half.dtype == torch.float32
    assert (half - exact).norm() <= 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("choices", "printed"),
    [
        ({"g1": 1, "g2": 1, "reduction": 2, "affinity": "softmax"}, 2_099_200),
        ({"g1": 1, "g2": 1, "reduction": 8, "affinity": "softmax"}, 1_312_000),
        ({}, 148_736),
        ({"shared": True}, 17_552),
    ],
)
def test_parameters_of_table_1(choices: Choices, printed: int) -> None:
    shape = Shape(1024, 3, 1, 1)
    config = HGNLConfig.parse({"level": "frames", **choices})
    with torch.device("meta"):
        block = HGNL(config, shape)
    counted = sum(parameter.numel() for name, parameter in block.named_parameters() if name != "s")
    assert counted == printed
    assert block.cost().params == printed + 1


@pytest.mark.parametrize(("g1", "g2", "reduction"), [(1, 1, 2), (1, 1, 8), (16, 8, 8)])
def test_multiplies_and_adds_of_table_2(g1: int, g2: int, reduction: int) -> None:
    # The table counts multiplies and adds apart: twice our MACs, less the additions a product of length L saves.
    m, n = 1024, 25
    cost = HGNL.closed_form(HGNLConfig(g1=g1, g2=g2, reduction=reduction, level="frames"), Shape(m, n, 7, 7))
    convolutions = 2 * (2 * m * m // (reduction * g1) * n) + 2 * m * m // g2 * n
    products = (2 * n * n * m // reduction - g2 * n * n) + m * n * (2 * n - 1)
    assert 2 * cost.macs == convolutions + products + g2 * n * n + m * n


def test_one_number_by_hand() -> None:
    # F = [1, 2]; Q = 2F + 1 = [3, 5]; K = 3F = [3, 6]; V = F + 0.5 = [1.5, 2.5];
    # A = ReLU(Q^T K) = [[9, 18], [15, 30]]; Fo = V A = [51, 102]; with s = 2: F + 2 Fo = [103, 206].
    block = HGNL(HGNLConfig(g1=1, g2=1, reduction=1), Shape(1, 2, 1, 1))
    for conv, weight, bias in ((block.q, 2.0, 1.0), (block.k, 3.0, 0.0), (block.v, 1.0, 0.5)):
        assert conv.conv.bias is not None
        nn.init.constant_(conv.conv.weight, weight)
        nn.init.constant_(conv.conv.bias, bias)
    nn.init.constant_(block.s, 2.0)
    assert block(torch.tensor([1.0, 2.0]).reshape(1, 1, 2, 1, 1)).flatten().tolist() == [103.0, 206.0]


def test_identity_at_start_and_every_gradient_after_the_first_step() -> None:
    torch.manual_seed(0)
    block = HGNL(HGNLConfig(g1=G1, g2=G2, reduction=2), Shape(M, 3, 5, 7))
    x = torch.randn(2, M, 3, 5, 7)
    assert torch.equal(block(x), x)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        block(x).square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
        optimizer.step()
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_start_sets_the_residual_scale() -> None:
    block = HGNL(HGNLConfig(g1=G1, g2=G2, reduction=2, start=0.25), Shape(M, 3, 5, 7))
    assert block.s.item() == 0.25


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 5), st.integers(1, 5), st.sampled_from([2, 5, 7]))
def test_one_group_is_a_relu_non_local_block(seed: int, t: int, h: int, m: int) -> None:
    block = make(Shape(m, t, h, 2), seed=seed, g1=1, g2=1, reduction=1)
    x = torch.randn(1, m, t, h, 2, dtype=torch.float64)
    q, k, v = (conv.conv(x).flatten(2)[0] for conv in (block.q, block.k, block.v))
    y = torch.einsum("ij,ci->cj", torch.relu(torch.einsum("ci,cj->ij", q, k)), v)
    torch.testing.assert_close(block(x), x + block.s * y.reshape(x.shape))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.booleans(), st.sampled_from(["relu", "softmax"]))
def test_groups_see_nothing_of_each_other_beyond_the_secondary_ones(seed: int, shared: bool, affinity: str) -> None:
    block = make(Shape(M, 3, 2, 5), seed=seed, shared=shared, affinity=affinity)
    x = torch.randn(1, M, 3, 2, 5, dtype=torch.float64)
    changed = x.clone()
    changed[:, : M // G2] += 1
    before, after = block(x), block(changed)
    torch.testing.assert_close(before[:, M // G2 :], after[:, M // G2 :], rtol=0, atol=0)
    assert not torch.equal(before[:, : M // G2], after[:, : M // G2])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from(CHOICES))
def test_commutes_with_permuting_frames(seed: int, choices: Choices) -> None:
    block = make(Shape(M, 5, 2, 3), seed=seed, **choices)
    x = torch.randn(2, M, 5, 2, 3, dtype=torch.float64)
    order = torch.randperm(5)
    torch.testing.assert_close(block(x[:, :, order]), block(x)[:, :, order])


def test_shared_is_every_group_with_the_same_weights() -> None:
    shape = Shape(M, 3, 5, 7)
    shared, separate = make(shape, shared=True), make(shape)
    for ours, theirs in ((shared.q, separate.q), (shared.k, separate.k), (shared.v, separate.v)):
        theirs.conv.weight.data = ours.conv.weight.data.repeat(ours.groups, 1, 1, 1, 1)
        assert ours.conv.bias is not None
        assert theirs.conv.bias is not None
        theirs.conv.bias.data = ours.conv.bias.data.repeat(ours.groups)
    separate.s.data = shared.s.data
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(shared(x), separate(x))
    assert shared.cost().macs == separate.cost().macs


def test_frames_may_be_more_in_testing_and_the_response_grows_unless_normalised() -> None:
    few, many = torch.ones(1, M, 3, 2, 2, dtype=torch.float64), torch.ones(1, M, 24, 2, 2, dtype=torch.float64)
    plain = make(Shape(M, 3, 2, 2), level="frames")
    mean = make(Shape(M, 3, 2, 2), level="frames", normalise="positions")
    torch.testing.assert_close(8 * (plain(few) - 1).mean(), (plain(many) - 1).mean())
    torch.testing.assert_close((mean(few) - 1).mean(), (mean(many) - 1).mean())


def test_frame_level_is_position_level_on_the_averaged_frames() -> None:
    frames, positions = make(Shape(M, 5, 3, 2), level="frames"), make(Shape(M, 5, 1, 1))
    positions.load_state_dict(frames.state_dict())
    x = torch.randn(2, M, 5, 3, 2, dtype=torch.float64)
    mean = x.mean((3, 4), keepdim=True)
    torch.testing.assert_close(frames(x) - x, (positions(mean) - mean).expand_as(x))


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_attention_rebuilds_the_output_without_the_whole_map(choices: Choices) -> None:
    shape = Shape(M, 3, 5, 7)
    block = make(shape, **choices)
    x = torch.randn(2, *shape, dtype=torch.float64)
    maps = block.attention(x, (2, 4, 1))
    assert maps.shape == (2, block.config.g2, 3, 5, 7)
    values = block.v(x).reshape(2, block.config.g2, -1, 3, 5, 7)
    fo = torch.einsum("bgthw,bgcthw->bgc", maps, values).flatten(1)
    torch.testing.assert_close((block(x) - x)[:, :, 2, 4, 1], block.s * fo)
    with torch.device("meta"):
        hidden = HGNL(block.config, shape)
    seen = observe(hidden, shape, lambda module, clip: module.attention(clip, (2, 4, 1)))  # type: ignore[operator]
    assert seen.largest_tensor_elements < block.config.g2 * shape.positions**2


@pytest.mark.parametrize("shape", [Shape(24, 3, 5, 7), Shape(48, 1, 3, 2), Shape(144, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_cost_is_what_runs(choices: Choices, shape: Shape) -> None:
    config = HGNLConfig.parse({"g1": G1, "g2": G2, "reduction": 2, "implementation": "reference", **choices})
    with torch.device("meta"):
        block = HGNL(config, shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())


def test_state_dict_is_stable() -> None:
    names = {f"{conv}.conv.{kind}" for conv in "qkv" for kind in ("weight", "bias")} | {"s"}
    assert set(make(Shape(M, 3, 5, 7)).state_dict()) == names


@pytest.mark.parametrize(
    ("choices", "said"),
    [({"g1": 6, "g2": 4}, "multiple of g2"), ({"affinity": "softmax", "normalise": "positions"}, "normalised already")],
)
def test_choices_that_do_not_go_together_are_refused(choices: Choices, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HGNLConfig.parse(choices)


@pytest.mark.parametrize(
    ("channels", "said"),
    [(36, "not divisible by reduction=8"), (24, "not divisible by g1=16"), (64, "m1 = 64 / 8 = 8")],
)
def test_shapes_that_do_not_fit_are_refused(channels: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HGNL(HGNLConfig(), Shape(channels, 3, 5, 7))
