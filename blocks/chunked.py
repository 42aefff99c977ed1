"""``y_i = sum_j f(s q_i . k_j) v_j`` for f = softmax or ReLU, a chunk of queries at a time.

Neither pass holds more than a few rows of the N x N map: the backward pass recomputes each chunk from q and k, which
costs one product in seven more than the plain form and keeps nothing but its inputs. Both passes are opaque operators,
so that a compiled or exported model contains one call whatever the number of positions.

Gradients are summed transposed, `[d, n]`: matrix libraries work along the columns of a result, and the queries and keys
of a group can be 8 wide (HG-NL), where that takes a quarter of the time.

Code consulted: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from blocks.products import accumulate, product

# Elements of the map held at once: 4 MB in float32, near the caches and enough to keep matrix products efficient. A GPU
# starts an operator in the time in which it works through a million of them, and gets more.
_MAP_ELEMENTS = 1 << 20
_GPU_MAP_ELEMENTS = 1 << 24


def chunked_attention(
    activation: Literal["softmax", "relu"], q: Tensor, k: Tensor, v: Tensor, scale: float, divisor: int
) -> Tensor:
    """Exact attention in bounded memory.

    Args:
        activation: softmax over the keys, or ReLU.
        q: queries `[b, h, n, d]`.
        k: keys `[b, h, m, d]`.
        v: values `[b, h, m, e]`, of the same dtype.
        scale: factor on the products.
        divisor: what the sum over keys is divided by.

    Returns:
        `[b, h, n, e]`.
    """
    flat = (x.flatten(0, 1) for x in (q, k, v))
    y: Tensor = torch.ops.longrange.chunked_attention(*flat, activation == "softmax", scale, divisor)
    return y.reshape(*q.shape[:2], *y.shape[1:])


@torch.library.custom_op(
    "longrange::chunked_attention",
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, bool softmax, float scale, SymInt divisor) -> Tensor",
)
def _forward(q: Tensor, k: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int) -> Tensor:
    y = v.new_empty(*q.shape[:2], v.shape[-1])
    with torch.autocast(q.device.type, enabled=False):
        q = _scaled(q, scale)
        for maps, rows, room, other in _chunks(q, k):
            weights = _weigh(q[maps, rows], k[maps], softmax, room, other)
            y[maps, rows] = product(weights, v[maps], alpha=1 / divisor)
    return y


@_forward.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int) -> Tensor:
    return v.new_empty(*q.shape[:2], v.shape[-1])


@torch.library.custom_op(
    "longrange::chunked_attention_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor q, Tensor k, Tensor v, bool softmax, float scale, SymInt divisor)"
    " -> (Tensor, Tensor, Tensor)",
)
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int
) -> tuple[Tensor, Tensor, Tensor]:
    wide = torch.promote_types(q.dtype, torch.float32)  # sums over chunks lose nothing in half precision
    dq, dk, dv = q.new_empty(q.mT.shape), *(x.new_zeros(x.mT.shape, dtype=wide) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        q = _scaled(q, scale)
        for maps, rows, room, other in _chunks(q, k):
            weights = _weigh(q[maps, rows], k[maps], softmax, room, other)
            accumulate(dv[maps], dy[maps, rows].mT, weights)
            dlogits = product(dy[maps, rows], v[maps].mT, room)
            _activate_backward(dlogits, weights, softmax)
            dq[maps, :, rows] = product(k[maps].mT, dlogits.mT, alpha=scale / divisor)
            accumulate(dk[maps], q[maps, rows].mT, dlogits)
    return dq.mT, dk.div_(divisor).to(k.dtype).mT, dv.div_(divisor).to(v.dtype).mT


@_backward.register_fake
def _(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (x.new_empty(x.mT.shape).mT for x in (q, k, v))
    return dq, dk, dv


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, *ctx.choices = inputs
    ctx.save_for_backward(q, k, v)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.longrange.chunked_attention_backward(dy, *ctx.saved_tensors, *ctx.choices)
    return (*grads, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def _chunks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Which maps and which of their rows to hold next, and two buffers `[maps, rows, m]` for them.

    Fresh memory for every chunk would cost as much as a pass over it: the buffers are the same two every time.
    """
    g, n, m = q.shape[0], q.shape[1], k.shape[1]
    most = _MAP_ELEMENTS if q.device.type == "cpu" else _GPU_MAP_ELEMENTS
    rows = min(n, max(1, most // max(1, m)))
    maps = min(g, max(1, most // max(1, rows * m)))
    buffers = q.new_empty(2, maps * rows * m)
    for first, start in itertools.product(range(0, g, maps), range(0, n, rows)):
        shape = (min(maps, g - first), min(rows, n - start), m)
        room, other = (buffer[: prod(shape)].view(shape) for buffer in buffers)
        yield slice(first, first + maps), slice(start, start + rows), room, other


def _weigh(q: Tensor, k: Tensor, softmax: bool, room: Tensor, other: Tensor) -> Tensor:
    """The weights of scaled queries, in `other`, which leaves `room` free, or in memory of their own."""
    if softmax:
        return torch.softmax(product(q, k.mT, room), dim=-1, out=other)
    return product(q, k.mT, other).relu_()


def _activate_backward(dweights: Tensor, weights: Tensor, softmax: bool) -> None:
    """Turn the gradient of the weights into the gradient of the scaled products, in place."""
    if softmax:
        inner = torch.linalg.vecdot(dweights, weights).unsqueeze(-1)
        dweights.sub_(inner).mul_(weights)
    else:
        torch.ops.aten.threshold_backward.grad_input(dweights, weights, 0, grad_input=dweights)


def _scaled(q: Tensor, scale: float) -> Tensor:
    return q if scale == 1.0 else q * scale
