"""Pairwise functions of the non-local family, and their exact evaluation without the N x N map.

Every function answers ``y_i = sum_j f(q_i, k_j) v_j`` for all queries i. What `f` is, is the definition and lives in
`pairwise`; how the sum is evaluated is the implementation and lives in `attend`:

    form           f(q_i, k_j)                         `auto` evaluates by
    softmax        exp(s q_i.k_j) / sum_j' exp(...)    the fused kernel, or chunks where they multiply faster (*)
    dot_product    s q_i.k_j                           re-association q (k^T v): linear in N
    relu           max(s q_i.k_j, 0)                   chunks of queries, recomputed in the backward pass (*)
    cosine         max(cos(q_i, k_j), 0)               the same, on unit vectors (*)
    concatenation  max(q_i + k_j, 0), width d = 1      sorted keys and prefix sums: O(N log N) (*)

Where queries and keys are the same vectors, `attend_within` forms half of the products of softmax, relu and cosine.

(*) On small maps, where the N x N map is the fastest evaluation, `auto` forms it: see `_small`.

With `normalise`, every form but softmax is divided by the number of keys. `attend` sums over the *keys*, whose weights
sum to one for softmax. A paper that writes ``Fo = V A`` with ``A = softmax(Q^T K)`` over the columns (HG-NL eq. 3-4)
sums over the positions of Q: call ``attend(K, Q, V, ...)``.

Tensors carry their axes: b batch, heads (or groups), n queries, m keys, d width of queries and keys, e width of values.

Paper: Wang et al., "Non-local Neural Networks", CVPR 2018 (the functions); the evaluations are algebra.
Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from blocks.chunked import chunked_attention
from blocks.configs import Implementation
from blocks.prefix_sums import concatenation_attention
from blocks.products import common_dtype, far_faster_products, fast_products, one_dtype
from blocks.symmetric import symmetric_attention

_KEEP_SMALL_MAPS = True  # see `as_on_large_maps`

Form = Literal["softmax", "dot_product", "relu", "cosine", "concatenation"]

Queries = Float[Tensor, "b heads n d"]
Keys = Float[Tensor, "b heads m d"]
Values = Float[Tensor, "b heads m e"]
Output = Float[Tensor, "b heads n e"]


@contextmanager
def as_on_large_maps() -> Iterator[None]:
    """Evaluate small maps like large ones, for checks: on small ones `auto` is the plain form they compare with."""
    global _KEEP_SMALL_MAPS
    before, _KEEP_SMALL_MAPS = _KEEP_SMALL_MAPS, False
    try:
        yield
    finally:
        _KEEP_SMALL_MAPS = before


def pairwise(
    form: Form, q: Queries, k: Keys, *, scale: float = 1.0, normalise: bool = True
) -> Float[Tensor, "b heads n m"]:
    """The N x N map f(q_i, k_j) as the papers write it: the definition every fast evaluation is tested against.

    Args:
        form: the pairwise function.
        q: queries; for `concatenation` the scalars w_q . theta_i (d = 1).
        k: keys; for `concatenation` the scalars w_k . phi_j (d = 1).
        scale: the factor s on the products; `cosine` and `concatenation` have none.
        normalise: divide by the number of keys (all forms but softmax, which sums to one already).
    """
    if form == "concatenation":
        weights = q + k.mT
    elif form == "cosine":
        weights = unit(q) @ unit(k).mT
    else:
        weights = _scaled(q, scale) @ k.mT
    if form == "softmax":
        return weights.softmax(dim=-1)
    if form != "dot_product":
        weights = F.relu(weights)
    return weights / k.shape[-2] if normalise else weights


def attend(
    form: Form,
    q: Queries,
    k: Keys,
    v: Values,
    *,
    scale: float = 1.0,
    normalise: bool = True,
    implementation: Implementation = "auto",
) -> Output:
    """``y_i = sum_j f(q_i, k_j) v_j``, exactly, by the best evaluation of `form` for these sizes.

    Args:
        form: the pairwise function.
        q: queries, see `pairwise`.
        k: keys, see `pairwise`.
        v: values.
        scale: the factor s on the products.
        normalise: divide by the number of keys (all forms but softmax).
        implementation: `reference` forms the N x N map; `auto` only where it is so small that this is faster.
    """
    if implementation == "reference" or _small(form, q, k, v):
        weights = pairwise(form, q, k, scale=scale, normalise=normalise)
        return weights @ v.to(weights.dtype)
    q, k, v = one_dtype(q, k, v)
    divisor = k.shape[-2] if normalise else 1
    if form == "softmax":
        return _softmax(q, k, v, scale)
    if form == "dot_product":
        return _dot_product(_scaled(q, scale), k, v, divisor)
    if form == "concatenation":
        return concatenation_attention(q, k, v, divisor)
    if form == "cosine":
        return chunked_attention("relu", unit(q), unit(k), v, 1.0, divisor)
    return chunked_attention("relu", q, k, v, scale, divisor)


def attend_within(
    form: Form,
    x: Queries,
    v: Values,
    *,
    scale: float = 1.0,
    normalise: bool = True,
    implementation: Implementation = "auto",
) -> Output:
    """`attend` with queries and keys `x`: the products are symmetric, and on a CPU only half of them are formed.

    Args:
        form: the pairwise function.
        x: queries and keys.
        v: values, one for each of them.
        scale: the factor s on the products.
        normalise: divide by the number of keys (all forms but softmax).
        implementation: see `attend`.
    """
    if implementation == "reference" or not _symmetric(form, x, v):
        return attend(form, x, x, v, scale=scale, normalise=normalise, implementation=implementation)
    if form == "softmax":
        return symmetric_attention("softmax", x, v, scale, 1)
    if form == "cosine":
        x, scale = unit(x), 1.0
    return symmetric_attention("relu", x, v, scale, x.shape[-2] if normalise else 1)


def row(
    form: Form, q: Queries, k: Keys, query: int, *, scale: float = 1.0, normalise: bool = True
) -> Float[Tensor, "b heads m"]:
    """The affinities of one query with all keys, for attention maps; never more than one row of the map."""
    return pairwise(form, q[..., query : query + 1, :], k, scale=scale, normalise=normalise)[..., 0, :]


def unit(x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """`x` over its length, in at least float32 inside: an epsilon that protects from 0 / 0 vanishes in half precision.

    A zero vector stays zero, so its cosine with everything is zero.
    """
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    return F.normalize(wide, dim=-1).to(x.dtype)


def _small(form: Form, q: Queries, k: Keys, v: Values) -> bool:
    """Whether the plain form beats the fast evaluation, forward and backward; bounds measured on one CPU core.

    Against recomputation the map costs memory traffic and saves a product of the width of the queries, on which the
    faster library spends less; against the fused kernel it saves start-up costs; the sort pays once per map.
    """
    pairs, width = q.shape[2] * k.shape[2], q.shape[3]
    elements = q.shape[0] * q.shape[1] * pairs
    if form == "dot_product" or not _KEEP_SMALL_MAPS:
        return False
    if form == "concatenation":
        return statically_known_true(pairs <= 1 << 16)
    if form == "softmax" and not _chunked_softmax(q, v):
        return q.device.type == "cpu" and statically_known_true(elements <= max(16, width) << 14)
    if fast_products(q) and form == "softmax":
        return statically_known_true(elements <= 1 << (16 if width >= 128 else 19))
    return statically_known_true(elements <= max(128, width) << 14)


def _symmetric(form: Form, x: Queries, v: Values) -> bool:
    """Whether the symmetric evaluation applies and wins; a GPU's kernels and lower precision are faster without it."""
    if form not in ("softmax", "relu", "cosine") or x.device.type not in ("cpu", "meta"):
        return False
    dtype = common_dtype(x, v)
    if x.dtype != dtype or v.dtype != dtype or dtype not in (torch.float32, torch.float64):
        return False
    # Measured on CPU cores: a few tiles have to pay for the rescaling, and wide products for the exponentials.
    least = 1024 if far_faster_products(x) else 2048
    few = statically_known_true(x.shape[2] < least) or (form == "softmax" and x.shape[3] < 256)
    return not (_KEEP_SMALL_MAPS and few)


