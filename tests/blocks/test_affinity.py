"""The pairwise functions: written out position by position, and every fast evaluation against that."""

import math
from itertools import product

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from blocks import chunked
from blocks.affinity import attend, pairwise, row, unit

FORMS = ("softmax", "dot_product", "relu", "cosine", "concatenation")
SIZES = [(1, 1, 1, 1, 1), (2, 3, 5, 7, 4), (3, 1, 4, 11, 2)]  # batch, heads, queries, keys, width


def tensors(form, batch, heads, n, m, width, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    d = 1 if form == "concatenation" else width
    shapes = [(batch, heads, n, d), (batch, heads, m, d), (batch, heads, m, width + 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def written_out(form, q, k, v, *, scale=1.0, normalise=True):
    """The equations, one query and one key at a time."""
    y = torch.zeros(*q.shape[:3], v.shape[-1], dtype=q.dtype)
    for b, h, i in product(*map(range, q.shape[:3])):
        f = torch.stack([one_pair(form, q[b, h, i], k[b, h, j], scale) for j in range(k.shape[2])])
        if form == "softmax":
            f = f / f.sum()
        elif normalise:
            f = f / k.shape[2]
        y[b, h, i] = sum(f[j] * v[b, h, j] for j in range(k.shape[2]))
    return y


def one_pair(form, q, k, scale):
    if form == "softmax":
        return torch.exp(scale * torch.dot(q, k))
    if form == "dot_product":
        return scale * torch.dot(q, k)
    if form == "relu":
        return torch.relu(scale * torch.dot(q, k))
    if form == "cosine":
        return torch.relu(torch.dot(q, k) / (q.norm() * k.norm()))
    return torch.relu(q[0] + k[0])


def outputs_and_gradients(evaluate, inputs):
    y = evaluate(*inputs)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(y.dtype)
    return (y, *torch.autograd.grad((y * weights).sum(), inputs))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("implementation", ["auto", "reference"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("normalise", [True, False])
def test_every_evaluation_equals_the_equation_forward_and_backward(
    form, size, implementation, dtype, tolerance, normalise
):
    inputs = tensors(form, *size, dtype=dtype)
    ours = outputs_and_gradients(
        lambda q, k, v: attend(form, q, k, v, normalise=normalise, implementation=implementation), inputs
    )
    plain = outputs_and_gradients(lambda q, k, v: written_out(form, q, k, v, normalise=normalise), inputs)
    for given_tensor, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(given_tensor, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", ["softmax", "dot_product", "relu"])
def test_scale_multiplies_the_products(form):
    inputs = tensors(form, 2, 3, 5, 7, 4)
    ours = outputs_and_gradients(lambda q, k, v: attend(form, q, k, v, scale=0.3), inputs)
    plain = outputs_and_gradients(lambda q, k, v: written_out(form, q, k, v, scale=0.3), inputs)
    torch.testing.assert_close(ours, plain)


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    assert torch.autograd.gradcheck(lambda q, k, v: attend(form, q, k, v), tensors(form, 1, 2, 5, 7, 3))


@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    width=st.integers(1, 4),
    levels=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_concatenation_equals_its_map_whatever_the_order_and_the_ties(n, m, width, levels, seed):
    # Few distinct half-integer levels: many equal keys, and sums that are exactly zero at the kink of the ReLU.
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randint(-levels, levels + 1, (1, 1, size, 1), generator=generator).double() / 2 for size in (n, m))
    v = torch.randn(1, 1, m, width, generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (a, b, v)]
    ours = outputs_and_gradients(lambda a, b, v: attend("concatenation", a, b, v), inputs)
    plain = outputs_and_gradients(lambda a, b, v: attend("concatenation", a, b, v, implementation="reference"), inputs)
    for given_tensor, expected in zip(ours, plain, strict=True):
        torch.testing.assert_close(given_tensor, expected, rtol=1e-12, atol=1e-12)


def test_concatenation_keeps_precision_when_the_two_parts_nearly_cancel():
    a, b, v = (x.detach().float() for x in tensors("concatenation", 1, 1, 500, 700, 3))
    shifted = attend("concatenation", a + 1000.0, b - 1000.0, v)
    large = [x.double() for x in (a + 1000.0, b - 1000.0, v)]
    exact = attend("concatenation", *large, implementation="reference")
    torch.testing.assert_close(shifted.double(), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["softmax", "relu", "cosine"])
def test_chunks_change_nothing(form, monkeypatch):
    inputs = tensors(form, 2, 3, 11, 13, 7)
    whole = outputs_and_gradients(lambda q, k, v: attend(form, q, k, v), inputs)
    monkeypatch.setattr(chunked, "_MAP_ELEMENTS", 200)  # two queries at a time, and an odd one left over
    torch.testing.assert_close(outputs_and_gradients(lambda q, k, v: attend(form, q, k, v), inputs), whole)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)], ids=str)
def test_half_precision_error_is_bounded(form, dtype, bound):
    inputs = tensors(form, 2, 2, 60, 70, 16, dtype=dtype)
    ours = outputs_and_gradients(lambda q, k, v: attend(form, q, k, v), inputs)
    exact = outputs_and_gradients(
        lambda q, k, v: attend(form, q, k, v, implementation="reference"),
        [x.detach().double().requires_grad_() for x in inputs],
    )
    if form == "cosine":
        bound *= 4  # rounding the unit vectors moves some cosines across zero, where the gradient jumps
    for given_tensor, expected in zip(ours, exact, strict=True):
        assert given_tensor.dtype == dtype
        assert (given_tensor.double() - expected).norm() <= bound * expected.norm()


@pytest.mark.parametrize("form", ["dot_product", "concatenation", "relu"])
def test_sums_over_many_positions_stay_in_the_range_of_float16(form):
    d = 1 if form == "concatenation" else 8
    q, k = torch.full((1, 1, 3, d), 2.0).half(), torch.full((1, 1, 20000, d), 2.0).half()
    v = torch.full((1, 1, 20000, 4), 4.0).half()
    expected = {"dot_product": 8 * 4.0 * 4, "relu": 8 * 4.0 * 4, "concatenation": 4.0 * 4}[form]
    torch.testing.assert_close(attend(form, q, k, v).float(), torch.full((1, 1, 3, 4), expected), rtol=2e-3, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_computes_in_the_lower_precision(form):
    q, k, v = tensors(form, 1, 2, 5, 7, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = attend(form, q, k, v.bfloat16())
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS)
def test_activation_checkpointing_changes_nothing(form):
    inputs = tensors(form, 1, 2, 5, 7, 4)
    once = outputs_and_gradients(lambda *qkv: attend(form, *qkv), inputs)
    again = outputs_and_gradients(lambda *qkv: checkpoint(attend, form, *qkv, use_reentrant=False), inputs)
    assert all(map(torch.equal, again, once))


@pytest.mark.parametrize("form", FORMS)
def test_row_is_a_row_of_the_map(form):
    q, k, _ = tensors(form, 2, 3, 5, 7, 4)
    torch.testing.assert_close(row(form, q, k, 3), pairwise(form, q, k)[:, :, 3])


def test_softmax_over_columns_is_the_call_with_queries_and_keys_exchanged():
    q, k, _ = (x.detach() for x in tensors("softmax", 1, 2, 5, 5, 4))
    v = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    columns = (q @ k.mT).softmax(dim=-2)  # A of HG-NL: every column sums to one
    torch.testing.assert_close(columns.sum(-2), torch.ones(1, 2, 5, dtype=torch.float64))
    torch.testing.assert_close((v.mT @ columns).mT, attend("softmax", k, q, v))  # Fo = V A


def test_one_number_by_hand():
    q, k = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0], [-1.0, 0.0]]]])
    v = torch.tensor([[[[10.0], [20.0]]]])
    products = (11.0, -1.0)
    expected = {
        "softmax": (10 * math.exp(11) + 20 * math.exp(-1)) / (math.exp(11) + math.exp(-1)),
        "dot_product": (products[0] * 10 + products[1] * 20) / 2,
        "relu": products[0] * 10 / 2,
        "cosine": 11 / (math.sqrt(5) * 5) * 10 / 2,
    }
    for form, value in expected.items():
        assert attend(form, q, k, v).item() == pytest.approx(value)
    assert attend("concatenation", q[..., :1], k[..., :1], v).item() == pytest.approx((4 * 10 + 0 * 20) / 2)


