"""Somebody's own network and training function as a backbone and a workload.

The network says with `Place()` where blocks may go, and nothing else about itself:

    class Net(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.conv, self.after_conv, self.fc = nn.Conv3d(3, 16, 3), Place(), nn.Linear(16, config.classes)

        def forward(self, x):
            return self.fc(self.after_conv(self.conv(x).relu()).mean((2, 3, 4)))

    class NetConfig(OwnConfig):
        name: str = "my_model:NetConfig"
        network: ClassVar = Net

    class Mine(OwnWorkload):
        name: str = "my_model:Mine"
        classes: ClassVar[int] = 10

        def train(self, model, spec):
            ...
            return {"top1_percent": ...}

A sweep names places as it names the stages of the built-in backbones: `insertion: {after_conv: [0]}`. The maps there
are found by running the network once on torch's meta device, which allocates nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blocks.configs import Shape
from workloads.backbones.base import Backbone, Chain, TakesBlocks
from workloads.backbones.config import BackboneConfig, Stage
from workloads.backbones.layers import LongRange
from workloads.backbones.model import build_model
from workloads.progress import Finished, Progress
from workloads.registry import WorkloadConfig
from workloads.reproducible import reproducible, seed_torch
from workloads.spec import RunContext, TrialSpec


class Place(nn.Module):
    """Where a block may go: `[B, C, T, H, W]` -> the same shape, unchanged where a trial puts no block."""

    def __init__(self) -> None:
        super().__init__()
        self.long_range = LongRange()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.long_range(x)
        return out


class OwnConfig(BackboneConfig):
    """Base of the configs of one's own networks; subclasses set `name` and `network`.

    Attributes:
        network: makes the network, given this config: `[B, channels, T, H, W]` to `[B, classes]` for any H and W. It
            reads `classes` and, if recipes shall reach it, `dropout` from there.
    """

    network: ClassVar[Callable[[Any], nn.Module]]

    def stages(self) -> dict[str, Stage]:
        return {name: Stage(1, shape) for name, shape in _maps(self).items()}

    def build(self) -> Backbone[OwnConfig]:
        return OwnNet(self)


class OwnNet(Backbone[OwnConfig]):
    """An `OwnConfig`'s network with the interface of a backbone: all of it is the stem, and every place is a stage."""

    def __init__(self, config: OwnConfig) -> None:
        super().__init__(config)
        self.network = type(config).network(config)

    @property
    def places(self) -> dict[str, Place]:
        """Where blocks may go: a place's name is its attribute's."""
        return {name: module for name, module in self.network.named_modules() if isinstance(module, Place)}

    def body(self) -> Chain:
        return {"stem": (self.network,), **dict.fromkeys(self.config.stages(), ())}

    def chain(self) -> Chain:
        return {**self.body(), "head": ()}

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.network(x)
        return scores

    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        return [self.places[stage]]


class OwnWorkload(WorkloadConfig):
    """Base of workloads with a training function of one's own; subclasses set `name`, `classes` and `train`.

    For checkpoints, learning curves or stopping early write a workload instead: `workloads.registry.Workload`.
    """

    @abstractmethod
    def train(self, model: nn.Module, spec: TrialSpec) -> Mapping[str, float] | Finished:
        """Train and evaluate one network.

        Args:
            model: fresh, with the trial's blocks in it, on the trial's device; made and trained under the trial's seed.
            spec: the trial; `spec.recipe` holds what a sweep may vary.

        Returns:
            Metrics by names with units (`top1_percent`), or `Finished` with scores per clip too.
        """

    def open(self) -> OwnWorkload:
        return self

    def prepare(self, context: RunContext) -> None:
        """Nothing."""

    def run(self, spec: TrialSpec, context: RunContext) -> Iterator[Progress]:
        """See `workloads.registry.Workload`."""
        device = torch.device(context.device)
        with reproducible(device, context.threads):
            seed_torch(spec.seed, device)
            found = self.train(build_model(spec.model).to(device), spec)
        yield found if isinstance(found, Finished) else Finished(found)


@lru_cache(maxsize=64)
def _maps(config: OwnConfig) -> dict[str, Shape]:
    """Place -> the map there, in the order in which features pass them.

    Raises:
        ValueError: the network has no place, does not pass one exactly once, or does not give one score per class.
    """
    passed: list[tuple[str, Shape]] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, given: passed.append((name, Shape(*given[0].shape[1:])))

    with torch.device("meta"):
        net = OwnNet(config).eval()
        for name, place in net.places.items():
            place.register_forward_pre_hook(note(name))
        scores = net(torch.empty(1, config.channels, config.frames, config.size, config.size))
    names = [name for name, _ in passed]
    if not names or sorted(names) != sorted(net.places):
        raise ValueError(
            f"{config.name}: each Place() is passed once per clip; its places {list(net.places)}, passed {names}"
        )
    if tuple(scores.shape) != (1, config.classes):
        raise ValueError(f"{config.name}: one clip gives scores {list(scores.shape)}, [1, {config.classes}] is needed")
    return dict(passed)
