"""The evaluations of the bilinear transform: in slabs of any size, and at once as on a GPU, against its definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blocks import bilinear
from blocks.bilinear import transform_fast, transform_plain

# k, kt, sides of P and Q, the map: bands that divide it, overlap in rows, in columns, and matrices of map size.
CASES = {
    "divides": (2, 2, 3, 2, (6, 4, 6, 4)),
    "finer in time": (1, 3, 2, 5, (6, 4, 4, 5)),
    "rows overlap": (3, 1, 3, 2, (6, 2, 7, 4)),
    "columns overlap": (2, 1, 2, 3, (4, 6, 4, 5)),
    "full": (2, 2, 5, 7, (4, 4, 5, 7)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def inputs(
    case: Any, dtype: torch.dtype = torch.float64, *, temporal: bool = True, clips: int = 2, channels: int | None = None
) -> list[Tensor | None]:
    k, kt, rows, columns, (c, t, h, w) = case
    c = channels or c
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    x, p, q = random(clips, c, t, h, w), random(clips, k, t, rows, rows), random(clips, k, t, columns, columns)
    return [x, p, q, random(clips, kt, 2, 2) if temporal else None]


def outcome(evaluate: Any, given: list[Tensor | None]) -> list[Tensor]:
    y = evaluate(*given)
    goal = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).reshape(y.shape).to(y.dtype)
    return [y, *torch.autograd.grad(y, [x for x in given if x is not None], goal)]


@every_case
@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("elements", [1, 100, 700, 1 << 18])
def test_slabs_of_any_size_equal_the_definition(
    case: Any, temporal: bool, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bilinear, "_SLAB_ELEMENTS", elements)
    monkeypatch.setattr(bilinear, "_SHARED_SLAB_ELEMENTS", elements)
    given = inputs(case, temporal=temporal)
    for ours, plain in zip(outcome(transform_fast, given), outcome(transform_plain, given), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@every_case
@pytest.mark.parametrize("temporal", [True, False])
def test_the_evaluation_for_other_devices_equals_the_definition(
    case: Any, temporal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bilinear, "_in_slabs", bilinear._at_once)
    given = inputs(case, temporal=temporal)
    for ours, plain in zip(outcome(transform_fast, given), outcome(transform_plain, given), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


@every_case
def test_gradcheck(case: Any) -> None:
    one_per_matrix = max(case[:2])  # numeric derivatives take a forward for each element
    assert torch.autograd.gradcheck(transform_fast, inputs(case, clips=1, channels=one_per_matrix))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 1.5e-2), (torch.float16, 2e-3)], ids=str)
def test_half_precision_error_is_bounded(dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bilinear, "_SLAB_ELEMENTS", 200)  # sums over several slabs
    given = inputs(CASES["divides"], dtype)
    exact = outcome(transform_plain, [x.detach().double().requires_grad_() for x in given if x is not None])
    for ours, plain in zip(outcome(transform_fast, given), exact, strict=True):
        assert ours.dtype == dtype
        assert (ours.double() - plain).norm() <= bound * plain.norm()


def test_autocast_computes_in_the_lower_precision() -> None:
    given = inputs(CASES["divides"], torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = transform_fast(*given)  # type: ignore[arg-type]
    assert y.dtype == torch.bfloat16
    assert all(grad.dtype == torch.float32 for grad in torch.autograd.grad(y.float().sum(), given))


def test_training_keeps_the_input_and_small_matrices_only() -> None:
    given = inputs((4, 2, 7, 7, (16, 4, 28, 28)), torch.float32)
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        transform_fast(*given).sum().backward()  # type: ignore[arg-type]
    x = given[0]
    assert x is not None
    assert sum(kept.values()) < 1.1 * x.untyped_storage().nbytes()


def test_sums_over_many_slabs_lose_nothing_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    for elements in ("_SLAB_ELEMENTS", "_SHARED_SLAB_ELEMENTS"):
        monkeypatch.setattr(bilinear, elements, 1)  # a slab per channel
    x = torch.ones(1, 1024, 1, 4, 4, dtype=torch.bfloat16)  # sums of ones end at 256 in bfloat16
    p, q = (torch.eye(2, dtype=torch.bfloat16).reshape(1, 1, 1, 2, 2).requires_grad_() for _ in range(2))
    transform_fast(x, p, q, None).sum().backward()
    assert p.grad is not None
    assert q.grad is not None
    assert p.grad.unique().tolist() == q.grad.unique().tolist() == [8 * 1024]
