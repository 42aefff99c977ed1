"""The third opinion: fvcore's counter on real tensors, with handlers for what it misses or gets wrong.

fvcore walks the graph that `torch.jit.trace` records, one level above the operations that the meta pass sees, so that
the two can disagree. Its own handlers return nothing for fused attention and `baddbmm`, fail on matrix times vector,
miscount broadcast products, and read einsum costs from four printed digits; exact ones replace them all here. What is
left without a handler must be free of multiply-accumulates, or it is an error.

Only importer of fvcore.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jaxtyping
import torch
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import Tensor, nn

from workloads.counting import ops

Handler = Callable[[list[Any], list[Any]], int]


def traced_macs(model: nn.Module, clip: Tensor, where: str) -> int:
    """MACs of one forward pass of `model` on the real tensor `clip`.

    Args:
        model: in evaluation mode, with real (not meta) weights.
        clip: `[1, C, T, H, W]` on the CPU.
        where: names the model in errors.

    Raises:
        UnknownOperation: the traced graph holds an operation nobody can price.
    """
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)  # what is unsupported is checked here
    counter = FlopCountAnalysis(model, clip).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    counter.tracer_warnings("none").clear_op_handles().set_op_handle(**HANDLERS)
    with torch.no_grad(), _unchecked_shapes():
        total = counter.total()
    for name in counter.unsupported_ops():
        if not ops.is_free(name.rpartition("::")[2]):
            raise ops.UnknownOperation(name, where)
    return int(total)


@contextmanager
def _unchecked_shapes() -> Iterator[None]:
    """Sizes are tensors while torch traces, which the shape checks (switched on in tests) rightly refuse as ints."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def materialised(model: nn.Module) -> nn.Module:
    """A meta-device model as zeros on the CPU; what is counted depends on no value, so all weights are one zero."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(_zeros_like(parameter), requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, _zeros_like(buffer))
    return model


def _zeros_like(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def _shape(value: Any) -> Sequence[int]:
    shape: list[int] | None = get_shape(value)
    assert shape is not None, f"the trace has no shape for {value.debugName()}"
    return shape


def _convolution(inputs: list[Any], outputs: list[Any]) -> int:
    transposed = inputs[6].toIValue()
    return ops.convolution(_shape(inputs[0]), _shape(inputs[1]), _shape(outputs[0]), transposed=transposed)


def _product(first: int) -> Handler:
    """Handler of `a @ b` whose `a` is argument number `first` (after the addend of addmm and baddbmm)."""

    def handle(inputs: list[Any], outputs: list[Any]) -> int:
        return ops.product(_shape(inputs[first]), _shape(inputs[first + 1]), _shape(outputs[0]))

    return handle


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:
    return ops.einsum(inputs[0].toIValue(), [_shape(value) for value in inputs[1].node().inputs()])


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    q, k, v = (_shape(value) for value in inputs[:3])
    rows = 1
    for size in q[:-1]:
        rows *= size
    return rows * k[-2] * (q[-1] + v[-1])


HANDLERS: dict[str, Handler] = {
    "aten::_convolution": _convolution,
    "aten::linear": _product(0),
    "aten::matmul": _product(0),
    "aten::mm": _product(0),
    "aten::bmm": _product(0),
    "aten::mv": _product(0),
    "aten::dot": _product(0),
    "aten::addmm": _product(1),
    "aten::addmv": _product(1),
    "aten::baddbmm": _product(1),
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
}
