"""Attention of positions among themselves by halves of the map: equal to the whole map, however it is cut."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from blocks import symmetric
from blocks.affinity import attend, attend_within

FORMS = ("softmax", "dot_product", "relu", "cosine")


def tensors(batch=2, heads=3, n=11, d=5, e=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, heads, n, d), (batch, heads, n, e)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def outputs_and_gradients(evaluate, x, v):
    y = evaluate(x, v)
    goal = torch.randn(y.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(y.dtype)
    return (y, *torch.autograd.grad((y * goal).sum(), (x, v)))


def plain(form, **choices):
    return lambda x, v: attend(form, x, x, v, implementation="reference", **choices)


@pytest.fixture(params=[1, 2, 3, 4, 11], ids="side {}".format)
def side(request, monkeypatch):
    monkeypatch.setattr(symmetric, "_SIDE", request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalise", [True, False])
def test_every_cut_gives_the_whole_map_forward_and_backward(side, form, normalise):
    ours = outputs_and_gradients(lambda x, v: attend_within(form, x, v, normalise=normalise), *tensors())
    expected = outputs_and_gradients(plain(form, normalise=normalise), *tensors())
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["softmax", "relu"])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_scale_and_few_positions(form, n, monkeypatch):
    monkeypatch.setattr(symmetric, "_SIDE", 2)
    ours = outputs_and_gradients(lambda x, v: attend_within(form, x, v, scale=0.3), *tensors(n=n))
    expected = outputs_and_gradients(plain(form, scale=0.3), *tensors(n=n))
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["softmax", "relu", "cosine"])
def test_float32_stays_near_float64(form):
    ours = outputs_and_gradients(lambda x, v: attend_within(form, x, v), *tensors(n=300, dtype=torch.float32))
    exact = outputs_and_gradients(plain(form), *tensors(n=300))
    for given, expected in zip(ours, exact, strict=True):
        assert (given.double() - expected).norm() <= 1e-5 * expected.norm()


def test_a_larger_logit_in_a_later_tile_rescales_without_overflow_or_loss(monkeypatch):
    monkeypatch.setattr(symmetric, "_SIDE", 2)
    sizes = torch.tensor([1.0, 30.0, 0.01, 90.0, 3.0, 200.0, 0.0], dtype=torch.float64)  # logits up to 40000
    x, v = tensors(1, 1, 7, 4, 3)
    x = (torch.nn.functional.normalize(x.detach(), dim=-1) * sizes[:, None]).requires_grad_()
    ours = outputs_and_gradients(lambda x, v: attend_within("softmax", x, v), x, v)
    expected = outputs_and_gradients(plain("softmax"), x, v)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", ["softmax", "relu"])
def test_gradcheck(form, monkeypatch):
    monkeypatch.setattr(symmetric, "_SIDE", 2)
    x, v = tensors(1, 2, 5, 3, 2)
    assert torch.autograd.gradcheck(lambda x, v: attend_within(form, x, v), (x, v))


class Operators(TorchDispatchMode):
    """Names of the operators that ran."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", ["softmax", "relu", "cosine"])
@pytest.mark.parametrize(("dtype", "halves"), [(torch.float32, True), (torch.float64, True), (torch.bfloat16, False)])
def test_which_precision_takes_halves(form, dtype, halves):
    with Operators() as ran, torch.no_grad():
        attend_within(form, *tensors(dtype=dtype))
    assert ("longrange::symmetric_attention" in ran.names) is halves


@pytest.mark.parametrize("softmax", [True, False])
def test_the_operator_keeps_what_pytorch_asks_of_operators(softmax):
    x, v = (tensor.detach().flatten(0, 1).requires_grad_() for tensor in tensors(1, 2, 5, 3, 2))
    torch.library.opcheck(torch.ops.longrange.symmetric_attention, (x, v, softmax, 0.5, 3))


@pytest.mark.parametrize("form", ["softmax", "relu", "cosine"])
def test_training_keeps_no_map(form):
    n, held = 3000, []
    x, v = torch.randn(1, 1, n, 16, requires_grad=True), torch.randn(1, 1, n, 8, requires_grad=True)

    def pack(tensor):
        held.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attend_within(form, x, v).sum().backward()
    assert sum(held) < n * n * 4 / 20
