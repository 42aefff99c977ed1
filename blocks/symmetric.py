"""``y_i = sum_j f(s x_i . x_j) v_j`` for f = softmax or ReLU, where queries and keys are the same vectors.

The products are symmetric, so a slab of them serves twice: as the rows of its own queries, and as the columns that all
later queries still miss. Half of the products are formed, in both passes, and the gradient of x needs one product for
what are two gradients otherwise. With x of width d and v of width e, multiply-accumulates per pair of positions:

                          forward    forward + backward
    the map kept          d + e      3 d + 3 e
    slabs, recomputed     d/2 + e    2 d + 3 e

Only slabs of the map exist at any time. Rows get their softmax bit by bit: the sums so far are rescaled when a slab
brings a larger logit (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867).

Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from blocks.products import accumulate, product

# Rows of a slab: enough for efficient matrix products, few enough for the half of its diagonal block that is formed
# twice not to matter, and never more than 8 MB in float32.
_MOST_ROWS = 192
_SLAB_ELEMENTS = 1 << 21


def symmetric_attention(
    activation: Literal["softmax", "relu"], x: Tensor, v: Tensor, scale: float, divisor: int
) -> Tensor:
    """Exact attention of positions among themselves in bounded memory.

    Args:
        activation: softmax over the keys, or ReLU.
        x: queries and keys `[b, h, n, d]`.
        v: values `[b, h, n, e]`, of the same dtype.
        scale: factor on the products.
        divisor: what the sum over keys is divided by.

    Returns:
        `[b, h, n, e]`.
    """
    flat = (each.flatten(0, 1) for each in (x, v))
    y: Tensor
    y, _ = torch.ops.longrange.symmetric_attention(*flat, activation == "softmax", scale, divisor)
    return y.reshape(*x.shape[:2], *y.shape[1:])


@torch.library.custom_op(
    "longrange::symmetric_attention",
    mutates_args=(),
    schema="(Tensor x, Tensor v, bool softmax, float scale, SymInt divisor) -> (Tensor, Tensor)",
)
def _forward(x: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int) -> tuple[Tensor, Tensor]:
    """The responses, and the logarithm of every query's sum of exponentials `[g, n]` (zeros for ReLU)."""
    y, logsumexp = v.new_zeros(v.shape), x.new_zeros(x.shape[:2])
    respond = _softmax_responses if softmax else _relu_responses
    with torch.autocast(x.device.type, enabled=False):
        for one, v_ne, y_ne, logsumexp_n in zip(x, v, y, logsumexp, strict=True):
            x_nd = one.contiguous()
            respond(_scaled(x_nd, scale), x_nd, v_ne.contiguous(), y_ne, logsumexp_n)
    return y.div_(divisor), logsumexp


@_forward.register_fake
def _(x: Tensor, v: Tensor, softmax: bool, scale: float, divisor: int) -> tuple[Tensor, Tensor]:
    return v.new_empty(v.shape), x.new_empty(x.shape[:2])


@torch.library.custom_op(
    "longrange::symmetric_attention_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor v, Tensor y, Tensor logsumexp, bool softmax, float scale, SymInt divisor)"
    " -> (Tensor, Tensor)",
)
def _backward(
    dy: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor, softmax: bool, scale: float, divisor: int
) -> tuple[Tensor, Tensor]:
    dx, dv = x.new_zeros(x.shape), v.new_zeros(v.shape)
    with torch.autocast(x.device.type, enabled=False):
        for *given, y_ne, lse_n, dx_nd, dv_ne in zip(x, v, dy, y, logsumexp, dx, dv, strict=True):
            x_nd, v_ne, dy_ne = (each.contiguous() for each in given)  # rows of one map at a time
            weights = _SoftmaxWeights(lse_n, torch.linalg.vecdot(dy_ne, y_ne)) if softmax else _ReLUWeights()
            _gradients_of_one(weights, _scaled(x_nd, scale), x_nd, v_ne, dy_ne, dx_nd, dv_ne)
    return dx.mul_(scale / divisor), dv.div_(divisor)


