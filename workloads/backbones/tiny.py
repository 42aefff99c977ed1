"""resnet-tiny: a ResNet small enough to train a trial in seconds on one core. See `TinyConfig`.

Paper: none; the layout is this project's own, in the manner of torchvision's ResNet-18. Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from workloads.backbones.base import Backbone, Chain, TakesBlocks
from workloads.backbones.families import TinyConfig, TinyTSMConfig, UnitPlan
from workloads.backbones.layers import ChannelsLast, convolution, init_like_torchvision
from workloads.backbones.resnet import BasicUnit, units_of
from workloads.backbones.tsm import TemporalShift


class TinyResNet(Backbone[TinyConfig]):
    """Every frame alone through four basic units; the clip's feature is the mean over space, then time."""

    classifier_key = "fc"

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.layout = ChannelsLast()
        self.conv1 = convolution(config.channels, widths[0], 3, stride=2)
        self.bn1 = nn.BatchNorm3d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        stages = [
            nn.Sequential(BasicUnit(cin, UnitPlan(1, width, width, stride), stride=stride))
            for cin, width, stride in zip((widths[0], *widths), widths, config.strides, strict=False)
        ]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(widths[-1], config.classes)
        init_like_torchvision(self)

    def body(self) -> Chain:
        return {
            "stem": (self.layout, self.conv1, self.bn1, self.relu),
            "res2": (self.layer1,),
            "res3": (self.layer2,),
            "res4": (self.layer3,),
            "res5": (self.layer4,),
        }

    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        return units_of(self.body()[stage])


class TinyTSM(TinyResNet):
    """The same with `TemporalShift` in front of every residual branch: frames meet, at no MAC."""

    def __init__(self, config: TinyTSMConfig) -> None:
        super().__init__(config)
        for unit in units_of([self.layer1, self.layer2, self.layer3, self.layer4]):
            unit.shift = TemporalShift(config.shift_divisor)
