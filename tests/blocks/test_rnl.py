"""RNL against a second implementation, the paper's printed parameters, a number by hand, and its properties."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blocks.configs import NonLocalConfig, RNLConfig, Shape
from blocks.executed import observe
from blocks.non_local import NonLocal
from blocks.rnl import RNL, RegionConv

Choices = dict[str, Any]
C = 22
CHOICES: list[Choices] = [
    *(
        {"affinity": f, "aggregate": a}
        for f, a in product(("gaussian", "dot_product", "cosine"), ("conv", "avg", "max"))
    ),
    {"kernel": (1, 1, 1)},
    {"kernel": (3, 1, 1), "affinity": "cosine"},
    {"kernel": (1, 5, 3), "aggregate": "avg"},
    {"sub_sample": True},
    {"sub_sample": True, "affinity": "dot_product", "aggregate": "max"},
    {"parity": "masked_grouped"},
    {"parity": "masked_grouped", "affinity": "cosine", "sub_sample": True},
    {"reduction": 1},
]
# Odd and even, one frame, smaller than the kernel, H != W, one clip and several.
SIZES = [(2, 3, 5, 7), (1, 4, 2, 6), (3, 1, 5, 2), (1, 7, 2, 2)]


def make(shape: Shape, dtype: torch.dtype = torch.float64, seed: int = 0, **choices: Any) -> RNL:
    """A block with random weights everywhere, so that nothing is hidden by an initial zero."""
    torch.manual_seed(seed)
    block = RNL(RNLConfig.parse({"kernel": (3, 5, 7), **choices}), shape).to(dtype)
    for parameter in trainable(block):
        nn.init.normal_(parameter, std=0.3)
    return block


def trainable(block: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in block.parameters() if parameter.requires_grad]


def naive_region(block: RNL, g: Tensor) -> Tensor:
    """Equation 3, one offset of the region after the other."""
    kt, kh, kw = block.config.kernel
    if kt * kh * kw == 1:
        return g
    outside = float("-inf") if block.config.aggregate == "max" else 0.0
    padded = F.pad(g, (kw // 2, kw // 2, kh // 2, kh // 2, kt // 2, kt // 2), value=outside)
    t, h, w = g.shape[2:]
    offsets = list(product(range(kt), range(kh), range(kw)))
    shifted = [padded[:, :, i : i + t, j : j + h, k : k + w] for i, j, k in offsets]
    if block.config.aggregate == "max":
        return torch.stack(shifted).amax(0)
    if block.config.aggregate == "avg":
        return torch.stack(shifted).sum(0) / len(offsets)
    assert isinstance(block.region, RegionConv)
    u = block.region.weight
    own = range(g.shape[1])
    stored = [u[c, c % u.shape[1]] for c in own]
    weighed = (
        torch.stack([stored[c][i, j, k] * part[:, c] for c in own], 1)
        for (i, j, k), part in zip(offsets, shifted, strict=True)
    )
    return torch.stack(list(weighed)).sum(0)


def naive_pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    assert conv.bias is not None
    return torch.einsum("oc,bcthw->bothw", conv.weight[:, :, 0, 0, 0], x) + conv.bias.view(-1, 1, 1, 1)


def naive(block: RNL, x: Tensor) -> Tensor:
    """Equations 4 to 9 with the whole map, and the BatchNorm from its definition."""
    config = block.config
    g = naive_pointwise(block.g, x)
    theta = naive_region(block, g)
    key, value = (F.max_pool3d(part, (1, 2, 2)) if config.sub_sample else part for part in (theta, g))
    query_bcn, key_bcm, value_bcm = theta.flatten(2), key.flatten(2), value.flatten(2)
    f_bnm = torch.einsum("bcn,bcm->bnm", query_bcn, key_bcm)
    if config.affinity == "gaussian":
        f_bnm = f_bnm.softmax(2)
    elif config.affinity == "cosine":
        f_bnm = f_bnm / (query_bcn.norm(dim=1)[:, :, None] * key_bcm.norm(dim=1)[:, None])
        f_bnm = f_bnm.clamp(min=0) / key_bcm.shape[2]
    else:
        f_bnm = f_bnm / key_bcm.shape[2]
    y = torch.einsum("bnm,bcm->bcn", f_bnm, value_bcm).reshape(g.shape)
    z = naive_pointwise(block.w_z, y)
    if block.training:
        mean, var = z.mean((0, 2, 3, 4)), z.var((0, 2, 3, 4), unbiased=False)
    else:
        assert block.norm.running_mean is not None
        assert block.norm.running_var is not None
        mean, var = block.norm.running_mean, block.norm.running_var
    mean, var, gamma, beta = (part.view(-1, 1, 1, 1) for part in (mean, var, block.norm.weight, block.norm.bias))
    return (z - mean) / (var + block.norm.eps).sqrt() * gamma + beta + x


def outcome(y: Tensor, x: Tensor, block: nn.Module) -> list[Tensor]:
    """The output, and the gradients that an uneven cotangent gives the input and every parameter."""
    cotangent = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    return [y, *torch.autograd.grad(y, [x, *trainable(block)], cotangent)]


@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_agrees_with_a_second_implementation(choices: Choices, size: tuple[int, ...], implementation: str) -> None:
    b, *thw = size
    block = make(Shape(C, *thw), implementation=implementation, **choices).train(b > 1)
    x = torch.randn(b, C, *thw, dtype=torch.float64, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_single_precision_stays_within_rounding(choices: Choices) -> None:
    block = make(Shape(C, 3, 5, 7), torch.float32, **choices).eval()
    x = torch.randn(2, C, 3, 5, 7, requires_grad=True)
    for ours, theirs in zip(outcome(block(x), x, block), outcome(naive(block, x), x, block), strict=True):
        assert (ours - theirs).norm() <= 5e-5 * theirs.norm() + 1e-4


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_half_precision_stays_within_five_percent(choices: Choices) -> None:
    block = make(Shape(C, 3, 5, 7), torch.float32, **choices).eval()
    nn.init.normal_(block.g.weight, std=0.1)
    x = torch.randn(2, C, 3, 5, 7)
    exact = block(x) - x
    with torch.autocast("cpu", torch.bfloat16):
        half = block(x) - x
        half.sum().backward()
    assert half.dtype == torch.float32
    assert (half - exact).norm() <= 0.05 * exact.norm()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trainable(block))


TABLE_3 = [(512, (3, 7, 7), 2), (1024, (3, 3, 3), 3)]  # channels, kernel, blocks in that stage


def added_millions(block: str, **choices: Any) -> float:
    total = 0
    for channels, kernel, count in TABLE_3:
        config = RNLConfig.parse({"kernel": kernel, **choices}) if block == "rnl" else NonLocalConfig()
        kind = RNL if block == "rnl" else NonLocal
        with torch.device("meta"):
            built = kind(config, Shape(channels, 8, 28, 28))  # type: ignore[arg-type]
        counted = sum(parameter.numel() for parameter in built.parameters())
        assert counted == built.cost().params
        total += count * counted
    return total / 1e6


def test_parameters_of_table_3() -> None:
    baseline = 24.327632  # ResNet-50 with 400 classes
    assert round(baseline, 2) == 24.33
    assert round(baseline + added_millions("rnl", parity="masked_grouped"), 2) == 35.48
    assert round(baseline + added_millions("nl"), 2) == 31.69
    assert round(added_millions("rnl"), 3) == 3.801  # the same function, without stored zeros and masks


@pytest.mark.parametrize(
    ("choices", "printed"),
    [({"parity": "masked_grouped"}, 2.67), ({"aggregate": "avg"}, 0.26), ({"aggregate": "max"}, 0.26)],
)
def test_parameters_of_table_2c(choices: Choices, printed: float) -> None:
    cost = RNL.closed_form(RNLConfig.parse(choices), Shape(512, 8, 28, 28))
    assert round(cost.params / 1e6, 2) == printed


def test_flops_of_table_3_leave_out_the_region_and_the_attention() -> None:
    # 41.15 - 32.89: W_g and W_z with the counter's additions for biases and its two operations per BatchNorm element.
    counted = 0
    for channels, n, count in ((512, 8 * 28 * 28, 2), (1024, 8 * 14 * 14, 3)):
        cost = RNL.closed_form(RNLConfig(aggregate="avg"), Shape(channels, 8, n // 8, 1))
        counted += count * (cost.macs - cost.product_macs + (channels // 2 + channels + 2 * channels) * n)
    assert abs(counted / 1e9 - (41.15 - 32.89)) < 0.01


def test_one_number_by_hand() -> None:
    # g = 2x = [2, 4, -6] over three frames; u = [1, 0, 1], zero padding: theta = [4, -4, 4];
    # dot product: y_i = theta_i (theta . g) / 3 = theta_i (8 - 16 - 24) / 3 = theta_i * -32/3;
    # W_z = 3, gamma = 1: z = 3y + x, for the first frame 3 * 4 * -32/3 + 1 = -127.
    block = RNL(RNLConfig(kernel=(3, 1, 1), affinity="dot_product", reduction=1), Shape(1, 3, 1, 1)).eval()
    assert isinstance(block.region, RegionConv)
    block.region.weight.data = torch.tensor([1.0, 0.0, 1.0]).reshape(1, 1, 3, 1, 1)
    for conv, weight in ((block.g, 2.0), (block.w_z, 3.0)):
        assert conv.bias is not None
        nn.init.constant_(conv.weight, weight)
        nn.init.zeros_(conv.bias)
    nn.init.ones_(block.norm.weight)
    block.norm.eps = 0.0
    z = block(torch.tensor([1.0, 2.0, -3.0]).reshape(1, 1, 3, 1, 1))
    torch.testing.assert_close(z.flatten(), torch.tensor([-127.0, 130.0, -131.0]))


def test_identity_at_start() -> None:
    for choices in CHOICES:
        block = RNL(RNLConfig.parse(choices), Shape(C, 3, 5, 7))
        x = torch.randn(2, C, 3, 5, 7)
        assert torch.equal(block(x), x)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 99), st.sampled_from(["conv", "avg", "max"]), st.sampled_from(["gaussian", "dot_product"]),
    st.booleans(), st.integers(1, 4), st.integers(2, 5),
)  # fmt: skip
def test_a_kernel_of_one_is_a_non_local_block_with_shared_embeddings(
    seed: int, aggregate: str, affinity: str, sub_sample: bool, t: int, h: int
) -> None:
    shape = Shape(C, t, h, 3)
    block = make(
        shape, seed=seed, kernel=(1, 1, 1), aggregate=aggregate, affinity=affinity, sub_sample=sub_sample
    ).eval()
    choices = {
        "affinity": "embedded_gaussian" if affinity == "gaussian" else affinity,
        "sub_sample": "after" if sub_sample else "none",
    }
    shared = NonLocal(NonLocalConfig.parse(choices), shape).double().eval()
    for part in (shared.theta, shared.phi, shared.g):
        part.load_state_dict(block.g.state_dict())
    shared.w_z.load_state_dict(block.w_z.state_dict())
    shared.norm.load_state_dict(block.norm.state_dict())
    x = torch.randn(1, *shape, dtype=torch.float64)
    torch.testing.assert_close(block(x), shared(x))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from(["gaussian", "dot_product", "cosine"]), st.integers(1, 3))
def test_commutes_with_permuting_positions_without_a_region(seed: int, affinity: str, t: int) -> None:
    block = make(Shape(C, t, 5, 1), seed=seed, kernel=(1, 1, 1), affinity=affinity)
    x = torch.randn(2, C, t, 5, 1, dtype=torch.float64)
    order = torch.randperm(5)
    torch.testing.assert_close(block(x[..., order, :]), block(x)[..., order, :])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([(3, 1, 1), (1, 3, 5), (3, 3, 3)]))
def test_average_is_a_convolution_with_equal_weights(seed: int, kernel: tuple[int, int, int]) -> None:
    shape = Shape(C, 3, 5, 2)
    conv, average = make(shape, seed=seed, kernel=kernel), make(shape, seed=seed, kernel=kernel, aggregate="avg")
    assert isinstance(conv.region, RegionConv)
    nn.init.constant_(conv.region.weight, 1 / (kernel[0] * kernel[1] * kernel[2]))
    average.load_state_dict({name: value for name, value in conv.state_dict().items() if "region" not in name})
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(conv(x), average(x))


@pytest.mark.parametrize("width", [11, 32, 64])
def test_masked_convolution_is_the_depthwise_one_with_more_parameters(width: int) -> None:
    shape = Shape(2 * width, 3, 5, 2)
    masked = make(shape, parity="masked_grouped", kernel=(3, 3, 1))
    plain = make(shape, kernel=(3, 3, 1))
    assert isinstance(masked.region, RegionConv)
    plain.load_state_dict(
        {name: value for name, value in masked.state_dict().items() if "region" not in name}
        | {"region.weight": masked.region.kernels()}
    )
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(masked(x), plain(x))
    group = min(32, width)
    assert masked.cost().params - plain.cost().params == 9 * width * (2 * group - 1)
    assert not masked.region.mask.requires_grad


def test_masked_weights_get_no_gradient_where_the_mask_is_zero() -> None:
    for implementation in ("auto", "reference"):
        block = make(Shape(C, 3, 5, 7), parity="masked_grouped", implementation=implementation)
        assert isinstance(block.region, RegionConv)
        block(torch.randn(2, C, 3, 5, 7, dtype=torch.float64)).square().sum().backward()
        assert block.region.weight.grad is not None
        assert torch.equal(block.region.weight.grad != 0, block.region.mask != 0)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_cosine_is_safe_at_zero_vectors(implementation: str, dtype: torch.dtype) -> None:
    block = make(Shape(C, 3, 5, 7), dtype, affinity="cosine", kernel=(1, 3, 3), implementation=implementation).eval()
    assert block.g.bias is not None
    nn.init.zeros_(block.g.bias)
    x = torch.randn(2, C, 3, 5, 7, dtype=dtype)
    x[1] = 0
    x[0, :, 1] = 0
    x.requires_grad_()
    y = block(x)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e3
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in trainable(block))
    assert torch.equal(block.attention(x.detach(), (1, 2, 3)), torch.zeros(2, 1, 3, 5, 7, dtype=dtype))


@pytest.mark.parametrize("parity", ["depthwise", "masked_grouped"])
def test_kernels_start_as_wide_as_those_of_the_released_code(parity: str) -> None:
    """Xavier over its dense groups: fans of 32 and 64 channels times 45 taps, so up to the root of 6 / (96 * 45)."""
    block = RNL(RNLConfig.parse({"kernel": (3, 3, 5), "parity": parity}), Shape(128, 3, 5, 7))
    assert isinstance(block.region, RegionConv)
    widest = float(block.region.kernels().detach().abs().max())
    assert 0.98 * (6 / (96 * 45)) ** 0.5 < widest <= (6 / (96 * 45)) ** 0.5


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_attention_rebuilds_the_output_without_the_whole_map(choices: Choices) -> None:
    shape = Shape(C, 3, 5, 8)  # an odd and an even side: pooling drops a row, and no column
    block = make(shape, **choices).eval()
    x = torch.randn(2, *shape, dtype=torch.float64)
    maps = block.attention(x, (2, 4, 1))
    assert maps.shape == (2, 1, 3, 5, 8)
    values = block.g(x)
    if block.config.sub_sample:
        assert not maps[..., 4:, :].any()
        assert maps[..., 6:].any()
        maps, values = maps[..., :4:2, ::2], F.max_pool3d(values, (1, 2, 2))
    y = torch.einsum("bthw,bcthw->bc", maps[:, 0], values)[:, :, None, None, None]
    expected = block.norm(block.w_z(y)).flatten(1) + x[:, :, 2, 4, 1]
    torch.testing.assert_close(block(x)[:, :, 2, 4, 1], expected)


@pytest.mark.parametrize("shape", [Shape(44, 3, 5, 7), Shape(44, 1, 3, 2), Shape(128, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_cost_is_what_runs(choices: Choices, shape: Shape) -> None:
    config = RNLConfig.parse({"kernel": (3, 5, 3), "implementation": "reference", **choices})
    with torch.device("meta"):
        block = RNL(config, shape)
    cost, seen = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs) == (seen.macs, seen.product_macs)
    assert cost.peak_activation_elements == seen.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())
    assert cost == RNL.closed_form(replace(config, implementation="auto"), shape)


def test_state_dict_is_stable() -> None:
    always = {"g.weight", "g.bias", "w_z.weight", "w_z.bias"} | {
        f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    shape = Shape(C, 3, 5, 7)
    assert set(make(shape).state_dict()) == always | {"region.weight"}
    assert set(make(shape, parity="masked_grouped").state_dict()) == always | {"region.weight", "region.mask"}
    assert set(make(shape, aggregate="max").state_dict()) == always


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"kernel": (3, 4, 7)}, r"odd and positive, given \[3, 4, 7\]"),
        ({"kernel": (3, 3)}, "kernel must be a list of 3"),
        ({"parity": "masked_grouped", "aggregate": "avg"}, "needs aggregate='conv'"),
        ({"affinity": "concatenation"}, "'gaussian', 'dot_product', 'cosine'"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(choices: Choices, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RNLConfig.parse(choices)


@pytest.mark.parametrize(
    ("choices", "shape", "said"),
    [
        ({}, Shape(7, 3, 5, 7), "not divisible by reduction=2"),
        ({"parity": "masked_grouped"}, Shape(96, 3, 5, 7), "group of 32 channels"),
        ({"sub_sample": True}, Shape(8, 3, 1, 7), "at least 2 x 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(choices: Choices, shape: Shape, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RNL(RNLConfig.parse(choices), shape)
