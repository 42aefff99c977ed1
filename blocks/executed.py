"""What a block really executes: multiply-accumulates and elements held, observed on the meta device without data."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from blocks.configs import Shape


@dataclass(frozen=True)
class Executed:
    """Measured counterpart of `blocks.base.Cost`, for one clip.

    Attributes:
        macs: multiply-accumulates (half of torch's FLOP count).
        product_macs: those of them whose operands are both activations.
        peak_activation_elements: most elements alive at one moment, input and output included.
        largest_tensor_elements: elements of the largest tensor that was made.
        held_at_peak: what was alive at that moment, made by which operator: "input 1x48x3x7x5 + convolution 1x8x3x7x5".
    """

    macs: int
    product_macs: int
    peak_activation_elements: int
    largest_tensor_elements: int
    held_at_peak: str


def observe(
    block: nn.Module, shape: Shape, run: Callable[[nn.Module, Tensor], Any] = lambda block, x: block(x)
) -> Executed:
    """Run `block` once in eval mode on one clip of `shape` and report what happened.

    Args:
        block: a module on the meta device.
        shape: the map; no data is needed.
        run: what to do with the block and the input; default: the forward pass.
    """
    x = torch.empty(1, *shape, device="meta")
    weights = [*block.parameters(), *block.buffers()]
    flops = FlopCounterMode(display=False)
    held = _Held(x, weights)
    with torch.no_grad(), flops, held:
        run(block.eval(), x)
    return Executed(
        macs=flops.get_total_flops() // 2,
        product_macs=held.product_flops // 2,
        peak_activation_elements=held.peak,
        largest_tensor_elements=held.largest,
        held_at_peak=" + ".join(held.at_peak),
    )


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follow every storage from the operator that makes it to the moment nothing refers to it."""

    def __init__(self, x: Tensor, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._weights = {_key(weight) for weight in weights}
        self._derived: set[int] = set()  # made from weights alone, such as a masked kernel
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._named: dict[int, str] = {}
        self.now = self.peak = self.largest = self.product_flops = 0
        self.at_peak: list[str] = []
        self._hold(x, "input")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        constant = [_key(x) in self._weights | self._derived for x in tree_leaves((args, kwargs)) if _is_tensor(x)]
        if func._overloadpacket in flop_registry and not any(constant):
            self.product_flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        # In eval mode real devices return no statistics; the meta kernel makes them all the same.
        made = out[0] if func._overloadpacket is torch.ops.aten.native_batch_norm else out
        for leaf in tree_leaves(made):
            if _is_tensor(leaf):
                self._hold(leaf, func._overloadpacket.__name__)
                if constant and all(constant):
                    self._derived.add(_key(leaf))
        return out

    def _hold(self, tensor: Tensor, made_by: str) -> None:
        storage = tensor.untyped_storage()
        if _key(tensor) in self._weights or _key(tensor) in self._alive:
            return
        elements = storage.nbytes() // tensor.element_size()
        key = _key(tensor)

        def release(_: object) -> None:
            self.now -= elements
            del self._alive[key], self._named[key]
            self._derived.discard(key)  # the address may come back as an activation

        self._alive[key] = weakref.ref(storage, release)
        self._named[key] = f"{made_by} {'x'.join(map(str, tensor.shape))}".rstrip()
        self.now += elements
        if self.now > self.peak:
            self.peak, self.at_peak = self.now, list(self._named.values())
        self.largest = max(self.largest, elements)


def _is_tensor(leaf: object) -> bool:
    return isinstance(leaf, Tensor)


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