@_backward.register_fake
def _(
    dy: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor, softmax: bool, scale: float, divisor: int
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, v, *ctx.choices = inputs
    ctx.save_for_backward(x, v, *output)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 5
    grads = torch.ops.longrange.symmetric_attention_backward(dy, *ctx.saved_tensors, *ctx.choices)
    return (*grads, None, None, None)


_forward.register_autograd(_gradients, setup_context=_save)


def _slabs(x: Tensor, buffers: int) -> Iterator[tuple[slice, slice, slice, list[Tensor]]]:
    """Positions of the slab's rows, of its columns (the rows and all later ones), of the later ones; room for slabs."""
    n = x.shape[0]
    most = max(1, min(n, _MOST_ROWS, _SLAB_ELEMENTS // n))
    room = x.new_empty(buffers, most * n)
    for start in range(0, n, most):
        rows, columns = min(most, n - start), n - start
        slabs = [one[: rows * columns].view(rows, columns) for one in room]
        yield slice(start, start + rows), slice(start, n), slice(start + rows, n), slabs


def _softmax_responses(q: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor) -> None:
    """Fill `y` `[n, e]` and `logsumexp` `[n]` of one map; `q` is the scaled `x`."""
    largest, total = torch.full_like(logsumexp, -torch.inf), torch.zeros_like(logsumexp)

    def add(queries: slice, keys: slice, logits: Tensor, weights: Tensor, by_column: bool) -> None:
        along = 0 if by_column else 1
        new = torch.maximum(largest[queries], logits.amax(along))
        kept = (largest[queries] - new).exp_()
        largest[queries] = new
        _exponentials(torch.sub(logits, new.unsqueeze(along), out=weights))
        total[queries] = total[queries] * kept + weights.sum(along)
        _accumulate(y[queries].mul_(kept.unsqueeze(1)), weights.mT if by_column else weights, v[keys])

    for rows, columns, later, (logits, weights) in _slabs(x, 2):
        logits = _product(q[rows], x[columns].mT, logits)
        add(rows, columns, logits, weights, by_column=False)
        if later.start < later.stop:
            missing = logits[:, rows.stop - rows.start :]
            add(later, rows, missing, missing, by_column=True)
    y.div_(total.unsqueeze(1))
    torch.add(largest, total.log_(), out=logsumexp)


def _relu_responses(q: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor) -> None:
    """Fill `y` `[n, e]` of one map; `q` is the scaled `x`."""
    for rows, columns, later, (weights,) in _slabs(x, 1):
        weights = _product(q[rows], x[columns].mT, weights).relu_()
        _accumulate(y[rows], weights, v[columns])
        _accumulate(y[later], weights[:, rows.stop - rows.start :].mT, v[rows])


class _SoftmaxWeights:
    """Softmax and its gradient from what the forward pass kept: `[n]` each."""

    def __init__(self, logsumexp: Tensor, inner: Tensor) -> None:
        self.logsumexp, self.inner = logsumexp, inner

    def weigh(self, logits: Tensor, queries: slice, along: int, out: Tensor) -> Tensor:
        return _exponentials(torch.sub(logits, self.logsumexp[queries].unsqueeze(along), out=out))

    def back(self, dweights: Tensor, weights: Tensor, queries: slice, along: int) -> Tensor:
        return dweights.sub_(self.inner[queries].unsqueeze(along)).mul_(weights)


class _ReLUWeights:
    def weigh(self, logits: Tensor, queries: slice, along: int, out: Tensor) -> Tensor:
        return torch.clamp_min(logits, 0, out=out)

    def back(self, dweights: Tensor, weights: Tensor, queries: slice, along: int) -> Tensor:
        back: Tensor = torch.ops.aten.threshold_backward.grad_input(dweights, weights, 0, grad_input=dweights)
        return back


def _gradients_of_one(
    form: _SoftmaxWeights | _ReLUWeights, q: Tensor, x: Tensor, v: Tensor, dy: Tensor, dx: Tensor, dv: Tensor
) -> None:
    """Add the gradients of one map to `dx` `[n, d]`, as of unscaled products, and `dv` `[n, e]`; `q` is scaled `x`."""
    for rows, columns, later, (logits, weights, dlogits) in _slabs(x, 3):
        logits = _product(q[rows], x[columns].mT, logits)
        form.weigh(logits, rows, 1, out=weights)
        _accumulate(dv[columns], weights.mT, dy[rows])
        dlogits = _product(dy[rows], v[columns].mT, dlogits)
        form.back(dlogits, weights, rows, 1)
        if later.start < later.stop:
            count = rows.stop - rows.start
            mirrored = form.weigh(logits[:, count:], later, 0, out=logits[:, count:])
            _accumulate(dv[rows], mirrored, dy[later])
            room = weights.flatten()[: mirrored.numel()].view(mirrored.shape)
            dmirrored = _product(v[rows], dy[later].mT, room)
            dlogits[:, count:] += form.back(dmirrored, mirrored, later, 0)
        # x_i . x_j passes its gradient to both of its factors.
        _accumulate(dx[rows], dlogits, x[columns])
        _accumulate(dx[columns], dlogits.mT, x[rows])


def _exponentials(x: Tensor) -> Tensor:
    """`exp(x)` in place for x <= 0, not less than 1e-27: nothing, in any precision, beside a sum of at least one.

    Numbers below the normal ones would take processors ten times as long, here and in all products that follow.
    """
    return x.clamp_min_(-62.0).exp_()


def _product(a: Tensor, b: Tensor, room: Tensor) -> Tensor:
    return product(a.unsqueeze(0), b.unsqueeze(0), room.unsqueeze(0)).squeeze(0)


def _accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    accumulate(total.unsqueeze(0), a.unsqueeze(0), b.unsqueeze(0))


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale
