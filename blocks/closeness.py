"""How far two evaluations of one definition may be apart: by what rounding leaves of it, not by a fixed tolerance."""

from __future__ import annotations

import torch
from torch import Tensor

# What two evaluations of one definition may differ by, whichever is most: a share of the tensor's largest element; what
# rounding leaves of the largest element of all gradients, from which those that cancel are made; and, where the
# definition is ill-conditioned, a multiple of what its plain evaluation loses in float32 (float64 rounds far finer).
_OF_THE_LARGEST = {torch.float32: 1e-3, torch.float64: 1e-9}
_OF_ALL = {torch.float32: 5e-5, torch.float64: 1e-13}
_OF_FLOAT32S_LOSS = {torch.float32: 100.0, torch.float64: 1e-6}
DTYPES = tuple(_OF_THE_LARGEST)


def too_far(given: Tensor, exact: Tensor, single: Tensor, of_all: float) -> str:
    """Why `given` is not `exact`, a float64 result that came out as `single` in float32; empty if it is."""
    off, loss, most, dtype = gap(given, exact), gap(single, exact), largest(exact), given.dtype
    allowed = max(_OF_THE_LARGEST[dtype] * most, _OF_ALL[dtype] * of_all, _OF_FLOAT32S_LOSS[dtype] * loss)
    if off <= allowed:
        return ""
    return (
        f"differs by {off:.1e} in {dtype}, allowed {allowed:.1e} "
        f"(largest element {most:.1e}, of all tensors {of_all:.1e}; float32 itself loses {loss:.1e})"
    )


def largest(x: Tensor) -> float:
    """The largest element, signs aside."""
    return float(x.detach().abs().max())


def gap(given: Tensor, exact: Tensor) -> float:
    """Largest difference of two elements."""
    return float((given.detach().to(exact.dtype) - exact.detach()).abs().max())
