"""The non-local block against the paper's equations written out, and the properties that follow from them."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.configs import NonLocalConfig, Shape
from blocks.executed import observe
from blocks.non_local import NonLocal

AFFINITIES = ("embedded_gaussian", "gaussian", "dot_product", "concatenation")
SHAPES = [Shape(12, 3, 7, 5), Shape(12, 1, 4, 6), Shape(12, 2, 5, 2)]  # odd and even sides, T = 1, H != W
SWITCHES = [{}, {"heads": 3}, {"sub_sample": "before"}, {"sub_sample": "after", "heads": 2}, {"reduction": 1}]


def scrambled(config, shape, dtype=torch.float64, seed=0):
    """A block in training mode that is not the identity."""
    block = NonLocal(config, shape).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return block


def clips(shape, batch=2, dtype=torch.float64, seed=1):
    x = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def written_out(block, x):
    """Equations 1-6 with einsum on every pair of positions, from the block's own weights."""
    config, weights = block.config, dict(block.named_parameters())

    def embed(name, at):
        if f"{name}.weight" not in weights:
            return at
        flat = torch.einsum("oc,bcthw->bothw", weights[f"{name}.weight"][:, :, 0, 0, 0], at)
        return flat + weights[f"{name}.bias"][:, None, None, None]

    def split(at):
        return at.reshape(at.shape[0], config.heads, at.shape[1] // config.heads, -1)  # b h c n

    def pool(at, when):
        return F.max_pool3d(at, (1, 2, 2)) if config.sub_sample == when else at

    source = pool(x, "before")
    theta = split(embed("theta", x))
    phi, g = (split(pool(embed(name, source), "after")) for name in ("phi", "g"))
    if config.affinity == "concatenation":
        w_theta, w_phi = (weights[f"f_{name}.weight"].reshape(config.heads, -1) for name in ("theta", "phi"))
        pairs = torch.cat(
            [
                theta[..., :, None].expand(*theta.shape, phi.shape[-1]),
                phi[..., None, :].expand(*phi.shape[:3], theta.shape[-1], phi.shape[-1]),
            ],
            dim=2,
        )
        f = torch.relu(torch.einsum("hc,bhcij->bhij", torch.cat([w_theta, w_phi], dim=1), pairs)) / phi.shape[-1]
    else:
        f = torch.einsum("bhci,bhcj->bhij", theta, phi)
        if config.affinity == "dot_product":
            f = f / phi.shape[-1]
        else:
            f = torch.exp(f / theta.shape[2] ** 0.5 if config.scale == "sqrt" else f)
            f = f / f.sum(-1, keepdim=True)
    y = torch.einsum("bhij,bhcj->bhci", f, g).reshape(x.shape[0], -1, *x.shape[2:])
    z = embed("w_z", y)
    mean, variance = z.mean((0, 2, 3, 4), keepdim=True), z.var((0, 2, 3, 4), keepdim=True, unbiased=False)
    gamma, beta = (weights[f"norm.{name}"][:, None, None, None] for name in ("weight", "bias"))
    return x + (z - mean) / (variance + block.norm.eps).sqrt() * gamma + beta


def outputs_and_gradients(evaluate, block, x):
    y = evaluate(x)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y.dtype)
    names, parameters = zip(*block.named_parameters(), strict=True)
    grads = torch.autograd.grad((y * weights).sum(), [x, *parameters])
    return dict(zip(("output", "input", *names), (y, *grads), strict=True))


@pytest.mark.parametrize("affinity", AFFINITIES)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [*((shape, torch.float64, 1e-9) for shape in SHAPES), (SHAPES[0], torch.float32, 2e-3)],
    ids=str,
)
def test_equals_the_paper_forward_and_backward(affinity, switches, shape, dtype, tolerance):
    block = scrambled(NonLocalConfig(affinity=affinity, **switches), shape, dtype)
    x = clips(shape, dtype=dtype)
    ours = outputs_and_gradients(block, block, x)
    plain = outputs_and_gradients(lambda x: written_out(block, x), block, x)
    for name, expected in plain.items():
        assert (ours[name] - expected).abs().max() <= tolerance * max(1.0, expected.abs().max()), name


@pytest.mark.parametrize("affinity", ["embedded_gaussian", "gaussian"])
@pytest.mark.parametrize("heads", [1, 3])
def test_scale_divides_by_the_root_of_the_width_of_a_head(affinity, heads):
    block = scrambled(NonLocalConfig(affinity=affinity, scale="sqrt", heads=heads), SHAPES[0])
    x = clips(SHAPES[0])
    torch.testing.assert_close(block(x), written_out(block, x))


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_one_clip_and_one_position(affinity):
    shape = Shape(12, 1, 1, 1)
    block = scrambled(NonLocalConfig(affinity=affinity), shape).eval()
    assert block(clips(shape, batch=1)).shape == (1, *shape)


