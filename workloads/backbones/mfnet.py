"""MFNet-3D: multi-fibre units, whose grouped convolutions talk through a cheap multiplexer.

Paper: Chen et al. 2018 (arXiv:1807.11195). Code consulted: cypw/PyTorch-MFNet (network/mfnet_3d.py) for layout and
checkpoint keys; none copied. The layout (3, 4, 6, 3 units of width 96 .. 768) gives the published 8.0 M parameters with
400 classes and 7.843 M with 200.
Differs from the paper: nothing in the layout; He instead of Xavier initialisation; any clip length and size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from workloads.backbones.base import Backbone, Chain, TakesBlocks
from workloads.backbones.families import MFNetConfig, UnitPlan
from workloads.backbones.layers import LongRange, init_like_torchvision

Triple = tuple[int, int, int]


class PreActivation(nn.Module):
    """Batch norm, ReLU, convolution with half padding and no bias; the keys of the published checkpoint."""

    def __init__(
        self, cin: int, cout: int, *, kernel: Triple = (1, 1, 1), stride: Triple = (1, 1, 1), groups: int = 1
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.bn = nn.BatchNorm3d(cin)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv3d(cin, cout, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(self.relu(self.bn(x)))
        return out


class MultiFibreUnit(nn.Module):
    """A residual unit: multiplexer (1x1x1 to a quarter and back, added), grouped 3x3x3, grouped 1x3x3.

    The first unit of a stage has a 1x1x1 in place of the grouped 1x3x3, and projects its shortcut. Two places for
    blocks: `branch` before the addition and `unit` after it. (No `conv1`: the first convolution is the multiplexer's.)

    Args:
        cin: input channels.
        plan: of the stage.
        groups: fibres.
        stride: of the first unit of a stage; None in the others.
    """

    def __init__(self, cin: int, plan: UnitPlan, *, groups: int, stride: Triple | None) -> None:
        super().__init__()
        self.long_range = LongRange()
        self.conv_i1 = PreActivation(cin, plan.width // 4)
        self.conv_i2 = PreActivation(plan.width // 4, cin)
        self.conv_w1: nn.Module = nn.Identity()
        if stride is None:
            self.conv_m1 = PreActivation(cin, plan.width, kernel=(3, 3, 3), groups=groups)
            self.conv_m2 = PreActivation(plan.width, plan.out, kernel=(1, 3, 3), groups=groups)
        else:
            self.conv_m1 = PreActivation(cin, plan.width, kernel=(3, 3, 3), stride=stride, groups=groups)
            self.conv_m2 = PreActivation(plan.width, plan.out)
            self.conv_w1 = PreActivation(cin, plan.out, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        mixed = x + self.conv_i2(self.conv_i1(x))
        branch = self.long_range(self.conv_m2(self.conv_m1(mixed)), "branch")
        out: Tensor = self.long_range(branch + self.conv_w1(x), "unit")
        return out


class MFNet(Backbone[MFNetConfig]):
    """MFNet-3D; its last batch norm and ReLU (`tail`) end res5."""

    classifier_key = "classifier"

    def __init__(self, config: MFNetConfig) -> None:
        super().__init__(config)
        self.conv1 = nn.Sequential(
            OrderedDict[str, nn.Module](
                conv=nn.Conv3d(config.channels, config.stem_width, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False),
                bn=nn.BatchNorm3d(config.stem_width),
                relu=nn.ReLU(inplace=True),
            )
        )
        self.maxpool = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        plans = config.plans()
        self.conv2 = self._stage(plans["res2"], config.stem_width, (2, 1, 1))
        self.conv3 = self._stage(plans["res3"], plans["res2"].out, (1, 2, 2))
        self.conv4 = self._stage(plans["res4"], plans["res3"].out, (1, 2, 2))
        self.conv5 = self._stage(plans["res5"], plans["res4"].out, (1, 2, 2))
        width = plans["res5"].out
        self.tail = nn.Sequential(OrderedDict[str, nn.Module](bn=nn.BatchNorm3d(width), relu=nn.ReLU(inplace=True)))
        self.classifier = nn.Linear(width, config.classes)
        init_like_torchvision(self)

    def body(self) -> Chain:
        return {
            "stem": (self.conv1, self.maxpool),
            "res2": (self.conv2,),
            "res3": (self.conv3,),
            "res4": (self.conv4,),
            "res5": (self.conv5, self.tail),
        }

    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        units = {"res2": self.conv2, "res3": self.conv3, "res4": self.conv4, "res5": self.conv5}[stage]
        return [unit for unit in units if isinstance(unit, MultiFibreUnit)]

    def _stage(self, plan: UnitPlan, cin: int, stride: Triple) -> nn.Sequential:
        units = OrderedDict[str, nn.Module]()
        for unit in range(plan.units):
            first = unit == 0
            units[f"B{unit + 1:02d}"] = MultiFibreUnit(
                cin if first else plan.out, plan, groups=self.config.groups, stride=stride if first else None
            )
        return nn.Sequential(units)