def test_a_zero_vector_is_similar_to_nothing():
    zero = torch.zeros(1, 1, 1, 4, dtype=torch.float16, requires_grad=True)
    assert torch.equal(unit(zero), zero)
    torch.autograd.grad(unit(zero).sum(), zero)


@pytest.mark.parametrize(("form", "width"), [("relu", 16), ("cosine", 16), ("softmax", 16), ("concatenation", 1)])
def test_training_memory_stays_far_below_the_map(form, width):
    n = 3000
    inputs = [torch.randn(1, 1, n, size, requires_grad=True) for size in (width, width, 8)]
    held = {"bytes": 0}

    def pack(tensor):
        held["bytes"] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attend(form, *inputs).sum().backward()
    assert held["bytes"] < n * n * 4 / 20


def test_shapes_are_executed():
    q, k, v = (torch.zeros(1, 2, size, 4) for size in (3, 5, 6))
    with pytest.raises(jaxtyping.TypeCheckError):
        attend("relu", q, k, v)


@pytest.mark.parametrize("softmax", [True, False])
def test_the_chunked_operator_keeps_what_pytorch_asks_of_operators(softmax):
    q, k, v = (x.detach().flatten(0, 1).requires_grad_() for x in tensors("relu", 1, 2, 5, 7, 3))
    torch.library.opcheck(torch.ops.longrange.chunked_attention, (q, k, v, softmax, 0.5, 3))
