"""Networks on the meta device without the detours: torch decomposes there what only has to be allocated, or left."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_RANDOM = {torch.ops.aten.normal_.default, torch.ops.aten.uniform_.default}
# Called directly, and as it is decomposed beneath `FlopCounterMode`.
_BATCH_NORM = {torch.ops.aten.native_batch_norm.default, torch.ops.aten._native_batch_norm_legit_no_training.default}


class ShapesOnly(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, building networks on the meta device is quick, since nothing is drawn, and so is running them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return returned(func, args, kwargs or {})


def returned(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What torch operation `func` returns for these arguments.

    Batch normalisation through its decomposition takes thirty times as long.
    """
    if func in _RANDOM and args[0].is_meta:
        return args[0]
    if func in _BATCH_NORM and args[0].is_meta and args[0].dtype == torch.float32:
        return _normalised(args[0])
    return func(*args, **kwargs)


def _normalised(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The map and, as torch's own meta kernel has it, mean and inverse deviation of each channel."""
    channels = x.shape[1]
    return torch.empty_like(x), x.new_empty(channels), x.new_empty(channels)
