"""Networks that the papers only cite, as tables of layers: enough to count them, not to run them.

Each function yields the layers of one published definition, with the size of what each layer puts out.

Papers: He et al. 2016 (ResNet v1), Sandler et al. 2018 (MobileNetV2), Szegedy et al. 2015 inflated by Carreira and
Zisserman 2017 (I3D), Tran et al. 2015 and 2018 (C3D, 3-D ResNet-18), Huang et al. 2017 (DenseNet), Gao et al. 2019
(Res2Net), Hu et al. 2018 (GE), Lee et al. 2019 (SRM). Code consulted: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any, Literal, NamedTuple

from pydantic import Field

from workloads.frozen import Frozen

Sizes = tuple[int, ...]


class Conv(NamedTuple):
    """A convolution and the spatial (and temporal) size of its output."""

    cin: int
    cout: int
    kernel: Sizes
    out: Sizes
    groups: int = 1
    bias: bool = False


class Norm(NamedTuple):
    """A batch norm on a map of `out`."""

    channels: int
    out: Sizes


class Dense(NamedTuple):
    """A fully connected layer with bias."""

    cin: int
    cout: int


Rows = Iterator[Conv | Norm | Dense]


class Cited(Frozen):
    """A cited network in a declaration.

    Attributes:
        network: which definition.
        classes: outputs of the classifier.
        width: multiplier of MobileNetV2's channels.
        streams: input channels of each of several equal networks: (3, 2) is one on colour and one on optical flow.
        norms: whether the parameters of batch norms are counted.
    """

    network: Literal[
        "mobilenet_v2",
        "i3d",
        "c3d",
        "resnet3d18",
        "densenet201",
        "res2net50",
        "ge_resnet50",
        "srm_resnet50",
        "c2d_resnet50_v1",
    ]
    classes: int = 1000
    width: float = 1.0
    streams: tuple[int, ...] = Field((3,), min_length=1)
    norms: bool = True

    def rows(self) -> Rows:
        """All layers of all streams."""
        for channels in self.streams:
            match self.network:
                case "mobilenet_v2":
                    yield from _mobilenet_v2(self.width, self.classes)
                case "i3d":
                    yield from _i3d(channels, self.classes)
                case "c3d":
                    yield from _c3d(self.classes)
                case "resnet3d18":
                    yield from _resnet3d18(self.classes)
                case "densenet201":
                    yield from _densenet201(self.classes)
                case "res2net50":
                    yield from _bottlenecks(self.classes, "res2")
                case "ge_resnet50":
                    yield from _bottlenecks(self.classes, "ge")
                case "srm_resnet50":
                    yield from _bottlenecks(self.classes, "srm")
                case "c2d_resnet50_v1":
                    yield from _c2d_resnet50_v1(self.classes)


class Total(NamedTuple):
    """Parameters, multiply-accumulates, and operations under each published rule."""

    params: int
    macs: int
    rules: dict[str, int]


def count_rows(network: Cited) -> Total:
    """Count a table with the rules that count our own networks."""
    from workloads.counting.rules import module_operations, with_products

    params, macs, rules = 0, 0, dict[str, int]()
    for row in network.rows():
        module = _module(row)
        size = () if isinstance(row, Dense) else row.out
        made = (1, row.channels if isinstance(row, Norm) else row.cout, *size)
        for rule, operations in module_operations(module, made, made).items():
            rules[rule] = rules.get(rule, 0) + operations
        if not isinstance(row, Norm):
            macs += prod(made) * prod(module.weight.shape[1:])
        if network.norms or not isinstance(row, Norm):
            params += sum(parameter.numel() for parameter in module.parameters())
    return Total(params, macs, with_products(rules, 0, 0))


def _module(row: Conv | Norm | Dense) -> Any:
    import torch
    from torch import nn

    with torch.device("meta"):
        if isinstance(row, Dense):
            return nn.Linear(row.cin, row.cout)
        dimensions = len(row.out)
        if isinstance(row, Norm):
            return {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions](row.channels)
        kind: Any = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        return kind(row.cin, row.cout, row.kernel, groups=row.groups, bias=row.bias)


def _normed(cin: int, cout: int, kernel: int | Sizes, out: Sizes, groups: int = 1) -> Rows:
    """A convolution without bias and its batch norm."""
    yield Conv(cin, cout, kernel if isinstance(kernel, tuple) else (kernel,) * len(out), out, groups)
    yield Norm(cout, out)


# Expansion, channels, units, stride of the first unit: Table 2 of MobileNetV2.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _mobilenet_v2(width: float, classes: int) -> Rows:
    def wide(channels: float) -> int:
        near = max(8, int(channels * width + 4) // 8 * 8)  # the nearest multiple of 8 that is not over 10 % smaller
        return near + 8 if near < 0.9 * channels * width else near

    side, cin = 112, wide(32)
    yield from _normed(3, cin, 3, (side, side))
    for expansion, channels, units, stride in MOBILENET_V2:
        for unit in range(units):
            inner = cin * expansion
            if expansion > 1:
                yield from _normed(cin, inner, 1, (side, side))
            side //= stride if unit == 0 else 1
            yield from _normed(inner, inner, 3, (side, side), inner)
            yield from _normed(inner, wide(channels), 1, (side, side))
            cin = wide(channels)
    last = wide(1280) if width > 1 else 1280
    yield from _normed(cin, last, 1, (side, side))
    yield Dense(last, classes)


# Frames and side of the map, then the six widths of each Inception module: Table 1 of GoogLeNet.
INCEPTION = (
    ((32, 28, 28), ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64))),
    (
        (16, 14, 14),
        (
            (192, 96, 208, 16, 48, 64),
            (160, 112, 224, 24, 64, 64),
            (128, 128, 256, 24, 64, 64),
            (112, 144, 288, 32, 64, 64),
            (256, 160, 320, 32, 128, 128),
        ),
    ),
    ((8, 7, 7), ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128))),
)


def _i3d(channels: int, classes: int) -> Rows:
    """64 frames of 224 x 224; every convolution is followed by a batch norm but the classifier."""
    yield from _normed(channels, 64, 7, (32, 112, 112))
    yield from _normed(64, 64, 1, (32, 56, 56))
    yield from _normed(64, 192, 3, (32, 56, 56))
    cin = 192
    for out, modules in INCEPTION:
        for plain, reduce3, wide3, reduce5, wide5, pooled in modules:
            for width in (plain, reduce3, reduce5, pooled):
                yield from _normed(cin, width, 1, out)
            yield from _normed(reduce3, wide3, 3, out)
            yield from _normed(reduce5, wide5, 3, out)  # GoogLeNet's 5x5, which became 3x3x3
            cin = plain + wide3 + wide5 + pooled
    yield Dense(cin, classes)


def _c3d(classes: int) -> Rows:
    """16 frames of 112 x 112, two fully connected layers of 4096."""
    cin = 3
    maps = ((16, 112), (16, 56), (8, 28), (8, 28), (4, 14), (4, 14), (2, 7), (2, 7))
    for cout, (frames, side) in zip((64, 128, 256, 256, 512, 512, 512, 512), maps, strict=True):
        yield Conv(cin, cout, (3, 3, 3), (frames, side, side), bias=True)
        cin = cout
    yield Dense(8192, 4096)
    yield Dense(4096, 4096)
    yield Dense(4096, classes)


def _resnet3d18(classes: int) -> Rows:
    """16 frames of 112 x 112, all kernels 3x3x3 but the stem's 3x7x7."""
    frames, side, cin = 16, 56, 64
    yield from _normed(3, 64, (3, 7, 7), (frames, side, side))
    for stage, width in enumerate((64, 128, 256, 512)):
        if stage:
            frames, side = frames // 2, side // 2
            yield from _normed(cin, width, 1, (frames, side, side))
        for fed in (cin, width, width, width):
            yield from _normed(fed, width, 3, (frames, side, side))
        cin = width
    yield Dense(cin, classes)


