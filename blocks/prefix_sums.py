"""``y_i = sum_j max(a_i + b_j, 0) v_j / divisor`` in O(N log N), exactly.

Only the keys with b_j > -a_i count for query i. With the keys sorted by b they are a suffix, so two suffix sums, of v
and of b v, give every answer:

    y_i = (a_i + c) sum_{j: b_j > -a_i} v_j  +  sum_{j: b_j > -a_i} (b_j - c) v_j

with c the mean of b, which keeps the two sums from cancelling when a and b are large and of opposite sign;
and the gradients are suffix sums again, with queries and keys in exchanged roles where a key collects from its queries:

    dL/da_i = dy_i . sum_{j: b_j > -a_i} v_j        dL/db_j = v_j . sum_{i: a_i > -b_j} dy_i
    dL/dv_j = sum_i max(a_i + b_j, 0) dy_i

Sums run in at least float32, along the contiguous axis of channels-first maps `[g, e, n]`.

Code consulted: none.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def concatenation_attention(a: Tensor, b: Tensor, v: Tensor, divisor: int) -> Tensor:
    """The concatenation form without the N x N map.

    Args:
        a: `[b, h, n, 1]`, the queries' part of w_f [theta_i, phi_j].
        b: `[b, h, m, 1]`, the keys' part.
        v: values `[b, h, m, e]`.
        divisor: what the sum over keys is divided by.

    Returns:
        `[b, h, n, e]`, in the dtype of `v`.
    """
    a_gn, b_gm, v_gem = a.flatten(0, 1)[..., 0], b.flatten(0, 1)[..., 0], v.flatten(0, 1).mT
    y_gen: Tensor = torch.ops.longrange.concatenation_attention(a_gn, b_gm, v_gem, divisor)
    return y_gen.mT.reshape(*a.shape[:2], *y_gen.mT.shape[1:])


@torch.library.custom_op(
    "longrange::concatenation_attention",
    mutates_args=(),
    schema="(Tensor a, Tensor b, Tensor v, SymInt divisor) -> Tensor",
)
def _forward(a: Tensor, b: Tensor, v: Tensor, divisor: int) -> Tensor:
    a, b, wide = (_wide(x) for x in (a, b, v))
    _, response = _suffix_sums(a, b, wide)
    return response.div_(divisor).to(v.dtype)


@_forward.register_fake
def _(a: Tensor, b: Tensor, v: Tensor, divisor: int) -> Tensor:
    return v.new_empty(*v.shape[:2], a.shape[1])


@torch.library.custom_op(
    "longrange::concatenation_attention_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor a, Tensor b, Tensor v, SymInt divisor) -> (Tensor, Tensor, Tensor)",
)
def _backward(dy: Tensor, a: Tensor, b: Tensor, v: Tensor, divisor: int) -> tuple[Tensor, Tensor, Tensor]:
    dtypes = a.dtype, b.dtype, v.dtype
    a, b, v, dy = (_wide(x) for x in (a, b, v, dy))
    dy = dy / divisor
    sum_v, _ = _suffix_sums(a, b, v, response=False)
    da = sum_v.mul_(dy).sum(1)
    sum_dy, dv = _suffix_sums(b, a, dy)
    db = sum_dy.mul_(v).sum(1)
    return da.to(dtypes[0]), db.to(dtypes[1]), dv.to(dtypes[2])


@_backward.register_fake
def _(dy: Tensor, a: Tensor, b: Tensor, v: Tensor, divisor: int) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), b.new_empty(b.shape), v.new_empty(v.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, b, v, ctx.divisor = inputs
    ctx.save_for_backward(a, b, v)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    grads = torch.ops.longrange.concatenation_attention_backward(dy, *ctx.saved_tensors, ctx.divisor)
    return (*grads, None)


_forward.register_autograd(_gradients, setup_context=_save)


def _suffix_sums(a: Tensor, b: Tensor, v: Tensor, *, response: bool = True) -> tuple[Tensor, Tensor]:
    """For every a_i, the sum over {j: b_j > -a_i} of v_j and, if `response` is wanted, of (a_i + b_j) v_j.

    Args:
        a: `[g, n]`.
        b: `[g, m]`.
        v: `[g, e, m]`.
        response: also compute the second sum.

    Returns:
        Two tensors `[g, e, n]`; the first one twice without `response`.
    """
    # Descending, the active keys are a prefix; its length is how many sorted -b_j lie below a_i.
    negated, order = torch.sort(-b, dim=-1)
    count = torch.searchsorted(negated, a)
    last = _each_channel((count - 1).clamp_min(0), v)
    none = (count == 0).unsqueeze(1)
    sorted_v = v.gather(-1, _each_channel(order, v))
    sum_v = torch.cumsum(sorted_v, dim=-1).gather(-1, last).masked_fill_(none, 0)
    if not response:
        return sum_v, sum_v
    centre = b.mean(-1, keepdim=True)
    weighted = sorted_v.mul_(-(negated + centre).unsqueeze(1))
    sum_bv = torch.cumsum(weighted, dim=-1).gather(-1, last).masked_fill_(none, 0)
    return sum_v, sum_bv.addcmul_(sum_v, (a + centre).unsqueeze(1))


def _each_channel(index: Tensor, v: Tensor) -> Tensor:
    return index.unsqueeze(1).expand(-1, v.shape[1], -1)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
