"""Products of two matrices by the faster of PyTorch's two CPU libraries, for operators that write their own backward.

In float32 PyTorch multiplies matrices with MKL and convolves with oneDNN. On processors that are not Intel's, MKL keeps
to narrower instructions: on an AMD EPYC of family 26 (Zen 5), oneDNN takes half of the time for the slabs of an
attention map (100 against 46 billion multiply-accumulates per second and core). AMD's before it have narrower units
(family 25: 52 against 48), and on Intel's both are alike. Both round like float32.

Code consulted: none.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

# A call of oneDNN costs more than one of MKL: below this many multiply-accumulates it does not pay.
_LEAST_MACS = 1 << 22
_ONEDNN: bool = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def _amd_family() -> int:
    """The family of an AMD processor, as Linux tells it; 0 for others."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(told.get("cpu family", "0")) if told.get("vendor_id") == "AuthenticAMD" else 0


_WIDE_AMD = _amd_family() >= 26


def product(a: Tensor, b: Tensor, room: Tensor | None = None, alpha: float = 1.0) -> Tensor:
    """``alpha (a @ b)``, scaled before it is rounded to the dtype of `a`.

    Args:
        a: `[g, n, k]`.
        b: `[g, k, m]`.
        room: memory `[g, n, m]` that may be used for the result; what it holds is lost.
        alpha: factor.

    Returns:
        `[g, n, m]`: `room`, or memory of its own.
    """
    if not _by_onednn(a, b):
        room = a.new_empty(a.shape[0], a.shape[1], b.shape[2]) if room is None else room
        return torch.baddbmm(room, a, b, beta=0, alpha=alpha, out=room)
    if a.shape[0] == 1:
        result = _onednn(a[0], b[0]).unsqueeze(0)
    else:
        result = torch.stack([_onednn(*pair) for pair in zip(a, b, strict=True)], out=room)
    return result if alpha == 1.0 else result.mul_(alpha)


def accumulate(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, summed in the dtype of `total`, which may be the wider one."""
    if total.dtype == a.dtype and not _by_onednn(a, b):
        total.baddbmm_(a, b)
    else:
        total += product(a, b)


def fast_products(x: Tensor) -> bool:
    """Whether large products of matrices like `x` run on oneDNN."""
    return _ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32


def far_faster_products(x: Tensor) -> bool:
    """Whether oneDNN takes half of the time here: enough to outrun kernels that multiply with MKL and do less."""
    return _WIDE_AMD and fast_products(x)


def common_dtype(*tensors: Tensor) -> torch.dtype:
    """What autocast multiplies these in; without it, what PyTorch promotes them to."""
    device = tensors[0].device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and tensors[0].dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What autocast does before a matrix product; kernels it does not know need it done for them."""
    dtype = common_dtype(*tensors)
    return tuple(tensor.to(dtype) for tensor in tensors)


def _by_onednn(a: Tensor, b: Tensor) -> bool:
    large = a.shape[1] * a.shape[2] * b.shape[2] >= _LEAST_MACS
    return large and fast_products(a) and bool(torch.backends.mkldnn.enabled)


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    # A linear layer without bias, whose weight is b^T; PyTorch's own compiler calls it the same way. A weight that is a
    # part of a larger matrix would take a thousand times longer.
    weight = b.mT if b.is_contiguous() or b.mT.is_contiguous() else b.mT.contiguous()
    result: Tensor = torch.ops.mkldnn._linear_pointwise(a, weight, None, "none", [], "")
    return result
