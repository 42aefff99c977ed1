"""PNL against its equations position by position, the non-local block, and its printed costs."""

from math import sqrt
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from blocks.configs import NonLocalConfig, PNLConfig, Shape
from blocks.executed import observe
from blocks.non_local import NonLocal
from blocks.pnl import PNL

AFFINITIES = ["embedded_gaussian", "gaussian", "dot_product", "concatenation"]
CHOICES: list[dict[str, Any]] = [
    {},
    {"n": 1, "combine": "concat"},
    {"n": 2, "pool": "avg", "upsample": "trilinear", "qk_reduction": 2},
    {"ceil": True, "share": False, "combine": "concat"},
    {"pool": "avg", "ceil": True, "share": False, "reduction": 1},
]
MAPS = {"odd map": Shape(12, 2, 5, 7), "one frame": Shape(12, 1, 4, 6), "long": Shape(12, 3, 11, 4)}


def make(shape: Shape, dtype: torch.dtype = torch.float64, **choices: Any) -> PNL:
    torch.manual_seed(0)
    block = PNL(PNLConfig(**{"n": 3, **choices}), shape).to(dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return block


def pointwise(conv: torch.nn.Conv3d, x_cn: Tensor) -> Tensor:
    y = conv.weight.flatten(1) @ x_cn
    return y if conv.bias is None else y + conv.bias[:, None]


def naive_response(operation: NonLocal, x: Tensor) -> Tensor:
    """W_z y of one clip with its N x N map."""
    affinity, x_cn = operation.config.affinity, x.flatten(1)
    n = x_cn.shape[1]
    theta, phi = x_cn, x_cn
    if affinity != "gaussian":
        theta, phi = pointwise(operation.theta, x_cn), pointwise(operation.phi, x_cn)
    if affinity == "concatenation":
        scores = pointwise(operation.f_theta, theta)[0][:, None] + pointwise(operation.f_phi, phi)[0]
        weights = scores.clamp(min=0) / n
    elif affinity == "dot_product":
        weights = theta.T @ phi / n
    else:
        weights = (theta.T @ phi).exp()
        weights = weights / weights.sum(1, keepdim=True)
    y = (weights @ pointwise(operation.g, x_cn).T).T
    return pointwise(operation.w_z, y).view_as(x)


def naive_halved(x: Tensor, config: PNLConfig) -> Tensor:
    """Cell by cell; cells at an odd border have what is left of them (`ceil`) or do not exist."""
    height, width = ((size + config.ceil) // 2 for size in x.shape[2:])
    cells = [[x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten(2) for j in range(width)] for i in range(height)]
    pooled = [[cell.amax(2) if config.pool == "max" else cell.mean(2) for cell in row] for row in cells]
    return torch.stack([torch.stack(row, -1) for row in pooled], -2)


def naive_resized(y: Tensor, size: torch.Size, upsample: str) -> Tensor:
    if upsample == "trilinear":  # along space only, as the frames stay
        return functional.interpolate(y.transpose(0, 1), tuple(size), mode="bilinear").transpose(0, 1)
    rows, columns = ([i * y.shape[2 + d] // size[d] for i in range(size[d])] for d in range(2))
    return y[:, :, rows][:, :, :, columns]


def naive(block: PNL, x: Tensor) -> Tensor:
    config, combined = block.config, []
    for clip in x:
        maps = []
        for k, group in enumerate(clip.chunk(config.n)):
            pooled = group
            for _ in range(k):
                pooled = naive_halved(pooled, config)
            response = naive_response(block.operations[0 if config.share else k], pooled)
            maps.append(naive_resized(response, clip.shape[2:], config.upsample))
        if config.combine == "attention":
            means = torch.stack([y.mean((1, 2, 3)) for y in maps])
            q, k_ = (means @ linear.weight.T + linear.bias for linear in (block.linear_q, block.linear_k))
            weights = (q @ k_.T / sqrt(means.shape[1])).softmax(1)
            maps = [sum(w * y for w, y in zip(row, maps, strict=True)) for row in weights]
        combined.append(torch.cat(maps))
    y = torch.stack(combined)
    norm = functional.batch_norm(
        y, block.norm.running_mean, block.norm.running_var, block.norm.weight, block.norm.bias, block.training
    )
    return norm + x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize(
    ("name", "affinity"), list(zip(["odd map", "one frame", "long"] * 2, AFFINITIES * 2, strict=False))
)
def test_equals_the_equations(
    name: str, affinity: str, choices: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    block = make(MAPS[name], dtype, affinity=affinity, **choices).eval()
    x = torch.randn(2, *MAPS[name], dtype=dtype, requires_grad=True)
    inputs = [x, *block.parameters()]
    ours, plain = block(x), naive(block, x)
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    goal = torch.randn_like(ours)
    for given_grad, expected in zip(
        torch.autograd.grad((ours * goal).sum(), inputs), torch.autograd.grad((plain * goal).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(given_grad, expected, atol=20 * tolerance, rtol=20 * tolerance)


@given(
    st.sampled_from(AFFINITIES), st.sampled_from(["attention", "concat"]), st.booleans(), st.booleans(),
    st.integers(1, 3), st.integers(1, 5), st.integers(1, 5),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_one_scale_is_the_non_local_block(
    affinity: Any, combine: Any, share: bool, training: bool, t: int, h: int, w: int
) -> None:
    shape = Shape(6, t, h, w)
    block = make(shape, n=1, affinity=affinity, combine=combine, share=share).train(training)
    other = NonLocal(NonLocalConfig(affinity=affinity), shape).double().train(training)
    other.load_state_dict(
        {
            name.removeprefix("operations.0."): value
            for name, value in block.state_dict().items()
            if "linear" not in name
        }
    )
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(block(x), other(x))


def test_scale_attention_by_hand() -> None:
    """Scales of mean 0 and 2 with Q = K = identity: row 2 weighs them by softmax(0, 4), so 2 e^4 / (1 + e^4)."""
    block = PNL(PNLConfig(n=2), Shape(4, 1, 2, 2)).double()
    for linear in (block.linear_q, block.linear_k):
        torch.nn.init.zeros_(linear.bias)
        with torch.no_grad():
            linear.weight.copy_(torch.eye(2) * 2**0.25)  # cancels the square root of C' = 2
    stack = torch.stack([torch.zeros(1, 2, 1, 2, 2), torch.full((1, 2, 1, 2, 2), sqrt(2.0))], 1).double()
    y = block._attend(stack)
    high = 2.718281828459045**4
    torch.testing.assert_close(y[0, :2], torch.full_like(y[0, :2], sqrt(2.0) / 2))
    torch.testing.assert_close(y[0, 2:], torch.full_like(y[0, 2:], sqrt(2.0) * high / (1 + high)))


@pytest.mark.parametrize("combine", ["attention", "concat"])
def test_starts_as_the_identity_and_leaves_it(combine: Any) -> None:
    torch.manual_seed(0)
    block = PNL(PNLConfig(n=2, combine=combine), Shape(8, 2, 4, 6))
    x, goal = torch.randn(2, 8, 2, 4, 6), torch.randn(2, 8, 2, 4, 6)
    assert torch.equal(block(x), x)
    for _ in range(3):
        block.zero_grad()
        (block(x) - goal).square().mean().backward()
        with torch.no_grad():
            for parameter in block.parameters():
                assert parameter.grad is not None
                parameter -= parameter.grad
    assert all(parameter.grad.any() for parameter in block.parameters() if parameter.grad is not None)
    assert not torch.allclose(block(x), x)


@pytest.mark.parametrize("choices", CHOICES, ids=str)
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_the_closed_form_is_what_the_definition_executes(choices: dict[str, Any], affinity: str) -> None:
    for shape in (*MAPS.values(), Shape(48, 1, 4, 5)):
        with torch.device("meta"):
            block = PNL(PNLConfig(**{"n": 3, **choices, "affinity": affinity, "implementation": "reference"}), shape)
        cost, executed = block.cost(), observe(block, shape)
        assert (cost.macs, cost.product_macs, cost.peak_activation_elements) == (
            executed.macs, executed.product_macs, executed.peak_activation_elements,
        )  # fmt: skip
        assert cost.params == sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_corrected_equation_9(n: int) -> None:
    """sum_k 2 C^2 N / (n^2 4^k) + C N^2 / (n 16^k); for n = 2 that is 5/16 of 2 C^2 N and 17/32 of C N^2."""
    c, shape = 64, Shape(64, 2, 8, 16)
    positions = shape.positions
    embeddings = sum(2 * c * c * positions // (n * n * 4**k) for k in range(n))
    products = sum(c * positions**2 // (n * 16**k) for k in range(n))
    cost = PNL.closed_form(PNLConfig(n=n, combine="concat"), shape)
    assert (cost.macs, cost.product_macs) == (embeddings + products, products)
    if n == 2:
        assert (embeddings * 16, products * 32) == (5 * 2 * c * c * positions, 17 * c * positions**2)


@pytest.mark.parametrize(("share", "qk_reduction", "printed"), [(True, 1, 7.88), (False, 8, 7.92)])
def test_mfnet_with_one_block(share: bool, qk_reduction: int, printed: float) -> None:
    """Table 3 prints 7.920 M: MFNet (7.843 M) reaches it with separate weights and Q, K an eighth as wide only."""
    config = PNLConfig(n=4, share=share, qk_reduction=qk_reduction)
    assert round(7.843 + PNL.closed_form(config, Shape(384, 8, 14, 14)).params / 1e6, 2) == printed


@pytest.mark.parametrize("upsample", ["nearest", "trilinear"])
@pytest.mark.parametrize("affinity", ["embedded_gaussian", "dot_product"])
@pytest.mark.parametrize(
    ("position", "cells"),
    [((1, 8, 12), [(1, 8, 12), (1, 3, 5), (1, 1, 2)]), ((0, 3, 7), [(0, 3, 7), (0, 1, 3), (0, 0, 1)])],
    ids=["beyond the last full cells", "inside"],
)
def test_attention_is_the_row_of_the_map_of_each_scale(
    affinity: Any, upsample: Any, position: tuple[int, int, int], cells: list[tuple[int, int, int]]
) -> None:
    shape = Shape(12, 2, 9, 13)
    block = make(shape, affinity=affinity, upsample=upsample, share=False)
    x = torch.randn(2, *shape, dtype=torch.float64)
    maps = block.attention(x, position)
    assert maps.shape == (2, 3, 2, 9, 13)
    for k, cell in enumerate(cells):
        pooled, operation = x[:, 4 * k : 4 * k + 4], block.operations[k]
        for _ in range(k):
            pooled = functional.max_pool3d(pooled, (1, 2, 2))
        theta, phi = operation.theta(pooled)[..., *cell], operation.phi(pooled)
        row = torch.einsum("bc,bcthw->bthw", theta, phi)
        row = row.flatten(1).softmax(1).view_as(row) if affinity == "embedded_gaussian" else row / row[0].numel()
        for b in range(2):
            torch.testing.assert_close(maps[b, k], naive_resized(row[b, None], x.shape[3:], upsample)[0])


@pytest.mark.parametrize(
    ("choices", "shape", "message"),
    [
        ({"n": 3}, Shape(1024, 4, 14, 14), "1024 channels are not divisible by n=3: use one of"),
        ({"n": 4}, Shape(2048, 4, 7, 7), "n=4 scales need a map of at least 8 x 8, given 7 x 7: use n <= 3"),
        (
            {"n": 4, "ceil": True},
            Shape(16, 4, 4, 9),
            "at least 5 x 5, given 4 x 9: use n <= 3",
        ),
        ({"n": 2, "qk_reduction": 5}, Shape(16, 4, 4, 9), "8 channels are not divisible by qk_reduction=5"),
    ],
)
def test_a_config_that_does_not_fit_says_why(choices: dict[str, Any], shape: Shape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PNL(PNLConfig(**choices), shape)


@given(st.integers(1, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_suggested_number_of_scales_is_the_largest_that_fits(size: int, ceil: bool) -> None:
    def problems(n: int) -> list[str]:
        return PNLConfig(n=n, ceil=ceil, combine="concat").problems(Shape(5040, 1, size, size))

    most = max(n for n in range(1, 9) if not problems(n))
    assert f"use n <= {most}" in problems(most + 1)[-1]


def test_a_smaller_map_than_the_scales_need_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs maps of at least 4 x 4, given 3 x 9: use fewer scales"):
        make(Shape(12, 2, 4, 4))(torch.randn(1, 12, 2, 3, 9, dtype=torch.float64))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_bfloat16_stays_close(affinity: Any, autocast: bool) -> None:
    block, x = make(MAPS["odd map"], torch.float32, affinity=affinity).eval(), torch.randn(2, *MAPS["odd map"])
    expected = block(x)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            y = block(x)
    else:
        y = block.bfloat16()(x.bfloat16())
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()