def test_one_number_by_hand():
    # Two positions with one channel each, x = (1, 3); theta = 2x, phi = x, g = 5x, z = 7y, norm the identity.
    block = NonLocal(NonLocalConfig(affinity="dot_product", reduction=1), Shape(1, 1, 1, 2)).eval()
    with torch.no_grad():
        for conv, weight in ((block.theta, 2.0), (block.phi, 1.0), (block.g, 5.0), (block.w_z, 7.0)):
            conv.weight.fill_(weight)
            conv.bias.zero_()
        block.norm.weight.fill_((1 + block.norm.eps) ** 0.5)
    x = torch.tensor([1.0, 3.0]).reshape(1, 1, 1, 1, 2)
    # y_1 = ((2*1)*1 * 5 + (2*1)*3 * 15) / 2 = 50, y_2 = ((2*3)*1 * 5 + (2*3)*3 * 15) / 2 = 150
    torch.testing.assert_close(block(x).flatten(), torch.tensor([1 + 7 * 50.0, 3 + 7 * 150.0]))


@given(
    affinity=st.sampled_from(AFFINITIES),
    heads=st.sampled_from([1, 2]),
    order=st.permutations(range(12)),
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_permuting_positions_commutes_with_the_block(affinity, heads, order, seed):
    shape = Shape(4, 2, 3, 2)
    block = scrambled(NonLocalConfig(affinity=affinity, heads=heads), shape, seed=seed)
    x = clips(shape, seed=seed).detach()

    def permuted(at):
        return at.flatten(2)[..., list(order)].reshape(at.shape)

    torch.testing.assert_close(block(permuted(x)), permuted(block(x)), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_sub_sampling_a_map_of_equal_blocks_changes_nothing_but_the_number_of_keys(affinity, when):
    # Every 2 x 2 block holds one value, so pooling only drops copies; means and softmaxes over keys do not notice.
    small = clips(Shape(12, 3, 2, 4)).detach()
    x = F.interpolate(small, scale_factor=(1, 2, 2))
    shape = Shape(12, 3, 4, 8)
    plain = scrambled(NonLocalConfig(affinity=affinity), shape)
    pooled = scrambled(NonLocalConfig(affinity=affinity, sub_sample=when), shape)
    pooled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(pooled(x), plain(x))


@given(
    affinity=st.sampled_from(AFFINITIES),
    when=st.sampled_from(["before", "after"]),
    t=st.integers(1, 3), h=st.integers(2, 5), w=st.integers(2, 5), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_no_sub_sampling_is_sub_sampling_by_one(affinity, when, t, h, w, seed):
    shape = Shape(4, t, h, w)
    block = scrambled(NonLocalConfig(affinity=affinity), shape, seed=seed)
    by_one = scrambled(NonLocalConfig(affinity=affinity, sub_sample=when), shape, seed=seed)
    setattr(by_one, f"pool_{when}", torch.nn.MaxPool3d(1))
    x = clips(shape, seed=seed)
    torch.testing.assert_close(block(x), by_one(x))


@pytest.mark.parametrize("affinity", AFFINITIES)
@pytest.mark.parametrize("when", ["none", "before", "after"])
def test_attention_weighs_the_values_that_make_the_response(affinity, when):
    shape = Shape(2, 2, 4, 6)
    block = scrambled(NonLocalConfig(affinity=affinity, sub_sample=when, reduction=1), shape)
    x = clips(shape).detach()
    maps = block.attention(x, (1, 2, 3))
    assert maps.shape == (2, 1, 2, 4, 6)
    source = block.pool_before(x)
    keys_per_weight = 4 if when != "none" else 1  # a pooled key's weight appears at each of its four positions
    values = F.interpolate(block.pool_after(block.g(source)), size=x.shape[2:])
    expected = (maps * values).sum((2, 3, 4)) / keys_per_weight
    y = block._respond(x).mT.reshape(2, 2, 2, 4, 6)[:, :, 1, 2, 3]
    torch.testing.assert_close(expected, y)


def test_attention_leaves_out_the_row_that_pooling_drops():
    block = scrambled(NonLocalConfig(sub_sample="before"), Shape(4, 1, 5, 7))
    maps = block.attention(clips(Shape(4, 1, 5, 7)), (0, 4, 6))
    assert maps[..., -1, :].abs().max() == 0
    assert maps[..., -1].abs().max() == 0
    assert maps[..., :4, :6].min() > 0


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)], ids=str)
@pytest.mark.parametrize("affinity", AFFINITIES)
def test_half_precision_stays_within_its_bound(affinity, dtype, bound):
    shape = Shape(16, 4, 9, 8)
    block = scrambled(NonLocalConfig(affinity=affinity, scale="sqrt" if "gauss" in affinity else "none"), shape).float()
    x = clips(shape, dtype=torch.float32).detach()
    exact = block(x)
    with torch.autocast("cpu", dtype):
        lower = block(x)
    assert (lower - exact).norm() <= bound * (exact - x).norm()


