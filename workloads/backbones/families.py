"""The backbone families: their configs, closed-form stages and named presets. No torch here.

Every choice that makes one family differ from another is a field; the networks are in one torch file per family,
imported when built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from blocks.configs import Shape
from workloads.backbones.config import BackboneConfig, Stage

if TYPE_CHECKING:
    from torch import nn

Consensus = Literal["features", "scores", "max_features", "max_scores"]

STAGES = ("res2", "res3", "res4", "res5")

UNITS: dict[int, tuple[int, int, int, int]] = {
    18: (2, 2, 2, 2),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class UnitPlan(NamedTuple):
    """One stage of a ResNet before it is built.

    Attributes:
        units: number of residual units.
        width: channels inside a unit (after its first convolution).
        out: channels after a unit.
        stride: spatial stride of the first unit.
    """

    units: int
    width: int
    out: int
    stride: int


class TinyConfig(BackboneConfig):
    """resnet-tiny, for the embedded digits workload: stem 3x3 stride 2, one basic unit per stage, no stem pool.

    Attributes:
        widths: channels after the stem and res2, res3, res4, res5 (the stem shares res2's).
        strides: spatial stride of each stage.
    """

    frames: int = Field(4, ge=1)
    size: int = Field(16, ge=8)
    classes: int = Field(10, ge=2)
    channels: int = Field(1, ge=1)
    widths: tuple[int, int, int, int] = (16, 32, 64, 64)
    strides: tuple[int, int, int, int] = (1, 2, 2, 1)

    def stages(self) -> dict[str, Stage]:
        side = after(self.size, 3, 2, 1)
        found: dict[str, Stage] = {}
        for name, width, stride in zip(STAGES, self.widths, self.strides, strict=True):
            side = after(side, 3, stride, 1)
            shape = Shape(width, self.frames, side, side)
            found[name] = Stage(1, shape, first=shape, first_of_stage=shape)
        found["head"] = head_stage(self.widths[-1], self.frames)
        return found

    def problems(self) -> list[str]:
        return _not_positive("widths", self.widths) + _not_positive("strides", self.strides)

    def build(self) -> nn.Module:
        from workloads.backbones.tiny import TinyResNet

        return TinyResNet(self)


class TinyTSMConfig(TinyConfig):
    """resnet-tiny with TSM's shift in front of every unit, for small real clips: it sees the order of frames.

    Attributes:
        shift_divisor: C over the channels shifted each way; 8 shifts a quarter in all.
    """

    frames: int = Field(8, ge=1)
    size: int = Field(56, ge=8)
    widths: tuple[int, int, int, int] = (16, 32, 64, 128)
    strides: tuple[int, int, int, int] = (2, 2, 2, 1)
    shift_divisor: int = Field(8, ge=2)

    def build(self) -> nn.Module:
        from workloads.backbones.tiny import TinyTSM

        return TinyTSM(self)


class ResNetConfig(BackboneConfig):
    """A 2-D ResNet, ResNeXt or SE-ResNe(X)t on every frame; an image net where frames is 1.

    Attributes:
        depth: 18 has basic units, the others bottlenecks with the stride on the 3x3 (torchvision).
        groups: of the 3x3 convolutions (the cardinality of ResNeXt).
        width_per_group: channels per group in res2.
        gate: `se` puts squeeze-and-excitation (reduction 16, fully connected layers with bias) on every residual
            branch, pooled over each frame.
        stem_pool: the 3x3 stride-2 max-pool of the stem: `padded` (torchvision), `unpadded` (55 x 55 from 112 x 112:
            BAT's video nets) or `ceil` (unpadded, sizes rounded up: the widely used SE-ResNeXt weights).
        neck_width: m: frame features go through a 1x1 convolution with bias to this width before the head; 0: none.
        consensus: how frames meet: `features` classifies the mean feature, `scores` averages the frames' scores,
            `max_*` takes the maximum instead.
    """

    frames: int = Field(1, ge=1)
    classes: int = Field(1000, ge=2)
    depth: Literal[18, 50, 101, 152] = 50
    groups: int = Field(1, ge=1)
    width_per_group: int = Field(64, ge=1)
    gate: Literal["none", "se"] = "none"
    stem_pool: Literal["padded", "unpadded", "ceil"] = "padded"
    neck_width: int = Field(0, ge=0)
    consensus: Consensus = "features"

    @property
    def bottleneck(self) -> bool:
        """Whether units are bottlenecks (else basic units of two 3x3)."""
        return self.depth != 18

    def plans(self) -> dict[str, UnitPlan]:
        """Stage name -> what its units are."""
        found = {}
        for index, (name, units) in enumerate(zip(STAGES, UNITS[self.depth], strict=True)):
            planes = 64 * 2**index
            width = planes * self.width_per_group // 64 * self.groups if self.bottleneck else planes
            found[name] = UnitPlan(units, width, planes * (4 if self.bottleneck else 1), 2 if index else 1)
        return found

    def stage_frames(self) -> tuple[int, int, int, int]:
        """Frames inside res2 .. res5."""
        return (self.frames, self.frames, self.frames, self.frames)

    def unit_times(self, stage: str, units: int) -> list[int]:
        """Temporal extent of the first convolution of each unit of a stage."""
        return [1] * units

    def stages(self) -> dict[str, Stage]:
        side = self._side_after_stem()
        frames = self.stage_frames()
        found: dict[str, Stage] = {}
        for (name, plan), time in zip(self.plans().items(), frames, strict=True):
            before, side = side, after(side, 3, plan.stride, 1)
            inside = Shape(plan.width, time, side, side)
            # A bottleneck strides in its second convolution, a basic unit in its first.
            first = Shape(plan.width, time, before, before) if self.bottleneck else inside
            found[name] = Stage(plan.units, Shape(plan.out, time, side, side), inside, first)
        found["head"] = head_stage(self.head_width, frames[-1])
        return found

    @property
    def head_width(self) -> int:
        """m: channels of the frame features."""
        return self.neck_width or self.plans()["res5"].out

    def problems(self) -> list[str]:
        found = []
        if not self.bottleneck and (self.groups, self.width_per_group) != (1, 64):
            found.append(
                f"depth {self.depth} has basic units without groups: use groups=1 and width_per_group=64, "
                f"given {self.groups} and {self.width_per_group}"
            )
        if not found and min(stage.shape.frames for stage in self.stages().values()) < 1:
            found.append(
                f"{self.frames} frames vanish on the way: give more, or use a backbone without temporal strides"
            )
        return found

    def build(self) -> nn.Module:
        from workloads.backbones.resnet import ResNet

        return ResNet(self)

    def _side_after_stem(self) -> int:
        side = after(self.size, 7, 2, 3)
        if self.stem_pool == "padded":
            return after(side, 3, 2, 1)
        return after(side + (side - 3) % 2, 3, 2, 0) if self.stem_pool == "ceil" else after(side, 3, 2, 0)


class C2DConfig(ResNetConfig):
    """C2D and I3D: a ResNet over time as the non-local and BAT papers lay it out.

    Attributes:
        temporal_strides: of the stem convolution, of the stem pool, and of the (2, 1, 1) max-pool after res2.
            (1, 1, 2) is BAT's; (2, 2, 2) is the non-local paper's 32-frame layout.
        inflate: `none` is C2D: every kernel sees one frame. `alternate` is I3D: the stem is 5x7x7, and the first
            convolution of a unit is 3x1x1 (3x3x3 in basic units) in all units of res2, units 0, 2, .. of res3 and
            res4, and units 1, 3, .. of res5.
    """

    frames: int = Field(8, ge=1)
    classes: int = Field(400, ge=2)
    temporal_strides: tuple[Literal[1, 2], Literal[1, 2, 4], Literal[1, 2]] = (1, 1, 2)
    inflate: Literal["none", "alternate"] = "none"

    @property
    def stem_time(self) -> int:
        """Temporal extent of the stem's kernel."""
        return 5 if self.inflate == "alternate" else 1

    def unit_times(self, stage: str, units: int) -> list[int]:
        inflated = {
            "res2": range(units),
            "res3": range(0, units, 2),
            "res4": range(0, units, 2),
            "res5": range(1, units, 2),
        }
        return [3 if self.inflate == "alternate" and unit in inflated[stage] else 1 for unit in range(units)]

    def stage_frames(self) -> tuple[int, int, int, int]:
        stem, pool, after_res2 = self.temporal_strides
        first = after(after(self.frames, 1, stem, 0), 1, pool, 0)
        rest = first // after_res2
        return first, rest, rest, rest

    def problems(self) -> list[str]:
        found = super().problems()
        if self.stem_pool == "ceil" and self.temporal_strides[1] != 1:
            found.append("stem_pool 'ceil' cannot stride in time: use temporal_strides [s, 1, s] or another stem_pool")
        return found

    def build(self) -> nn.Module:
        from workloads.backbones.c2d import C2D

        return C2D(self)


class TSMConfig(ResNetConfig):
    """TSM: channels of neighbouring frames shifted in before the first convolution of every unit.

    Attributes:
        shift_divisor: C over the channels shifted each way; 8 shifts a quarter in all.
    """

    frames: int = Field(8, ge=1)
    classes: int = Field(400, ge=2)
    consensus: Consensus = "scores"
    shift_divisor: int = Field(8, ge=2)

    def build(self) -> nn.Module:
        from workloads.backbones.tsm import TSM

        return TSM(self)


class TSNConfig(ResNetConfig):
    """TSN: one frame from each of `frames` segments of the video, any 2-D net, consensus over the segments' scores."""

    frames: int = Field(3, ge=1)
    classes: int = Field(400, ge=2)
    consensus: Consensus = "scores"


class StNetConfig(ResNetConfig):
    """StNet: a 2-D net on super-images, temporal modelling blocks after res3 and res4, a temporal Xception block.

    Attributes:
        stacked: N, successive frames stacked into one super-image of `channels` * N channels. The clip's `frames` need
            not be a multiple: the last super-image is completed with copies of the last frame.
        neck_width: m, the width of the temporal Xception block.
    """

    frames: int = Field(35, ge=1)
    classes: int = Field(400, ge=2)
    consensus: Consensus = "max_features"
    neck_width: int = Field(1024, ge=1)
    stacked: int = Field(5, ge=1)

    def stage_frames(self) -> tuple[int, int, int, int]:
        """Super-images inside res2 .. res5."""
        images = -(-self.frames // self.stacked)
        return images, images, images, images

    def build(self) -> nn.Module:
        from workloads.backbones.stnet import StNet

        return StNet(self)


class MFNetConfig(BackboneConfig):
    """MFNet-3D: multi-fibre units; res2 halves T, all later stages halve H and W.

    Attributes:
        groups: fibres, the groups of the 3x3 convolutions.
        width: channels after res2; each later stage doubles them.
        stem_width: channels after the stem.
    """

    frames: int = Field(16, ge=1)
    groups: int = Field(16, ge=1)
    width: int = Field(96, ge=4)
    stem_width: int = Field(16, ge=1)

    def plans(self) -> dict[str, UnitPlan]:
        """Stage name -> what its units are; `stride` is spatial, and 1 in res2, which strides in time."""
        return {
            name: UnitPlan(units, self.width * 2**index, self.width * 2**index, 2 if index else 1)
            for index, (name, units) in enumerate(zip(STAGES, UNITS[50], strict=True))
        }

    def stages(self) -> dict[str, Stage]:
        side = after(after(self.size, 5, 2, 2), 3, 2, 1)
        time = after(self.frames, 3, 2, 1)
        found: dict[str, Stage] = {}
        for name, plan in self.plans().items():
            side = after(side, 3, plan.stride, 1)
            found[name] = Stage(plan.units, Shape(plan.out, time, side, side))
        found["head"] = head_stage(self.width * 8, time)
        return found

    def problems(self) -> list[str]:
        # Every channel count but the stem's is width times a power of two.
        names = {"width": self.width, "stem_width": self.stem_width}
        return [
            f"{what}={value} channels are not divisible by groups={self.groups}"
            for what, value in names.items()
            if value % self.groups
        ] + ([f"width={self.width} must be a multiple of 4"] if self.width % 4 else [])

    def build(self) -> nn.Module:
        from workloads.backbones.mfnet import MFNet

        return MFNet(self)


def after(size: int, kernel: int, stride: int, padding: int) -> int:
    """Output size of a convolution or pool along one axis."""
    return (size + 2 * padding - kernel) // stride + 1


def head_stage(width: int, frames: int) -> Stage:
    """The head as a stage: one place, on the frame features."""
    return Stage(1, Shape(width, frames, 1, 1))


def _not_positive(what: str, values: tuple[int, ...]) -> list[str]:
    return [f"{what} must be positive, given {list(values)}"] if min(values) < 1 else []


# What makes each 2-D net out of `ResNetConfig`; every per-frame family is built on these.
NETS: dict[str, dict[str, Any]] = {
    **{f"resnet{depth}": {"depth": depth} for depth in UNITS},
    "se_resnet50": {"gate": "se"},
    "resnext50_32x4d": {"groups": 32, "width_per_group": 4},
    "resnext101_32x4d": {"depth": 101, "groups": 32, "width_per_group": 4},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "width_per_group": 8},
    "se_resnext101_32x4d": {"depth": 101, "groups": 32, "width_per_group": 4, "gate": "se"},
}


def _presets() -> dict[str, BackboneConfig]:
    found: list[BackboneConfig] = [TinyConfig(name="resnet_tiny"), TinyTSMConfig(name="tsm_tiny")]
    found += [ResNetConfig(name=net, **fields) for net, fields in NETS.items()]
    resnets = {net: fields for net, fields in NETS.items() if set(fields) == {"depth"}}
    found += [C2DConfig(name=f"c2d_{net}", **fields) for net, fields in resnets.items()]
    found += [C2DConfig(name=f"i3d_{net}", inflate="alternate", **fields) for net, fields in resnets.items()]
    found += [TSMConfig(name=f"tsm_{net}", **NETS[net]) for net in ("resnet50", "resnet101")]
    found += [TSNConfig(name=f"tsn_{net}", **fields) for net, fields in NETS.items()]
    # The usual StNet is its paper's ResNet-50; HG-NL's feeds it as it feeds TSN, one frame per segment.
    found += [StNetConfig(name=name) for name in ("stnet", "stnet_resnet50")]
    found += [StNetConfig(name="stnet_se_resnext101", frames=3, stacked=1, **NETS["se_resnext101_32x4d"])]
    found += [MFNetConfig(name="mfnet")]
    return {config.name: config for config in found}


PRESETS: dict[str, BackboneConfig] = _presets()
