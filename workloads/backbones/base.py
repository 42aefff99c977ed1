"""What every backbone offers: stages in network order, units that take blocks, and frame features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from workloads.backbones.config import BackboneConfig
from workloads.backbones.families import Consensus
from workloads.backbones.layers import LongRange

Chain = dict[str, tuple[nn.Module, ...]]

ConfigT = TypeVar("ConfigT", bound=BackboneConfig)


class TakesBlocks(Protocol):
    """A residual unit, or a whole network at its head: something blocks can be inserted into."""

    long_range: LongRange


class SpatialMean(nn.Module):
    """One feature per frame: `[B, C, T, H, W]` -> `[B, C, T, 1, 1]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(3, 4), keepdim=True)


class FrameVectors(nn.Module):
    """Frame features as rows: `[B, m, T, 1, 1]` -> `[B, T, m]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class OverFrames(nn.Module):
    """Mean or maximum over the frames: `[B, T, m]` -> `[B, m]`."""

    def __init__(self, *, maximum: bool) -> None:
        super().__init__()
        self.maximum = maximum

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=1) if self.maximum else x.mean(dim=1)


class Backbone(nn.Module, ABC, Generic[ConfigT]):
    """A network whose features flow `stem -> res2 -> res3 -> res4 -> res5 -> head`.

    The head takes the spatial mean of every frame through the `neck` (identity, 1x1 reduction, ...) and the block
    inserted there, if any. Then the frames meet: consensus `features` classifies the mean feature, `scores` averages
    the scores of the frames; at test time both give the same scores, but dropout (per clip or per frame) and the
    executed MACs of the classifier differ. `max_*` takes the maximum instead.

    A backbone is a `TakesBlocks` itself: the block at the head is in its own `long_range`. Subclasses set
    `classifier_key`, the attribute (and checkpoint key) of their last linear layer.

    Args:
        config: the frozen choices.
        consensus: how frames meet, see above.

    Raises:
        ValueError: values of the config do not go together; all problems in one message.
    """

    classifier_key: ClassVar[str]

    def __init__(self, config: ConfigT, *, consensus: Consensus = "features") -> None:
        super().__init__()
        problems = config.problems()
        if problems:
            raise ValueError(f"backbone {config.name!r} cannot be built: " + "; ".join(problems))
        self.config: ConfigT = config
        self.consensus: Consensus = consensus
        self.spatial_mean = SpatialMean()
        self.neck: nn.Module = nn.Identity()
        self.long_range = LongRange()
        self.frame_vectors = FrameVectors()
        self.over_frames = OverFrames(maximum=consensus.startswith("max"))
        self.dropout = nn.Dropout(config.dropout)

    @abstractmethod
    def body(self) -> Chain:
        """Stage name -> the modules one after the other, for `stem`, `res2`, .. `res5` in network order."""

    @abstractmethod
    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        """The residual units of `res2` .. `res5`, in order."""

    @property
    def last_linear(self) -> nn.Module:
        """The last linear layer, whatever its key."""
        return self.get_submodule(self.classifier_key)

    def chain(self) -> Chain:
        """`body` and the head: the whole network, stage by stage."""
        if self.consensus.endswith("features"):
            scores: tuple[nn.Module, ...] = (self.over_frames, self.dropout, self.last_linear)
        else:
            scores = (self.dropout, self.last_linear, self.over_frames)
        return {**self.body(), "head": (self.spatial_mean, self.neck, self.long_range, self.frame_vectors, *scores)}

    def stage_modules(self) -> dict[str, nn.Module]:
        """Stage name -> module, in network order; called one after the other they are the network.

        The modules share this network's layers (nothing is copied or registered twice), so training, freezing or
        moving them is training, freezing or moving the network.
        """
        return {stage: nn.Sequential(*modules) for stage, modules in self.chain().items()}

    def units(self, stage: str) -> Sequence[TakesBlocks]:
        """What blocks can be inserted into at `stage`, by unit number."""
        return [self] if stage == "head" else self.residual_units(stage)

    def features(self, x: Tensor) -> Tensor:
        """The map after the last stage: `[B, channels, T, H, W]` -> `[B, C, T', H', W']`."""
        return _run(self.body(), x)

    def frame_features(self, x: Tensor) -> Tensor:
        """Clips to the features an aggregator at the head sees: `[B, channels, T, H, W]` -> `[B, m, T', 1, 1]`."""
        features: Tensor = self.neck(self.spatial_mean(self.features(x)))
        return features

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, T, H, W]` -> `[B, classes]` scores before the softmax, for any T, H and W."""
        return _run(self.chain(), x)


def _run(chain: Chain, x: Tensor) -> Tensor:
    for modules in chain.values():
        for module in modules:
            x = module(x)
    return x
