"""``y_i = sum_j f(s q_i . k_j) v_j`` for f = softmax or ReLU, a chunk of queries at a time.

Neither pass holds more than a few rows of the N x N map: the backward pass recomputes each chunk from q and k, which
costs one product in seven more than the plain form and keeps nothing but its inputs. Both passes are opaque operators,
so that a compiled or exported model contains one call whatever the number of positions.

Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

# Elements of the map held at once: 16 MB in float32, enough to keep matrix products efficient.
_MAP_ELEMENTS = 1 << 22


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
        for rows in _chunks(q, k):
            weights = _weights(q[:, rows], k, softmax, scale)
            y[:, rows] = torch.baddbmm(y[:, rows], weights, v, beta=0, alpha=1 / divisor)
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
    dq, dk, dv = torch.empty_like(q), k.new_zeros(k.shape, dtype=wide), v.new_zeros(v.shape, dtype=wide)
    with torch.autocast(q.device.type, enabled=False):
        for rows in _chunks(q, k):
            weights = _weights(q[:, rows], k, softmax, scale)
            dv += torch.bmm(weights.mT, dy[:, rows])
            dlogits = _activation_backward(torch.bmm(dy[:, rows], v.mT), weights, softmax)
            dq[:, rows] = torch.baddbmm(dq[:, rows], dlogits, k, beta=0, alpha=scale / divisor)
            dk += torch.bmm(dlogits.mT, q[:, rows])
    return dq, dk.mul_(scale / divisor).to(k.dtype), dv.div_(divisor).to(v.dtype)


@_backward.register_fake
def _(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), k.new_empty(k.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, *ctx.choices = inputs
    ctx.save_for_backward(q, k, v)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.longrange.chunked_attention_backward(dy, *ctx.saved_tensors, *ctx.choices)
    return (*grads, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def _weights(q: Tensor, k: Tensor, softmax: bool, scale: float) -> Tensor:
    logits = torch.baddbmm(q.new_empty(()), q, k.mT, beta=0, alpha=scale)
    return torch.softmax(logits, dim=-1) if softmax else logits.relu_()


def _activation_backward(dweights: Tensor, weights: Tensor, softmax: bool) -> Tensor:
    if softmax:
        inner = torch.linalg.vecdot(dweights, weights).unsqueeze(-1)
        return dweights.sub_(inner).mul_(weights)
    return dweights.mul_(weights > 0)


def _chunks(q: Tensor, k: Tensor) -> Iterator[slice]:
    size = max(1, _MAP_ELEMENTS // max(1, q.shape[0] * k.shape[1]))
    return (slice(start, start + size) for start in range(0, q.shape[1], size))