@pytest.mark.parametrize("affinity", AFFINITIES)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
@pytest.mark.parametrize("shape", [Shape(12, 3, 7, 5), Shape(12, 1, 2, 2), Shape(12, 4, 16, 15)], ids=str)
def test_cost_is_what_the_reference_executes(affinity, switches, shape):
    check_cost(NonLocalConfig(affinity=affinity, implementation="reference", **switches), shape)


@pytest.mark.parametrize("affinity", ["embedded_gaussian", "gaussian"])
@pytest.mark.parametrize("shape", [Shape(12, 1, 2, 2), Shape(12, 4, 16, 15)], ids=str)
def test_cost_of_scaling_is_a_copy_of_the_queries(affinity, shape):
    check_cost(NonLocalConfig(affinity=affinity, scale="sqrt", implementation="reference"), shape)


def check_cost(config, shape):
    with torch.device("meta"):
        block = NonLocal(config, shape)
    cost, executed = block.cost(), observe(block, shape)
    assert cost.macs == executed.macs
    assert cost.product_macs == executed.product_macs
    assert cost.peak_activation_elements == executed.peak_activation_elements
    assert cost.params == sum(parameter.numel() for parameter in block.parameters())
    assert cost == NonLocal.closed_form(replace(config, implementation="auto"), shape)


def test_cost_of_the_paper_block_by_hand():
    # res4 of ResNet-50, 8 frames: C = 1024, N = 8 * 14 * 14 = 1568, inner width 512.
    cost = NonLocal.closed_form(NonLocalConfig(), Shape(1024, 8, 14, 14))
    assert cost.product_macs == 2 * 1568 * 1568 * 512
    assert cost.macs == 4 * 1568 * 1024 * 512 + cost.product_macs
    assert cost.params == 4 * 1024 * 512 + 3 * 512 + 1024 + 2 * 1024


def test_the_state_dict_is_the_documented_one():
    common = {f"{name}.{kind}" for name in ("g", "w_z", "norm") for kind in ("weight", "bias")}
    common |= {f"norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    embedded = {f"{name}.{kind}" for name in ("theta", "phi") for kind in ("weight", "bias")}
    more = {"gaussian": set(), "concatenation": embedded | {"f_theta.weight", "f_phi.weight"}}
    for affinity, when in product(AFFINITIES, ("none", "before", "after")):
        block = NonLocal(NonLocalConfig(affinity=affinity, sub_sample=when), SHAPES[0])
        assert set(block.state_dict()) == common | more.get(affinity, embedded)


def test_only_softmax_affinities_are_scaled():
    with pytest.raises(ValueError, match="softmax affinities only"):
        NonLocalConfig(affinity="dot_product", scale="sqrt")


@pytest.mark.parametrize(
    ("config", "shape", "says"),
    [
        (NonLocalConfig(heads=5), Shape(16, 2, 4, 4), "not divisible by reduction \\* heads=10"),
        (NonLocalConfig(sub_sample="after"), Shape(16, 2, 1, 4), "at least 2 x 2, given 1 x 4"),
    ],
)
def test_bad_maps_are_refused_at_construction(config, shape, says):
    with pytest.raises(ValueError, match=says):
        NonLocal(config, shape)


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_weights_start_as_in_the_authors_code(affinity):
    torch.manual_seed(0)
    block = NonLocal(NonLocalConfig(affinity=affinity), Shape(512, 1, 1, 1))
    convolutions = [module for module in block.modules() if isinstance(module, torch.nn.Conv3d)]
    assert len(convolutions) == {"gaussian": 2, "concatenation": 6}.get(affinity, 4)
    for conv in convolutions:
        assert conv.weight.std().item() == pytest.approx(0.01, rel=0.2)
        assert abs(conv.weight.mean().item()) < 2e-3
        assert conv.bias is None or not conv.bias.any()
