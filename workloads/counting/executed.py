"""Executed MACs and activation memory of one forward pass, on the meta device: shapes only, no data, no memory.

Two counters watch the same pass: torch's `FlopCounterMode`, and `Watch`, which applies the formulas of
`workloads.counting.ops`, refuses what it does not know, and follows every tensor from birth to death.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workloads.counting import ops
from workloads.counting.pieces import RULES
from workloads.counting.rules import hooked, module_operations
from workloads.counting.shapes import returned


@dataclass
class Tally:
    """What one stage of a forward pass executed.

    Attributes:
        macs: executed multiply-accumulates.
        products: the products of two activations among them, in order: multiply-accumulates and elements written.
        peak_bytes: the most bytes of tensors alive at one moment while it ran, the clip included, weights not.
        rules: published rule -> operations of the hooked modules, products of activations left out.
        given: shape of its input.
        outside: insertion place ("1/unit") -> bytes alive there besides the map that a block would be given.
    """

    macs: int = 0
    products: list[tuple[int, int]] = field(default_factory=list)
    peak_bytes: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    given: tuple[int, ...] = ()
    outside: dict[str, int] = field(default_factory=dict)

    @property
    def product_macs(self) -> int:
        """The part of the multiply-accumulates in products of two activations."""
        return sum(macs for macs, _ in self.products)

    @property
    def product_outputs(self) -> int:
        """Elements that those products wrote."""
        return sum(outputs for _, outputs in self.products)


def count(
    chain: Mapping[str, Sequence[nn.Module]],
    clip: Tensor,
    where: str,
    places: Mapping[str, Sequence[nn.Module]] | None = None,
    start: Tensor | None = None,
) -> dict[str, Tally]:
    """Run modules one after the other, once, and tally what each stage executed; everything is on the meta device.

    Args:
        chain: stage name -> its modules, in evaluation mode and in network order.
        clip: `[1, C, T, H, W]`, kept alive by the caller.
        where: names the network or block in errors.
        places: stage name -> the modules at which blocks can be inserted, by unit; they are called with a map and
            the name of a place.
        start: what the first module is given, if that is not the clip.

    Raises:
        UnknownOperation: an operation nobody can price.
        Disagreement: torch's FlopCounterMode and the formulas here differ.
    """
    # FlopCounterMode takes matrix-vector products for free; here it is told.
    aten = torch.ops.aten
    flops = FlopCounterMode(display=False, custom_mapping={aten.mv: _vector, aten.dot: _vector, aten.addmv: _addmv})
    modules = [module for stage in chain.values() for module in stage]
    watch = Watch(modules, where)
    x = clip if start is None else start
    watch.hold(clip)
    watch.hold(x)
    outside: dict[str, dict[str, int]] = {stage: {} for stage in places or {}}
    sites = [(stage, unit, site) for stage, found in (places or {}).items() for unit, site in enumerate(found)]
    hooks = [site.register_forward_pre_hook(watch.at(unit, outside[stage])) for stage, unit, site in sites]
    hooks += [module.register_forward_hook(watch.charge) for top in modules for module in hooked(top)]
    tallies, before = {}, 0
    with torch.no_grad(), watch, flops:
        for stage, layers in chain.items():
            tally = tallies[stage] = watch.begin(x)
            for layer in layers:
                x = layer(x)
            macs, before = (flops.get_total_flops() - before) // 2, flops.get_total_flops()
            if macs != tally.macs:
                opinions = {"formulas": tally.macs, "torch FlopCounterMode": macs}
                raise ops.Disagreement(f"{where} {stage}".rstrip(), opinions)
    for stage, noted in outside.items():
        tallies[stage].outside = noted
    for hook in hooks:
        hook.remove()
    return tallies


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts MACs by the formulas of `ops`, refuses unknown operations, and follows every tensor until it dies.

    Args:
        modules: their parameters and buffers are weights, not activations.
        where: names the model in errors.
    """

    def __init__(self, modules: Sequence[nn.Module], where: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tally = Tally()
        self._where = where
        self._live = 0
        self._alive: set[int] = set()
        weights = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = returned(func, args, kwargs or {})
        name = func.overloadpacket.__name__
        if name in ops.COUNTED:
            self._product(name, args, out)
        elif name in ops.CONVOLUTIONS:
            self.tally.macs += ops.convolution(args[0].shape, args[1].shape, out.shape, transposed=args[6])
        elif not ops.is_free(name):
            raise ops.UnknownOperation(f"aten.{name}", self._where)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.hold(tensor)
        return out

    def hold(self, tensor: Tensor) -> None:
        """Count the bytes of `tensor`, once per storage, until it dies."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._weights or key in self._alive:
            return
        self._alive.add(key)
        self._live += storage.nbytes()
        self.tally.peak_bytes = max(self.tally.peak_bytes, self._live)
        weakref.finalize(storage, self._release, key, storage.nbytes())

    def begin(self, x: Tensor) -> Tally:
        """A new stage starts with `x`: its tally, which the following operations fill."""
        self.tally = Tally(peak_bytes=self._live, given=tuple(x.shape), rules=dict.fromkeys(RULES, 0))
        return self.tally

    def charge(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Hook of a leaf module: add what the published rules count for it."""
        for rule, operations in module_operations(module, inputs[0].shape, output.shape).items():
            self.tally.rules[rule] += operations

    def at(self, unit: int, noted: dict[str, int]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """A hook for the insertion places of residual unit `unit`: note what is alive around the map there."""

        def note(_: nn.Module, args: tuple[Any, ...]) -> None:
            place = args[1] if len(args) > 1 else "unit"
            noted[f"{unit}/{place}"] = self._live - args[0].untyped_storage().nbytes()

        return note

    def _release(self, key: int, nbytes: int) -> None:
        self._alive.discard(key)
        self._live -= nbytes

    def _product(self, name: str, args: tuple[Any, ...], out: Tensor) -> None:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        macs = ops.COUNTED[name]([tensor.shape for tensor in tensors], out.shape)
        self.tally.macs += macs
        if not any(tensor.untyped_storage()._cdata in self._weights for tensor in tensors[-2:]):
            self.tally.products.append((macs, out.numel()))


def _vector(a: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _addmv(addend: Sequence[int], a: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * prod(a)
