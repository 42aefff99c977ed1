"""The bilinear transform of BAT, Z_t = sum_t' M_tt' P_t' X_t' Q_t' (eq. 1 and 7): its definition and its evaluation.

`transform_plain` multiplies with matrices expanded to the size of the map. `transform_fast` leaves P and M as they are:
the rows of the map are cut into bands, and P acts on the bands. On a CPU, where moving the map costs as much as the
products, a slab of channels passes through all of them while it is in the caches, and the backward pass recomputes what
lies between: a training step keeps the input and the small matrices. Both passes are opaque operators, so that a
compiled or exported model contains one call whatever the length of the clip.

Q stays in place as Q (x) I, W x W: moving the columns to the front would cost two transpositions of single entries,
more than the products with zeros do.

Paper: Chi, Yuan, Mu, Wang, "Non-Local Neural Networks with Grouped Bilinear Attentional Transforms", CVPR 2020.
Code consulted: none.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from blocks.products import accumulate, one_dtype, product

# Elements of a slab: for one thread few enough for its caches; several threads wait for each other after every step.
_SLAB_ELEMENTS = 1 << 18
_SHARED_SLAB_ELEMENTS = 1 << 20

Maps = Float[Tensor, "b c t h w"]
RowMatrices = Float[Tensor, "b k t s s"]
ColumnMatrices = Float[Tensor, "b k t s2 s2"]
FrameMatrices = Float[Tensor, "b kt ts ts"]


def transform_plain(x: Maps, p: RowMatrices, q: ColumnMatrices, m: FrameMatrices | None) -> Maps:
    """Eq. 1 and 7 with the expanded H x H, W x W and T x T matrices: the definition, and what is counted."""
    y = expand(p, x.shape[3]).unsqueeze(2) @ x.reshape(p.shape[0], p.shape[1], -1, *x.shape[2:])
    y = (y @ expand(q.mT.contiguous(), x.shape[4]).mT.unsqueeze(2)).reshape(x.shape)
    return y if m is None else _along_time(expand(m, x.shape[2]), y)


def transform_fast(x: Maps, p: RowMatrices, q: ColumnMatrices, m: FrameMatrices | None) -> Maps:
    """The same with P and M as they are: slabs that stay in the caches on a CPU, a few large products elsewhere."""
    k = p.shape[1]
    within = m is not None and k % m.shape[1] == 0  # every spatial group has one M
    each = m.repeat_interleave(k // m.shape[1], 1) if m is not None and within else None
    y = (_in_slabs if x.device.type == "cpu" else _at_once)(x, p, q, each)
    return y if m is None or within else _along_time(m.to(y.dtype), y)


def _along_time(m: FrameMatrices, y: Maps) -> Maps:
    b, groups, ts, _ = m.shape
    return (m.unsqueeze(2) @ y.reshape(b, groups, y.shape[1] // groups, ts, -1)).reshape(y.shape)


def _at_once(x: Maps, p: RowMatrices, q: ColumnMatrices, m: FrameMatrices | None) -> Maps:
    """Rows and frames in front let P and M act as they are: three batched products between two transpositions."""
    (b, k, t, rows, _), (height, width) = p.shape, x.shape[3:]
    bands_bkctrhw = split_bands(x, 3, rows).reshape(b, k, -1, t, rows, -(-height // rows), width)
    bands_bktrchw = bands_bkctrhw.permute(0, 1, 3, 4, 2, 5, 6)
    y = p @ bands_bktrchw.reshape(b, k, t, rows, -1)
    y = y.reshape(b, k, t, -1, width) @ expand(q.mT, width).mT
    if m is not None:
        y = m @ y.reshape(b, k, m.shape[2], -1)
    y = y.reshape(bands_bktrchw.shape).permute(0, 1, 4, 2, 3, 5, 6).reshape(*x.shape[:3], -1, width)
    return join_bands(y, 3, rows, height)


def _in_slabs(x: Maps, p: RowMatrices, q: ColumnMatrices, m: FrameMatrices | None) -> Maps:
    """Through the operators below; a matrix whose bands overlap acts in its expanded form, as bands of one row."""
    (b, k, t, rows, _), (height, width) = p.shape, x.shape[3:]
    p = p if height % rows == 0 else expand(p, height)
    q = q if width % q.shape[-1] == 0 else expand(q.mT, width).mT
    x, p, q = one_dtype(x, p, q)
    m = None if m is None else m.to(x.dtype).flatten(0, 1)
    groups = x.reshape(b * k, -1, t, height, width)
    y: Tensor = torch.ops.longrange.bilinear_transform(groups, p.flatten(0, 1), q.flatten(0, 1), m)
    return y.reshape(x.shape)


@torch.library.custom_op(
    "longrange::bilinear_transform", mutates_args=(), schema="(Tensor x, Tensor p, Tensor q, Tensor? m) -> Tensor"
)
def _forward(x: Tensor, p: Tensor, q: Tensor, m: Tensor | None) -> Tensor:
    """x `[g, c, t, h, w]`, p `[g, t, s, s]`, q `[g, t, s2, s2]`, m `[g, ts, ts]`; s and s2 divide h and w."""
    x = x.contiguous()
    y = x.new_empty(x.shape)
    q_gtww = _expanded(q, x.shape[-1])
    with torch.autocast(x.device.type, enabled=False):
        for maps, channels, (room, other) in _slabs(x, 2):
            z = _rows_first(x[maps, channels], p, room)
            z = _left(p[maps], z, other)
            z = _right(z, q_gtww[maps], room)
            z = z if m is None else _left(m[maps], z, other)
            _rows_back(z, p, y[maps, channels])
    return y


@_forward.register_fake
def _(x: Tensor, p: Tensor, q: Tensor, m: Tensor | None) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op(
    "longrange::bilinear_transform_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor x, Tensor p, Tensor q, Tensor? m) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward(dy: Tensor, x: Tensor, p: Tensor, q: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, p, q and m (empty where there is no m)."""
    x, dy = x.contiguous(), dy.contiguous()
    wide = torch.promote_types(x.dtype, torch.float32)  # sums over slabs lose nothing in half precision
    dx, q_gtww = x.new_empty(x.shape), _expanded(q, x.shape[-1])
    dp, dq, dm = (x.new_zeros(shape, dtype=wide) for shape in (p.shape, q_gtww.shape, () if m is None else m.shape))
    with torch.autocast(x.device.type, enabled=False):
        for maps, channels, (first, second, third, fourth) in _slabs(x, 4):
            x_rows = _rows_first(x[maps, channels], p, first)
            y = _left(p[maps], x_rows, second)
            dz = _rows_first(dy[maps, channels], p, third)
            if m is not None:
                z = _right(y, q_gtww[maps], fourth)
                _add_left(dm[maps], dz, z)
                dz = _left(m[maps].mT, dz, fourth)
            _add_right(dq[maps], y, dz)
            dz = _right(dz, q_gtww[maps].mT, second)
            _add_left(dp[maps], dz, x_rows)
            _rows_back(_left(p[maps].mT, dz, third), p, dx[maps, channels])
    return dx, dp.to(p.dtype), _contracted(dq, q), dm.to(x.dtype)


