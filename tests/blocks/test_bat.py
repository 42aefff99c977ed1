"""BAT against the matrices written out, its printed costs, and what its docstring promises."""

from math import sqrt
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from blocks.bat import BAT
from blocks.bilinear import expand, join_bands, split_bands, transform_fast, transform_plain
from blocks.configs import BATConfig, Shape
from blocks.executed import observe

RESNET50 = 25_557_032  # with its 1000-class head
SMALL = {"k": 2, "kt": 3, "ts": 2, "s": 3}
MAPS = {
    "s divides": Shape(12, 4, 6, 9),
    "odd map": Shape(12, 2, 7, 5),
    "map of side s": Shape(12, 2, 3, 11),
    "barely larger": Shape(24, 6, 4, 4),
}


def make(shape: Shape, dtype: torch.dtype = torch.float64, seed: int = 0, **choices: Any) -> BAT:
    torch.manual_seed(seed)
    block = BAT(BATConfig(**{**SMALL, **choices}), shape).to(dtype)
    for name, parameter in block.named_parameters():
        if "weight" in name and parameter.ndim == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
        elif parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return block


def bands(size: int, s: int) -> list[range]:
    """The rows of every band: ceil(size / s) of them, spread evenly."""
    length = -(-size // s)
    return [range(start, start + length) for start in (i * (size - length) // max(s - 1, 1) for i in range(s))]


def naive_expand(matrix: Tensor, size: int) -> Tensor:
    """Fig. 3 entry by entry: entry a of band i takes P_ij of entry a of band j; rows in two bands are averaged."""
    s = matrix.shape[0]
    full = torch.zeros(size, size, dtype=matrix.dtype)
    for i, out in enumerate(bands(size, s)):
        for j, source in enumerate(bands(size, s)):
            for y, y2 in zip(out, source, strict=True):
                times = sum(y in band for band in bands(size, s))
                index = torch.tensor([y]), torch.tensor([y2])
                full = full.index_put(index, matrix[i, j].reshape(1) / times, accumulate=True)
    return full


def normalised(raw: Tensor, dim: int, kind: str) -> Tensor:
    positive = raw.exp() if kind == "softmax" else 1 / (1 + (-raw).exp())
    return positive / positive.sum(dim, keepdim=True)


def naive_matrices(block: BAT, x: Tensor) -> tuple[dict[tuple[int, int, int], tuple[Tensor, Tensor]], Tensor | None]:
    """(P, Q) per clip, group and frame, and M per clip and temporal group, from one band at a time."""
    predictor, config = block.predictor, block.config
    assert predictor is not None
    f = predictor.compress(x)
    (rows, columns), found = predictor.sides, {}
    for b in range(x.shape[0]):
        for t in range(x.shape[2]):
            frame = f[b, :, t]
            row_maxima = torch.stack([frame[:, list(band)].amax((1, 2)) for band in bands(x.shape[3], rows)], 1)
            column_maxima = torch.stack(
                [frame[:, :, list(band)].amax((1, 2)) for band in bands(x.shape[4], columns)], 1
            )
            p = torch.einsum("ocs,cs->o", predictor.conv_p.weight[:, :, 0, :, 0], row_maxima) + predictor.conv_p.bias
            q = torch.einsum("ocs,cs->o", predictor.conv_q.weight[:, :, 0, 0], column_maxima) + predictor.conv_q.bias
            for g in range(config.k):
                p_g, q_g = p.chunk(config.k)[g].view(rows, rows), q.chunk(config.k)[g].view(columns, columns)
                found[b, g, t] = normalised(p_g, 1, config.normalise), normalised(q_g, 0, config.normalise)
    if predictor.conv_m is None:
        return found, None
    means = functional.adaptive_avg_pool3d(f, (config.ts, 1, 1))
    m = predictor.conv_m(means).view(-1, config.kt, config.ts, config.ts)
    return found, normalised(m, 3, config.normalise)


def naive_transform(block: BAT, x: Tensor) -> Tensor:
    """Eq. 1 and 7, one channel of one frame at a time, with H x H, W x W and T x T matrices."""
    matrices, m = naive_matrices(block, x)
    b, c, t, h, w = x.shape
    y = torch.stack(
        [
            naive_expand(p, h) @ x[i, channel, frame] @ naive_expand(q.T, w).T
            for i in range(b)
            for channel in range(c)
            for frame in range(t)
            for p, q in [matrices[i, channel * block.config.k // c, frame]]
        ]
    ).view_as(x)
    if m is None:
        return y
    clips = [
        [torch.einsum("ut,thw->uhw", torch.kron(m[i, channel * block.config.kt // c], eye(t, m)), y[i, channel])
         for channel in range(c)]
        for i in range(b)
    ]  # fmt: skip
    return torch.stack([torch.stack(channels) for channels in clips])


def eye(frames: int, m: Tensor) -> Tensor:
    return torch.eye(frames // m.shape[-1], dtype=m.dtype)


def naive(block: BAT, x: Tensor) -> Tensor:
    reduced = block.reduce(x)
    if block.config.matrix == "downsampling":
        small = functional.adaptive_avg_pool3d(reduced, (x.shape[2], block.config.s, block.config.s))
        mixed = block.mix(naive_transform(block, small)).transpose(1, 2)
        frames = [functional.interpolate(frame, x.shape[3:], mode="bilinear") for frame in mixed.unbind(1)]
        return block.expand(torch.stack(frames, 2)) + x
    return block.expand(block.mix(naive_transform(block, reduced))) + x


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize(
    "choices",
    [{}, {"temporal": False, "normalise": "softmax"}, {"matrix": "full", "kt": 2}, {"matrix": "downsampling", "k": 3}],
    ids=str,
)
@pytest.mark.parametrize("shape", MAPS.values(), ids=MAPS)
def test_equals_the_matrices_written_out(
    shape: Shape, choices: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    block = make(shape, dtype, **choices).eval()  # in training a bias before a BatchNorm has no gradient but rounding
    x = torch.randn(1, *shape, dtype=dtype, requires_grad=True)
    inputs = [x, *block.parameters()]
    ours, plain = block(x), naive(block, x)
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=tolerance)
    goal = torch.randn_like(ours)
    for given_grad, expected in zip(
        torch.autograd.grad((ours * goal).sum(), inputs), torch.autograd.grad((plain * goal).sum(), inputs), strict=True
    ):
        torch.testing.assert_close(given_grad, expected, atol=10 * tolerance, rtol=10 * tolerance)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize("kt", [1, 2, 3, 6])
def test_any_groups_in_space_and_time_agree_with_the_expanded_matrices(k: int, kt: int) -> None:
    torch.manual_seed(k * 7 + kt)
    x, p, q, m = (
        torch.rand(size, dtype=torch.float64)
        for size in ((2, 6, 6, 7, 5), (2, k, 6, 3, 3), (2, k, 6, 2, 2), (2, kt, 3, 3))
    )
    torch.testing.assert_close(transform_fast(x, p, q, m), transform_plain(x, p, q, m))


def test_a_transform_by_hand() -> None:
    """P swaps the two bands of rows and halves one, Q copies the left columns, M adds both frames into the first."""
    x = torch.arange(16.0).view(1, 1, 2, 4, 2)
    p = torch.tensor([[0.0, 1.0], [0.5, 0.0]]).expand(1, 1, 2, 2, 2)
    q = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).expand(1, 1, 2, 2, 2)
    m = torch.tensor([[1.0, 1.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    for transform in (transform_fast, transform_plain):
        y = transform(x, p, q, m)[0, 0]
        assert y[0].tolist() == [[16, 16], [20, 20], [4, 4], [6, 6]]
        assert y[1].tolist() == [[12, 12], [14, 14], [4, 4], [5, 5]]


@given(st.integers(1, 9), st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_bands_cover_every_row_and_leave_identity_and_sums_alone(s: int, more: int) -> None:
    size = s + more
    x = torch.randn(3, size, 2, dtype=torch.float64)
    cut = split_bands(x, 1, s)
    assert cut.shape == (3, s, -(-size // s), 2)
    assert torch.equal(join_bands(cut.flatten(1, 2), 1, s, size), x)
    assert torch.equal(expand(torch.eye(s, dtype=torch.float64), size), torch.eye(size, dtype=torch.float64))
    stochastic = torch.rand(s, s, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(expand(stochastic, size).sum(1), torch.ones(size, dtype=torch.float64))
    torch.testing.assert_close(expand(stochastic, size), naive_expand(stochastic, size))
    neighbours = zip(bands(size, s), bands(size, s)[1:], strict=False)
    assert all(len(set(a) & set(b)) <= (size % s != 0) for a, b in neighbours)


@given(st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=8, deadline=None)
def test_where_s_divides_the_bands_are_the_papers(s: int, band: int) -> None:
    matrix = torch.randn(s, s, dtype=torch.float64)
    assert torch.equal(expand(matrix, s * band), torch.kron(matrix, torch.eye(band, dtype=torch.float64)))


@pytest.mark.parametrize("normalise", ["l1", "softmax"])
def test_matrices_are_non_negative_with_rows_of_p_and_m_and_columns_of_q_summing_to_one(normalise: str) -> None:
    shape = MAPS["odd map"]
    predictor = make(shape, normalise=normalise).predictor
    assert predictor is not None
    p, q, m = predictor(torch.randn(2, 6, *shape[1:], dtype=torch.float64))
    assert m is not None
    for matrix, dim in ((p, -1), (q, -2), (m, -1)):
        assert (matrix >= 0).all()
        torch.testing.assert_close(matrix.sum(dim), torch.ones_like(matrix.sum(dim)))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.booleans())
@settings(max_examples=10, deadline=None)
def test_k_0_is_the_plain_branch(height: int, width: int, frames: int, temporal: bool) -> None:
    shape = Shape(4, frames, height, width)
    block = make(shape, k=0, temporal=temporal)
    assert not [name for name, _ in block.named_parameters() if "predictor" in name]
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.expand(block.mix(block.reduce(x))) + x)
    one = torch.ones(2, 1, frames, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(transform_fast(x, one, one, None), x)


def test_a_zero_gamma_before_a_relu_never_trains() -> None:
    """Why BAT does not start as the identity: with gamma = beta = 0 its last ReLU passes nothing back, ever."""
    x, goal = torch.randn(4, 12, 2, 3, 4), torch.randn(4, 12, 2, 3, 4)

    def losses(block: BAT) -> list[float]:
        optimiser = torch.optim.SGD(block.parameters(), lr=0.01)
        values = []
        for _ in range(5):
            optimiser.zero_grad()
            loss = (block(x) - goal).square().mean()
            loss.backward()
            optimiser.step()
            values.append(loss.item())
        return values

    torch.manual_seed(0)
    shipped, dead = (BAT(BATConfig(**SMALL), Shape(12, 2, 3, 4)) for _ in range(2))
    for parameter in (dead.expand[1].weight, dead.expand[1].bias):
        torch.nn.init.zeros_(parameter)
    assert torch.equal(dead(x), x)
    assert len(set(losses(dead))) == 1
    assert not any(parameter.grad is not None and parameter.grad.any() for parameter in dead.parameters())
    first, *_, last = losses(shipped)
    assert last < first


def published(**choices: Any) -> float:
    """Millions of parameters of a ResNet-50 with BAT after res3 units 1, 3 and res4 units 1, 3, 5."""
    config = BATConfig(**{"s": 7, "temporal": False, **choices})
    places = [(Shape(512, 4, 28, 28), 2), (Shape(1024, 4, 14, 14), 3)]
    return sum(times * BAT.closed_form(config, shape).params for shape, times in places) / 1e6


@pytest.mark.parametrize(
    ("choices", "printed"),
    [({"k": 0}, 30.17), ({"k": 1}, 30.18), ({"k": 2}, 30.19), ({"k": 4}, 30.23), ({"k": 16}, 31.09),
     ({"k": 4, "matrix": "full"}, 31.86), ({"k": 4, "matrix": "downsampling"}, 30.23)],
)  # fmt: skip
def test_the_parameters_of_tables_2_and_4(choices: dict[str, Any], printed: float) -> None:
    assert round(RESNET50 / 1e6 + published(**choices), 2) == printed


@pytest.mark.parametrize(
    ("classes", "choices", "printed", "digits"),
    [(200, {"k": 4}, 28.60, 2), (200, {"k": 4, "temporal": True, "kt": 1}, 28.60, 2),
     (200, {"k": 4, "temporal": True, "kt": 2}, 28.60, 2), (200, {"k": 4, "temporal": True, "kt": 4}, 28.60, 2),
     (400, {"k": 8}, 29.2, 1), (400, {"k": 8, "temporal": True, "kt": 4}, 29.2, 1)],
)  # fmt: skip
def test_the_parameters_of_tables_7_and_8(classes: int, choices: dict[str, Any], printed: float, digits: int) -> None:
    backbone = (RESNET50 - (1000 - classes) * 2049) / 1e6
    assert round(backbone + published(**choices), digits) == printed


@pytest.mark.parametrize(("c", "side", "s", "k"), [(512, 28, 7, 4), (1024, 14, 7, 8), (64, 10, 5, 2)])
def test_table_1_with_c_the_input_width(c: int, side: int, s: int, k: int) -> None:
    """5/4 C^2 + CC'/2 + 2C'ks^3 parameters; 5/4 C^2 HW + CHW(H+W)/2 + CC'HW/2 + 2C'ks^3 multiply-accumulates."""
    cost = BAT.closed_form(BATConfig(k=k, s=s, temporal=False), Shape(c, 1, side, side))
    biases_and_norms = 6 * c // 2 + 3 * c + 3 * k + 2 * k * s**2
    assert cost.params - biases_and_norms == 5 * c**2 // 4 + c * k // 2 + 2 * k * k * s**3
    hw = side * side
    assert cost.product_macs == c * hw * 2 * side // 2
    assert cost.macs == 5 * c**2 // 4 * hw + cost.product_macs + c * k * hw // 2 + 2 * k * k * s**3


@pytest.mark.parametrize("matrix", ["block", "full", "downsampling"])
@pytest.mark.parametrize("k", [1, 3, 12])
@pytest.mark.parametrize("side", [(8, 12), (4, 4), (7, 11)], ids=str)
def test_the_closed_form_is_what_the_definition_executes(matrix: Any, k: int, side: tuple[int, int]) -> None:
    shape = Shape(24, 4, *side)
    with torch.device("meta"):
        block = BAT(BATConfig(k=k, s=4, kt=3, ts=2, matrix=matrix, implementation="reference"), shape)
    cost, executed = block.cost(), observe(block, shape)
    assert (cost.macs, cost.product_macs, cost.peak_activation_elements) == (
        executed.macs, executed.product_macs, executed.peak_activation_elements,
    )  # fmt: skip


@pytest.mark.parametrize("shape", [MAPS["s divides"], MAPS["odd map"]], ids=str)
@pytest.mark.parametrize("temporal", [False, True])
def test_attention_is_the_gradient_of_one_frame_of_the_output(shape: Shape, temporal: bool) -> None:
    """Eq. 8: W = P^T 1 Q^T is what every place feeds into the sum of the transformed frame, matrices held fixed."""
    block = make(shape, kt=2, k=2, temporal=temporal).eval()
    x = torch.randn(2, *shape, dtype=torch.float64)
    reduced = block.reduce(x).detach().requires_grad_()
    assert block.predictor is not None
    with torch.no_grad():
        matrices = block.predictor(reduced)
    y = transform_plain(reduced, *matrices)
    (grad,) = torch.autograd.grad(y[:, :, 1].sum(), reduced)
    maps = block.attention(x, (1, 0, 0))
    assert maps is not None
    torch.testing.assert_close(maps, grad[:, [0, 3]])  # one channel of each of two groups of three
    assert block.attention(x, (1, 2, 2)) is not None
    torch.testing.assert_close(
        maps.sum((3, 4)).sum(2), torch.full_like(maps[:, :, 0, 0, 0], shape.height * shape.width)
    )


def test_attention_averages_temporal_groups_inside_a_spatial_group() -> None:
    block, x = make(Shape(12, 4, 3, 5), k=1, kt=3).eval(), torch.randn(1, 12, 4, 3, 5, dtype=torch.float64)
    assert block.predictor is not None
    _, _, m = block.predictor(block.reduce(x))
    maps = block.attention(x, (2, 0, 0))
    assert maps is not None
    assert m is not None
    expected = torch.kron(m[0].mean(0), torch.eye(2, dtype=torch.float64))[2]
    torch.testing.assert_close(maps.sum((3, 4))[0, 0] / 15, expected)


@pytest.mark.parametrize("matrix", ["block", "full", "downsampling"])
def test_runs_on_larger_maps_and_longer_clips_than_it_was_built_for(matrix: Any) -> None:
    block = make(Shape(12, 2, 3, 5), matrix=matrix).eval()
    x = torch.randn(1, 12, 6, 8, 7, dtype=torch.float64)
    torch.testing.assert_close(block(x), naive(block, x))


@pytest.mark.parametrize(
    ("size", "message"),
    [((2, 2, 5), r"at least 3 x 3, given 2 x 5"), ((3, 3, 3), r"multiples of ts=2 frames, given 3")],
)
def test_a_map_that_does_not_fit_is_rejected(size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(Shape(12, 2, 3, 5))(torch.randn(1, 12, *size, dtype=torch.float64))


def test_what_to_change_fits_the_kind_of_matrix() -> None:
    x = torch.randn(1, 12, 2, 3, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="at least 5 x 5, given 3 x 4: build it for a smaller map"):
        make(Shape(12, 2, 5, 5), matrix="full")(x)
    with pytest.raises(ValueError, match="at least 4 x 4, given 3 x 4: use a smaller s"):
        make(Shape(12, 2, 5, 5), matrix="downsampling", k=0, s=4)(x)


@pytest.mark.parametrize(
    ("choices", "shape", "message"),
    [
        ({"s": 8}, Shape(24, 4, 7, 9), "s=8 is larger than the 7 x 9 map"),
        ({"ts": 4}, Shape(24, 6, 9, 9), "T=6 is not a multiple of ts=4"),
        ({"k": 5}, Shape(24, 4, 9, 9), "12 channels are not divisible by k=5"),
        ({"kt": 5}, Shape(24, 4, 9, 9), "12 channels are not divisible by kt=5"),
        ({"k": 0, "matrix": "downsampling", "s": 8}, Shape(24, 4, 7, 7), "s=8 is larger than the 7 x 7 map"),
    ],
)
def test_a_config_that_does_not_fit_says_why(choices: dict[str, Any], shape: Shape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(shape, **choices)


def test_dropout_drops_whole_channels_of_the_branch_in_training_only() -> None:
    block, x = make(Shape(12, 2, 3, 5), dropout=0.5), torch.randn(2, 12, 2, 3, 5, dtype=torch.float64)
    dropped = (block.train()(x) == x).flatten(2).all(2)
    assert dropped.any()
    assert not dropped.all()
    assert torch.equal(block.eval()(x), block(x))


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_stays_close(autocast: bool) -> None:
    block = make(MAPS["odd map"], torch.float32).eval()
    x = torch.randn(2, *MAPS["odd map"])
    expected = block(x)
    if autocast:
        with torch.autocast("cpu", torch.bfloat16):
            y = block(x)
    else:
        y = block.bfloat16()(x.bfloat16())
    assert (y.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_weights_start_at_the_scale_a_relu_keeps() -> None:
    """Normal with variance 2 / (outputs x kernel), as both released codes draw them; biases zero."""
    torch.manual_seed(0)
    convolutions = [
        module for module in BAT(BATConfig(), Shape(256, 4, 7, 7)).modules() if isinstance(module, torch.nn.Conv3d)
    ]
    assert len(convolutions) == 7
    for conv in convolutions:
        fan_out = conv.out_channels * max(conv.kernel_size)
        assert conv.weight.std().item() * sqrt(fan_out / 2) == pytest.approx(1.0, rel=0.1)
        assert conv.bias is not None
        assert not conv.bias.any()
