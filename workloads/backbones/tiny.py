"""resnet-tiny: a ResNet small enough to train a trial in seconds on one core. See `TinyConfig`.

Paper: none; the layout is this project's own, in the manner of torchvision's ResNet-18. Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from workloads.backbones.base import Backbone
from workloads.backbones.families import STAGES, TinyConfig, UnitPlan
from workloads.backbones.layers import convolution, init_like_torchvision
from workloads.backbones.resnet import BasicUnit


class TinyResNet(Backbone[TinyConfig]):
    """Every frame alone through four basic units; the clip's feature is the mean over space, then time."""

    classifier_key = "fc"

    def __init__(self, config: TinyConfig) -> None:
        super().__init__(config)
        widths = config.widths
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

    def features(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(self.layout(x))))
        out: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return out

    def body(self) -> dict[str, nn.Module]:
        stem = nn.Sequential(self.layout, self.conv1, self.bn1, self.relu)
        layers = (self.layer1, self.layer2, self.layer3, self.layer4)
        return {"stem": stem, **dict(zip(STAGES, layers, strict=True))}

    def residual_units(self, stage: str) -> Sequence[nn.Module]:
        return [self.get_submodule(f"layer{STAGES.index(stage) + 1}.0")]
