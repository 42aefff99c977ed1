"""``y_i = sum_j f(s x_i . x_j) v_j`` for f = softmax or ReLU, where queries and keys are the same vectors.

The products are symmetric, so a square tile of them serves twice: for its rows, and transposed for its columns. Half of
the products are formed, in both passes, and the gradient of x needs one product for what are two gradients otherwise.
With x of width d and v of width e, multiply-accumulates per pair of positions:

                          forward    forward + backward
    the map kept          d + e      3 d + 3 e
    tiles, recomputed     d/2 + e    2 d + 3 e

Only tiles of the map exist at any time, and all but the last ones are of one size: the library that multiplies keeps
half a megabyte for every size it has seen. Queries get their softmax bit by bit: the sums so far are rescaled when a
tile brings a larger logit (Milakov and Gimelshein, "Online normalizer calculation for softmax", arXiv:1805.02867).

Code consulted: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from blocks.products import accumulate, product

# The most rows and columns of a tile: 1 MB in float32, near the caches and enough for efficient matrix products; few
# enough for tiles on the diagonal, of which one half is formed for nothing, not to matter.
_SIDE = 512


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


def _tiles(n: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles on and above the diagonal, as equal as possible."""
    side = -(-n // -(-n // _SIDE))
    bands = [slice(start, min(start + side, n)) for start in range(0, n, side)]
    return itertools.combinations_with_replacement(bands, 2)


def _softmax_responses(q: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor) -> None:
    """Fill `y` `[n, e]` and `logsumexp` `[n]` of one map; `q` is the scaled `x`."""
    largest, total = torch.full_like(logsumexp, -torch.inf), torch.zeros_like(logsumexp)

    def add(queries: slice, keys: slice, logits: Tensor, weights: Tensor) -> None:
        new = torch.maximum(largest[queries], logits.amax(1))
        kept = (largest[queries] - new).exp_()
        largest[queries] = new
        _exponentials(torch.sub(logits, new.unsqueeze(1), out=weights))
        total[queries] = total[queries] * kept + weights.sum(1)
        _accumulate(y[queries].mul_(kept.unsqueeze(1)), weights, v[keys])

    for rows, columns in _tiles(x.shape[0]):
        logits = _product(q[rows], x[columns].mT)
        add(rows, columns, logits, torch.empty_like(logits))
        if rows != columns:
            add(columns, rows, logits.mT, logits.mT)
    y.div_(total.unsqueeze(1))
    torch.add(largest, total.log_(), out=logsumexp)


def _relu_responses(q: Tensor, x: Tensor, v: Tensor, y: Tensor, logsumexp: Tensor) -> None:
    """Fill `y` `[n, e]` of one map; `q` is the scaled `x`."""
    for rows, columns in _tiles(x.shape[0]):
        weights = _product(q[rows], x[columns].mT).relu_()
        _accumulate(y[rows], weights, v[columns])
        if rows != columns:
            _accumulate(y[columns], weights.mT, v[rows])


class _SoftmaxWeights:
    """Softmax and its gradient from what the forward pass kept: `[n]` each."""

    def __init__(self, logsumexp: Tensor, inner: Tensor) -> None:
        self.logsumexp, self.inner = logsumexp, inner

    def weigh(self, logits: Tensor, queries: slice, out: Tensor) -> Tensor:
        return _exponentials(torch.sub(logits, self.logsumexp[queries].unsqueeze(1), out=out))

    def back(self, dweights: Tensor, weights: Tensor, queries: slice) -> Tensor:
        return dweights.sub_(self.inner[queries].unsqueeze(1)).mul_(weights)


class _ReLUWeights:
    def weigh(self, logits: Tensor, queries: slice, out: Tensor) -> Tensor:
        return torch.clamp_min(logits, 0, out=out)

    def back(self, dweights: Tensor, weights: Tensor, queries: slice) -> Tensor:
        back: Tensor = torch.ops.aten.threshold_backward.grad_input(dweights, weights, 0, grad_input=dweights)
        return back


def _gradients_of_one(
    form: _SoftmaxWeights | _ReLUWeights, q: Tensor, x: Tensor, v: Tensor, dy: Tensor, dx: Tensor, dv: Tensor
) -> None:
    """Add the gradients of one map to `dx` `[n, d]`, as of unscaled products, and `dv` `[n, e]`; `q` is scaled `x`."""

    def back(queries: slice, keys: slice, logits: Tensor, weights: Tensor) -> Tensor:
        """Add to `dv` and return the gradient of the logits of these queries; `weights` is room for theirs."""
        form.weigh(logits, queries, weights)
        _accumulate(dv[keys], weights.mT, dy[queries])
        return form.back(_product(dy[queries], v[keys].mT), weights, queries)

    for rows, columns in _tiles(x.shape[0]):
        logits = _product(q[rows], x[columns].mT)
        dlogits = back(rows, columns, logits, torch.empty_like(logits))
        if rows != columns:
            dlogits += back(columns, rows, logits.mT, logits.mT).mT
        # x_i . x_j passes its gradient to both of its factors.
        _accumulate(dx[rows], dlogits, x[columns])
        _accumulate(dx[columns], dlogits.mT, x[rows])


def _exponentials(x: Tensor) -> Tensor:
    """`exp(x)` in place for x <= 0, not less than 1e-27: nothing, in any precision, beside a sum of at least one.

    Numbers below the normal ones would take processors ten times as long, here and in all products that follow.
    """
    return x.clamp_min_(-62.0).exp_()


def _product(a: Tensor, b: Tensor) -> Tensor:
    return product(a.unsqueeze(0), b.unsqueeze(0)).squeeze(0)


def _accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    accumulate(total.unsqueeze(0), a.unsqueeze(0), b.unsqueeze(0))


def _scaled(x: Tensor, scale: float) -> Tensor:
    return x if scale == 1.0 else x * scale
