"""The networks and layers that the declarations name, counted. Imports torch on first use."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, reduce
from typing import Any, NamedTuple

from pydantic import Field

from orchestrator.audit.cited import Cited, count_rows
from workloads.frozen import Frozen
from workloads.spec import ModelSpec

GIGA, MEGA = 1e9, 1e6


class Declared(Frozen):
    """A network in a declaration: one spec, or a base to which several insertions add their increments.

    Attributes:
        spec: backbone, block and insertion.
        add: names of models with the same backbone, each with other blocks; the model is `spec` plus what each of
            them costs more than `spec`. For networks whose blocks differ from stage to stage.
    """

    spec: ModelSpec
    add: tuple[str, ...] = ()


class Layer(Frozen):
    """Some layers of one block in a declaration.

    Attributes:
        block: the block.
        shape: channels, frames, height and width of the map it stands at.
        parts: submodules whose parameters are counted.
    """

    block: dict[str, Any]
    shape: tuple[int, int, int, int]
    parts: tuple[str, ...] = Field(min_length=1)


class Sum(Frozen):
    """A network that is the sum of others in a declaration, less some: a table with the block of another network.

    Attributes:
        plus: names of models that are added.
        less: names of models that are taken away.
    """

    plus: tuple[str, ...] = Field(min_length=1)
    less: tuple[str, ...] = ()


class Count(NamedTuple):
    """Parameters in millions, executed MACs in billions (None for layers), and GFLOPs under each rule.

    Besides the published rules these are `macs`, the executed multiply-accumulates themselves, and
    `thop-2004+products`, which also charges one per multiply-accumulate of products of activations.
    """

    params_m: float
    executed: float | None
    rules: Mapping[str, float]

    def minus(self, base: Count) -> Count:
        """The increment over `base`."""
        executed = None if self.executed is None or base.executed is None else self.executed - base.executed
        rules = {rule: self.rules[rule] - base.rules[rule] for rule in self.rules}
        return Count(self.params_m - base.params_m, executed, rules)

    def plus(self, more: Count) -> Count:
        """This and the increment `more`."""
        executed = None if self.executed is None or more.executed is None else self.executed + more.executed
        rules = {rule: self.rules[rule] + more.rules[rule] for rule in self.rules}
        return Count(self.params_m + more.params_m, executed, rules)


Counted = Declared | Layer | Cited | Sum


def count(name: str, models: Mapping[str, Counted]) -> Count:
    """Count the model called `name`.

    Args:
        name: a key of `models`.
        models: everything the paper's declaration names.
    """
    model = models[name]
    if isinstance(model, Layer):
        return Count(_layer_params(model) / MEGA, None, {})
    if isinstance(model, Cited):
        return _from_table(model)
    if isinstance(model, Sum):
        added = reduce(Count.plus, (count(other, models) for other in model.plus))
        return reduce(Count.minus, (count(other, models) for other in model.less), added)
    base = total = _profiled(model.spec)
    for other in model.add:
        total = total.plus(count(other, models).minus(base))
    return total


def map_sizes(spec: ModelSpec) -> dict[str, str]:
    """Layer or stage -> its output as `TxHxW`, from a forward pass on the meta device.

    Keys are `conv1`, `pool1` (the stem's layers) and `res2` .. `res5`.
    """
    import torch

    from workloads.backbones.model import build_model
    from workloads.counting.shapes import ShapesOnly

    backbone = spec.backbone
    with torch.device("meta"), torch.no_grad(), ShapesOnly():
        model = build_model(spec).eval()
        x = torch.empty(1, backbone.channels, backbone.frames, backbone.size, backbone.size)
        sizes = {}
        for stage, modules in model.chain().items():
            for module in modules:
                x = module(x)
                if module is model.get_submodule("conv1"):
                    sizes["conv1"] = x.shape
            sizes["pool1" if stage == "stem" else stage] = x.shape
    return {name: "x".join(str(size) for size in shape[2:]) for name, shape in sizes.items() if name != "head"}


@cache
def _profiled_json(spec: str) -> Count:
    from workloads.counting import profile

    priced = profile(ModelSpec.model_validate_json(spec))
    return _count(priced.params, priced.executed_macs, priced.rules)


def _profiled(spec: ModelSpec) -> Count:
    return _profiled_json(spec.model_dump_json())


@cache
def _from_table(model: Cited) -> Count:
    total = count_rows(model)
    return _count(total.params, total.macs, {rule: value / GIGA for rule, value in total.rules.items()})


def _count(params: int, macs: int, rules: Mapping[str, float]) -> Count:
    products = (rules["thop-1909+matmul"] - rules["thop-1909"]) / 2
    more = {"macs": macs / GIGA, "thop-2004+products": rules["thop-2004"] + products}
    return Count(params / MEGA, macs / GIGA, {**rules, **more})


def _layer_params(layer: Layer) -> int:
    import torch

    from blocks import build, parse_config
    from blocks.configs import Shape

    with torch.device("meta"):
        block = build(parse_config(layer.block), Shape(*layer.shape))
    return sum(parameter.numel() for part in layer.parts for parameter in block.get_submodule(part).parameters())