@_backward.register_fake
def _(dy: Tensor, x: Tensor, p: Tensor, q: Tensor, m: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), p.new_empty(p.shape), q.new_empty(q.shape), x.new_empty(() if m is None else m.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, p, q, m = ctx.saved_tensors
    dx, dp, dq, dm = torch.ops.longrange.bilinear_transform_backward(dy, x, p, q, m)
    return dx, dp, dq, None if m is None else dm


_forward.register_autograd(_gradients, setup_context=_save)


def _slabs(x: Tensor, count: int) -> Iterator[tuple[slice, slice, list[Tensor]]]:
    """Which groups and which of their channels are next, and room for `count` slabs of them."""
    groups, width, *frames = x.shape
    most = _SLAB_ELEMENTS if torch.get_num_threads() == 1 else _SHARED_SLAB_ELEMENTS
    channels = min(width, max(1, most // prod(frames)))
    maps = min(groups, max(1, most // (channels * prod(frames))))
    rooms = x.new_empty(count, maps * channels * prod(frames))
    for g, c in itertools.product(range(0, groups, maps), range(0, width, channels)):
        elements = min(maps, groups - g) * min(channels, width - c) * prod(frames)
        yield slice(g, g + maps), slice(c, c + channels), [room[:elements] for room in rooms]


def _rows_first(x: Tensor, p: Tensor, room: Tensor) -> Tensor:
    """`[n, c, t, h, w]` with the bands of rows in front of the channels, `[n, t, s, c * h/s, w]`, in `room`."""
    n, c, t, h, w = x.shape
    s = p.shape[-1]
    rows = room.view(n, t, s, c, h // s * w)
    rows.copy_(x.view(n, c, t, s, -1).permute(0, 2, 3, 1, 4))
    return rows.view(n, t, s, -1, w)


def _rows_back(rows: Tensor, p: Tensor, x: Tensor) -> None:
    """The inverse of `_rows_first`, into `x`."""
    n, c, t, _, _ = x.shape
    x.view(n, c, t, p.shape[-1], -1).copy_(rows.view(n, t, p.shape[-1], c, -1).permute(0, 3, 1, 2, 4))


def _left(matrix: Tensor, x: Tensor, room: Tensor) -> Tensor:
    """Apply `[n, t, s, s]` to the rows or `[n, ts, ts]` to the frames of `x`, in `room`."""
    flat = matrix.flatten(0, -3)
    shape = (flat.shape[0], flat.shape[1], -1)
    return product(flat, x.view(shape), room.view(shape)).view(x.shape)


def _right(x: Tensor, matrix: Tensor, room: Tensor) -> Tensor:
    """Apply `[n, t, w, w]` to the columns of `x`, in `room`."""
    flat = matrix.flatten(0, 1)
    shape = (flat.shape[0], -1, flat.shape[1])
    return product(x.view(shape), flat, room.view(shape)).view(x.shape)


def _add_left(total: Tensor, dy: Tensor, x: Tensor) -> None:
    """Add the gradient of `matrix` in `_left`."""
    flat = total.view(-1, *total.shape[-2:])
    shape = (flat.shape[0], flat.shape[1], -1)
    accumulate(flat, dy.view(shape), x.view(shape).mT)


def _add_right(total: Tensor, x: Tensor, dy: Tensor) -> None:
    """Add the gradient of `matrix` in `_right`."""
    flat = total.view(-1, *total.shape[-2:])
    shape = (flat.shape[0], -1, flat.shape[1])
    accumulate(flat, x.view(shape).mT, dy.view(shape))


def _expanded(q: Tensor, size: int) -> Tensor:
    """`expand` for sides that divide the size; its diagonals are written, not multiplied."""
    s = q.shape[-1]
    full = q.new_zeros(*q.shape[:-2], s, size // s, s, size // s)
    full.diagonal(0, -3, -1).copy_(q.unsqueeze(-1))
    return full.flatten(-4, -3).flatten(-2)


def _contracted(dq: Tensor, q: Tensor) -> Tensor:
    """The gradient of `q` in `_expanded`."""
    s, band = q.shape[-1], dq.shape[-1] // q.shape[-1]
    diagonals = dq.view(*q.shape[:-2], s, band, s, band).diagonal(0, -3, -1)
    return diagonals.sum(-1).to(q.dtype)


def expand(matrix: Float[Tensor, "*batch s s"], size: int) -> Float[Tensor, "*batch size size"]:
    """P (x) I, a matrix over bands as a matrix over rows (fig. 3); rows keep their sums.

    Args:
        matrix: acts on s bands from the left.
        size: rows of the map, at least s.
    """
    s = matrix.shape[-1]
    band = -(-size // s)
    eye = torch.eye(band, dtype=matrix.dtype, device=matrix.device)
    full = (matrix[..., :, None, :, None] * eye[:, None, :]).flatten(-4, -3).flatten(-2)
    if size == s * band:
        return full
    first, last = _covering(size, s, matrix.device)
    both = (first != last).to(matrix.dtype)
    full = full.index_select(-1, first) + full.index_select(-1, last) * both
    return join_bands(full, full.ndim - 2, s, size)


def split_bands(x: Float[Tensor, "*map"], dim: int, s: int) -> Float[Tensor, "*bands"]:
    """Cut axis `dim` into s bands of equal length, `[..., size, ...]` to `[..., s, ceil(size / s), ...]`.

    Where s does not divide the size, bands overlap their neighbours in at most one entry.
    """
    size = x.shape[dim]
    band = -(-size // s)
    if size != s * band:
        starts = _starts(size, s, x.device)
        x = x.index_select(dim, (starts[:, None] + torch.arange(band, device=x.device)).flatten())
    return x.reshape(*x.shape[:dim], s, band, *x.shape[dim + 1 :])


def join_bands(x: Float[Tensor, "*bands"], dim: int, s: int, size: int) -> Float[Tensor, "*map"]:
    """The inverse of `split_bands`, given its two axes as one; entries that two bands cover are averaged."""
    if x.shape[dim] == size:
        return x
    first, last = _covering(size, s, x.device)
    return (x.index_select(dim, first) + x.index_select(dim, last)) / 2


def _starts(size: int, s: int, device: torch.device) -> Int[Tensor, " s"]:
    """Where s bands of ceil(size / s) entries start so that they cover `size` entries as evenly as possible."""
    return torch.arange(s, device=device) * (size - -(-size // s)) // (s - 1)


def _covering(size: int, s: int, device: torch.device) -> tuple[Int[Tensor, " size"], Int[Tensor, " size"]]:
    """For every entry, its place in the first and in the last band (s * band places in all) that cover it."""
    band = -(-size // s)
    starts, entry = _starts(size, s, device), torch.arange(size, device=device)
    first = (entry[:, None] >= starts + band).sum(1)
    last = (entry[:, None] >= starts).sum(1) - 1
    return first * band + entry - starts[first], last * band + entry - starts[last]