def _densenet201(classes: int, growth: int = 32) -> Rows:
    """Norms stand before their convolutions."""
    side, channels = 56, 64
    yield from _normed(3, channels, 7, (112, 112))
    for units in (6, 12, 48, 32):
        if channels > 64:
            yield Norm(channels, (side, side))
            yield Conv(channels, channels // 2, (1, 1), (side, side))
            channels, side = channels // 2, side // 2
        for _ in range(units):
            yield Norm(channels, (side, side))
            yield from _normed(channels, 4 * growth, 1, (side, side))
            yield Conv(4 * growth, growth, (3, 3), (side, side))
            channels += growth
    yield Norm(channels, (side, side))
    yield Dense(channels, classes)


def _bottlenecks(classes: int, kind: Literal["res2", "ge", "srm"]) -> Rows:
    """ResNet-50 with something in every unit.

    `res2`: seven of eight groups of 14 (28, 56, 112) channels have a 3x3 of their own. `ge`: gather-excite with one
    depthwise kernel as large as the map. `srm`: mean and deviation of each channel, weighted per channel, and a norm.
    """
    side, cin = 56, 64
    yield from _normed(3, 64, 7, (112, 112))
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for unit in range(units):
            before, side = side, side // 2 if stage and not unit else side
            out = (side, side)
            inner, scales = (14 * width // 64 * 8, 8) if kind == "res2" else (width, 1)
            yield from _normed(cin, inner, 1, (before, before))
            for _ in range(max(1, scales - 1)):
                yield from _normed(inner // scales, inner // scales, 3, out)
            yield from _normed(inner, 4 * width, 1, out)
            if not unit:
                yield from _normed(cin, 4 * width, 1, out)
            cin = 4 * width
            if kind != "res2":
                yield from _normed(cin, cin, out if kind == "ge" else (1, 2), (1, 1), cin)
    yield Dense(cin, classes)


def _c2d_resnet50_v1(classes: int) -> Rows:
    """ResNet-50 as He et al. 2016 stride it, on the first 1x1 of a unit; 16 frames in the stem, 4 in all stages."""
    side, cin = 56, 64
    yield from _normed(3, 64, (1, 7, 7), (16, 112, 112))
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        side //= 2 if stage else 1
        for unit in range(units):
            out = (4, side, side)
            yield from _normed(cin, width, 1, out)
            yield from _normed(width, width, (1, 3, 3), out)
            yield from _normed(width, 4 * width, 1, out)
            if not unit:
                yield from _normed(cin, 4 * width, 1, out)
            cin = 4 * width
    yield Dense(cin, classes)
