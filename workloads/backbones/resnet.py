"""ResNet, ResNeXt and SE-ResNe(X)t on every frame, with torchvision's layout and keys.

Papers: He et al. 2016 (arXiv:1512.03385), Xie et al. 2017 (arXiv:1611.05431), Hu et al. 2018 (arXiv:1709.01507).
Code consulted: none copied; names and strides are those of torchvision's checkpoints.
Differs from the paper: bottlenecks stride on the 3x3, not on the first 1x1 (torchvision).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from torch import Tensor, nn

from workloads.backbones.base import Backbone, Chain, TakesBlocks
from workloads.backbones.families import ResNetConfig, UnitPlan
from workloads.backbones.layers import (
    ChannelsLast,
    FrameConv,
    FrameMaxPool,
    LongRange,
    convolution,
    fold,
    init_like_torchvision,
    unfold,
)


class SEGate(nn.Module):
    """Squeeze-and-excitation of every frame; keys of the widely used SE-ResNeXt checkpoints.

    Args:
        channels: C of the map `[B, C, T, H, W]`.
        reduction: C over the width of the bottleneck.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(self.relu(self.fc1(fold(x.mean(dim=(3, 4), keepdim=True)))))
        return x * unfold(gate.sigmoid(), x.shape[2])


class Unit(nn.Module):
    """A residual unit: `relu(branch(x) + shortcut(x))`, with three places for blocks.

    `conv1` is after the first convolution, its batch norm and ReLU; `branch` is on the branch before the addition;
    `unit` is after the last ReLU.

    Args:
        cin: input channels.
        out: output channels.
        stride: spatial stride.
        gate: put an `SEGate` on the branch.
    """

    def __init__(self, cin: int, out: int, *, stride: int, gate: bool) -> None:
        super().__init__()
        self.long_range = LongRange()
        self.shift: nn.Module = nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self.se_module: nn.Module = SEGate(out) if gate else nn.Identity()
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or cin != out:
            self.downsample = nn.Sequential(convolution(cin, out, 1, stride=stride), nn.BatchNorm3d(out))

    def branch(self, x: Tensor) -> Tensor:
        """The residual branch up to its last batch norm."""
        raise AssertionError("a unit says what its branch is")

    def forward(self, x: Tensor) -> Tensor:
        branch = self.long_range(self.se_module(self.branch(x)), "branch")
        out: Tensor = self.long_range(self.relu(branch + self.downsample(x)), "unit")
        return out


class BasicUnit(Unit):
    """Two 3x3 convolutions; the first one strides and may see `time` frames."""

    def __init__(self, cin: int, plan: UnitPlan, *, stride: int, time: int = 1, gate: bool = False) -> None:
        super().__init__(cin, plan.out, stride=stride, gate=gate)
        self.conv1 = convolution(cin, plan.width, 3, time=time, stride=stride)
        self.bn1 = nn.BatchNorm3d(plan.width)
        self.conv2 = convolution(plan.width, plan.out, 3)
        self.bn2 = nn.BatchNorm3d(plan.out)

    def branch(self, x: Tensor) -> Tensor:
        first = self.long_range(self.relu(self.bn1(self.conv1(self.shift(x)))), "conv1")
        out: Tensor = self.bn2(self.conv2(first))
        return out


class Bottleneck(Unit):
    """1x1 (may see `time` frames), 3x3 (strides, may be grouped), 1x1."""

    def __init__(
        self, cin: int, plan: UnitPlan, *, stride: int, groups: int = 1, time: int = 1, gate: bool = False
    ) -> None:
        super().__init__(cin, plan.out, stride=stride, gate=gate)
        self.conv1 = convolution(cin, plan.width, 1, time=time)
        self.bn1 = nn.BatchNorm3d(plan.width)
        self.conv2 = convolution(plan.width, plan.width, 3, stride=stride, groups=groups)
        self.bn2 = nn.BatchNorm3d(plan.width)
        self.conv3 = convolution(plan.width, plan.out, 1)
        self.bn3 = nn.BatchNorm3d(plan.out)

    def branch(self, x: Tensor) -> Tensor:
        first = self.long_range(self.relu(self.bn1(self.conv1(self.shift(x)))), "conv1")
        second = self.relu(self.bn2(self.conv2(first)))
        out: Tensor = self.bn3(self.conv3(second))
        return out


ResNetConfigT = TypeVar("ResNetConfigT", bound=ResNetConfig)


def units_of(stage: Iterable[nn.Module]) -> list[Unit]:
    """The residual units among (and in the sequences among) these modules, in order."""
    return [unit for module in stage for unit in module.modules() if isinstance(unit, Unit)]


class ResNet(Backbone[ResNetConfigT]):
    """A ResNet that sees every frame alone; subclasses change what meets time."""

    classifier_key = "fc"

    def __init__(self, config: ResNetConfigT) -> None:
        super().__init__(config, consensus=config.consensus)
        self.layout = ChannelsLast()
        self.conv1 = self.make_stem()
        self.bn1 = nn.BatchNorm3d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = self.make_stem_pool()
        self.pool_after_res2: nn.Module = nn.Identity()
        plans = config.plans()
        self.layer1 = self.make_stage("res2", plans["res2"], 64)
        self.layer2 = self.make_stage("res3", plans["res3"], plans["res2"].out)
        self.layer3 = self.make_stage("res4", plans["res4"], plans["res3"].out)
        self.layer4 = self.make_stage("res5", plans["res5"], plans["res4"].out)
        if config.neck_width:
            self.neck = FrameConv(plans["res5"].out, config.neck_width, 1)
        self.fc = nn.Linear(config.head_width, config.classes)
        init_like_torchvision(self)

    def make_stem(self) -> nn.Module:
        """The first convolution: 7x7, stride 2, to 64 channels."""
        return convolution(self.config.channels, 64, 7, stride=2)

    def make_stem_pool(self) -> nn.Module:
        """The max-pool behind it: 3x3, stride 2."""
        rounding = self.config.stem_pool
        return FrameMaxPool(3, 2, padding=int(rounding == "padded"), ceil_mode=rounding == "ceil")

    def make_stage(self, stage: str, plan: UnitPlan, cin: int) -> nn.Sequential:
        """All units of a stage; the first one takes `cin` channels and strides."""
        return nn.Sequential(
            *(
                self.make_unit(plan, cin if unit == 0 else plan.out, stride=plan.stride if unit == 0 else 1, time=time)
                for unit, time in enumerate(self.config.unit_times(stage, plan.units))
            )
        )

    def make_unit(self, plan: UnitPlan, cin: int, *, stride: int, time: int) -> Unit:
        """One residual unit."""
        gate = self.config.gate == "se"
        if not self.config.bottleneck:
            return BasicUnit(cin, plan, stride=stride, time=time, gate=gate)
        return Bottleneck(cin, plan, stride=stride, groups=self.config.groups, time=time, gate=gate)

    def body(self) -> Chain:
        return {
            "stem": (self.layout, self.conv1, self.bn1, self.relu, self.maxpool),
            "res2": (self.layer1,),
            "res3": (self.pool_after_res2, self.layer2),
            "res4": (self.layer3,),
            "res5": (self.layer4,),
        }

    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        return units_of(self.body()[stage])
