"""What every backbone offers: stages in network order, units that take blocks, and frame features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, Literal, Protocol, TypeVar, cast

from torch import Tensor, nn

from workloads.backbones.config import BackboneConfig
from workloads.backbones.layers import ChannelsLast, LongRange

Consensus = Literal["features", "scores", "max_features", "max_scores"]

ConfigT = TypeVar("ConfigT", bound=BackboneConfig)


class TakesBlocks(Protocol):
    """A residual unit, or a whole network at its head: something blocks can be inserted into."""

    long_range: LongRange


class Head(nn.Module):
    """Map of the last stage -> frame features -> (block) -> one vector of scores per clip.

    Frame features are the spatial mean of every frame, `[B, C, T, 1, 1]`, through the `neck`. Frames then meet in the
    `consensus`: `features` classifies the mean feature, `scores` averages the scores of the frames. Both give the
    same scores at test time; dropout (per clip or per frame) and the executed MACs of the classifier differ.
    `max_features` and `max_scores` take the maximum instead of the mean.

    Args:
        neck: on the frame features: identity, 1x1 reduction, temporal Xception block.
        long_range: holds the block inserted at the head, if any.
        dropout: before the classifier.
        fc: the classifier.
        consensus: see above.
    """

    def __init__(
        self, neck: nn.Module, long_range: LongRange, dropout: nn.Module, fc: nn.Module, *, consensus: Consensus
    ) -> None:
        super().__init__()
        self.neck, self.long_range, self.dropout, self.fc = neck, long_range, dropout, fc
        self.consensus = consensus

    def forward(self, x: Tensor) -> Tensor:
        return classify(
            x,
            neck=self.neck,
            long_range=self.long_range,
            dropout=self.dropout,
            fc=self.fc,
            consensus=self.consensus,
        )


def frame_features(x: Tensor, neck: nn.Module) -> Tensor:
    """The spatial mean of every frame, through the neck: `[B, C, T, H, W]` -> `[B, m, T, 1, 1]`."""
    out: Tensor = neck(x.mean(dim=(3, 4), keepdim=True))
    return out


def classify(
    x: Tensor,
    *,
    neck: nn.Module,
    long_range: LongRange,
    dropout: nn.Module,
    fc: nn.Module,
    consensus: Consensus,
) -> Tensor:
    """The head's computation, `[B, C, T, H, W]` -> `[B, classes]`; see `Head`."""
    features = long_range(frame_features(x, neck)).flatten(2).transpose(1, 2)
    scores: Tensor
    if consensus in ("features", "max_features"):
        scores = fc(dropout(_over_frames(features, consensus)))
        return scores
    return _over_frames(fc(dropout(features)), consensus)


def _over_frames(x: Tensor, consensus: str) -> Tensor:
    return x.amax(dim=1) if consensus.startswith("max") else x.mean(dim=1)


class Backbone(nn.Module, ABC, Generic[ConfigT]):
    """A network whose features flow `stem -> res2 -> res3 -> res4 -> res5 -> head`.

    A backbone is a `TakesBlocks` itself: the block at the head is in its own `long_range`. Subclasses set
    `classifier_key`, the attribute (and checkpoint key) of their last linear layer.

    Args:
        config: the frozen choices.
        consensus: how frames meet, see `Head`.

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
        self.layout = ChannelsLast()
        self.neck: nn.Module = nn.Identity()
        self.long_range = LongRange()
        self.dropout = nn.Dropout(config.dropout)

    @abstractmethod
    def body(self) -> dict[str, nn.Module]:
        """Stage name -> module, `stem` to `res5` in network order, made of this network's own layers."""

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """The map after the last stage: `[B, channels, T, H, W]` -> `[B, C, T', H', W']`."""

    @abstractmethod
    def residual_units(self, stage: str) -> Sequence[nn.Module]:
        """The residual units of `res2` .. `res5`, in order."""

    def stage_modules(self) -> dict[str, nn.Module]:
        """Stage name -> module, in network order; called one after the other they are the network.

        The modules share this network's parameters (nothing is copied or registered twice), so training, freezing or
        moving them is training, freezing or moving the network.
        """
        return {**self.body(), "head": self._head()}

    def units(self, stage: str) -> Sequence[TakesBlocks]:
        """What blocks can be inserted into at `stage`, by unit number."""
        return [self] if stage == "head" else cast("Sequence[TakesBlocks]", self.residual_units(stage))

    def frame_features(self, x: Tensor) -> Tensor:
        """Clips to the features an aggregator at the head sees: `[B, channels, T, H, W]` -> `[B, m, T, 1, 1]`."""
        return frame_features(self.features(x), self.neck)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, channels, T, H, W]` -> `[B, classes]` scores before the softmax."""
        return classify(
            self.features(x),
            neck=self.neck,
            long_range=self.long_range,
            dropout=self.dropout,
            fc=self.get_submodule(self.classifier_key),
            consensus=self.consensus,
        )

    def _head(self) -> Head:
        fc = self.get_submodule(self.classifier_key)
        return Head(self.neck, self.long_range, self.dropout, fc, consensus=self.consensus)