def _chunked_softmax(q: Queries, v: Values) -> bool:
    """Whether chunks do better than the fused CPU kernel.

    It multiplies with MKL, and wants one width; where it has to decline, PyTorch would silently form the N x N map.
    """
    return q.device.type == "cpu" and (far_faster_products(q) or q.shape[-1] != v.shape[-1])


def _softmax(q: Queries, k: Keys, v: Values, scale: float) -> Output:
    if _chunked_softmax(q, v):
        return chunked_attention("softmax", q, k, v, scale, 1)
    # The kernels stream rows; channels-first maps arrive transposed and would be read with stride N.
    return F.scaled_dot_product_attention(q.contiguous(), k.contiguous(), v.contiguous(), scale=scale)


def _dot_product(q: Queries, k: Keys, v: Values, divisor: int) -> Output:
    n, m, d, e = q.shape[-2], k.shape[-2], q.shape[-1], v.shape[-1]
    # Half of the divisor on each factor: k^T v sums m terms and could leave the range of float16.
    half: float = divisor**-0.5
    if statically_known_true(n * m * (d + e) < (n + m) * d * e):
        return ((q * half) @ k.mT) @ (v * half)
    return q @ ((k * half).mT @ (v * half))


def _scaled(q: Queries, scale: float) -> Queries:
    return q if scale == 1.0 else q * scale
