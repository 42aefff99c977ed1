"""What a backbone is before it is built: its config, its stages and the places where blocks can go. No torch here.

Stages are called ``res2 .. res5`` in every family (conv2 .. conv5 in some papers), plus ``head`` for the frame
features in front of the classifier. `stages()` gives the shape of the map after each stage in closed form, so that a
plan can check and price an insertion without building anything.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from blocks.configs import Shape
from workloads.frozen import Frozen

if TYPE_CHECKING:
    from torch import nn


class Stage(NamedTuple):
    """One stage: its residual units and the maps inside it.

    Attributes:
        units: number of residual units.
        shape: the map after every unit.
        first: the map after the first convolution of each unit but the first one of the stage (bottleneck width),
            where `conv1` blocks go; None where the family has no such place.
        first_of_stage: the same map inside the stage's first unit, before its stride; None as above.
    """

    units: int
    shape: Shape
    first: Shape | None = None
    first_of_stage: Shape | None = None


class BackboneConfig(Frozen):
    """What all backbones have in common. Families add their own fields.

    Attributes:
        name: the registered name, e.g. `tsm_resnet50`.
        frames: frames per clip; 1 for images.
        size: height and width of the input in pixels.
        classes: outputs of the classifier.
        channels: input channels, 3 for colour, 1 for grey or depth.
        dropout: before the classifier.
    """

    name: str
    frames: int = Field(8, ge=1)
    size: int = Field(224, ge=8)
    classes: int = Field(400, ge=2)
    channels: int = Field(3, ge=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)

    @abstractmethod
    def stages(self) -> dict[str, Stage]:
        """Stage name -> its units and map shapes, in order."""
        raise AssertionError("every backbone family defines its stages")

    def problems(self) -> list[str]:
        """What is wrong with this combination of values; empty if it can be built."""
        return []

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, randomly initialised, mapping `[B, channels, T, H, W]` to `[B, classes]`; imports torch."""
        raise AssertionError("every backbone family says how it is built")
