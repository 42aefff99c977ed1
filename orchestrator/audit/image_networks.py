"""Cited image networks, layer by layer, at 224 x 224.

Papers: Sandler et al. 2018 (MobileNetV2), Huang et al. 2017 (DenseNet), Gao et al. 2019 (Res2Net), Hu et al. 2018 (GE),
Lee et al. 2019 (SRM), Chen et al. 2018 (MF-Net), Wang et al. 2017 (Residual Attention Network). Code consulted:
cypw/PyTorch-MFNet for MF-Net (its 3-D layers are inflated from the 2-D ones), tengshaofeng/ResidualAttentionNetwork-
pytorch for the skip units of an attention module; none copied.
"""

from __future__ import annotations

from typing import Literal

from orchestrator.audit.layers import Conv, Dense, Norm, Rows, normed, preactivated

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


def mobilenet_v2(width: float, classes: int) -> Rows:
    """All channels but the last layer's times `width`."""

    def wide(channels: float) -> int:
        near = max(8, int(channels * width + 4) // 8 * 8)  # the nearest multiple of 8 that is not over 10 % smaller
        return near + 8 if near < 0.9 * channels * width else near

    side, cin = 112, wide(32)
    yield from normed(3, cin, 3, (side, side))
    for expansion, channels, units, stride in MOBILENET_V2:
        for unit in range(units):
            inner = cin * expansion
            if expansion > 1:
                yield from normed(cin, inner, 1, (side, side))
            side //= stride if unit == 0 else 1
            yield from normed(inner, inner, 3, (side, side), inner)
            yield from normed(inner, wide(channels), 1, (side, side))
            cin = wide(channels)
    last = wide(1280) if width > 1 else 1280
    yield from normed(cin, last, 1, (side, side))
    yield Dense(last, classes)


def densenet201(classes: int, growth: int = 32) -> Rows:
    """Norms stand before their convolutions."""
    side, channels = 56, 64
    yield from normed(3, channels, 7, (112, 112))
    for units in (6, 12, 48, 32):
        if channels > 64:
            yield Norm(channels, (side, side))
            yield Conv(channels, channels // 2, (1, 1), (side, side))
            channels, side = channels // 2, side // 2
        for _ in range(units):
            yield Norm(channels, (side, side))
            yield from normed(channels, 4 * growth, 1, (side, side))
            yield Conv(4 * growth, growth, (3, 3), (side, side))
            channels += growth
    yield Norm(channels, (side, side))
    yield Dense(channels, classes)


def bottlenecks(classes: int, kind: Literal["res2", "ge", "srm"]) -> Rows:
    """ResNet-50 with something in every unit.

    `res2`: seven of eight groups of 14 (28, 56, 112) channels have a 3x3 of their own. `ge`: gather-excite with one
    depthwise kernel as large as the map. `srm`: mean and deviation of each channel, weighted per channel, and a norm.
    """
    side, cin = 56, 64
    yield from normed(3, 64, 7, (112, 112))
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for unit in range(units):
            before, side = side, side // 2 if stage and not unit else side
            out = (side, side)
            inner, scales = (14 * width // 64 * 8, 8) if kind == "res2" else (width, 1)
            yield from normed(cin, inner, 1, (before, before))
            for _ in range(max(1, scales - 1)):
                yield from normed(inner // scales, inner // scales, 3, out)
            yield from normed(inner, 4 * width, 1, out)
            if not unit:
                yield from normed(cin, 4 * width, 1, out)
            cin = 4 * width
            if kind != "res2":
                yield from normed(cin, cin, out if kind == "ge" else (1, 2), (1, 1), cin)
    yield Dense(cin, classes)


def mfnet_2d(classes: int, fibres: int = 16) -> Rows:
    """MFNet-3D with kernels of one frame: a 5x5 stem of 16, then units of 96, 192, 384 and 768 channels."""
    side, cin = 56, 16
    yield from normed(3, cin, 5, (112, 112))
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 96 * 2**stage
        for unit in range(units):
            given, side = (side, side), side // 2 if stage and not unit else side
            out = (side, side)
            yield from preactivated(cin, width // 4, 1, given)
            yield from preactivated(width // 4, cin, 1, given)
            yield from preactivated(cin, width, 3, out, given=given, groups=fibres)
            if unit:
                yield from preactivated(width, width, 3, out, groups=fibres)
            else:
                yield from preactivated(width, width, 1, out)
                yield from preactivated(cin, width, 1, out, given=given)
            cin = width
    yield Norm(cin, (side, side))
    yield Dense(cin, classes)


def attention56(classes: int, *, resnext: bool) -> Rows:
    """Residual attention network: one attention module after the first unit of res2, res3 and res4.

    Args:
        classes: outputs of the classifier.
        resnext: units as in ResNeXt, twice as wide inside and in 32 groups.
    """

    def unit(cin: int, cout: int, side: int, stride: int = 1) -> Rows:
        inner, groups, out = (cout // 2, 32, side // stride) if resnext else (cout // 4, 1, side // stride)
        yield from preactivated(cin, inner, 1, (side, side))
        yield from preactivated(inner, inner, 3, (out, out), given=(side, side), groups=groups)
        yield from preactivated(inner, cout, 1, (out, out))
        if cin != cout or stride > 1:
            yield Conv(cin, cout, (1, 1), (out, out))

    def module(channels: int, side: int, depth: int) -> Rows:
        # One unit before, two in the trunk, one behind; the mask goes down `depth` times and up again.
        sides = [side] * 4 + [side >> depth] * 2 + [side >> level for level in range(1, depth) for _ in range(3)]
        for at in sides:
            yield from unit(channels, channels, at)
        for _ in range(2):
            yield from preactivated(channels, channels, 1, (side, side))

    yield from normed(3, 64, 7, (112, 112))
    yield from unit(64, 256, 56)
    yield from module(256, 56, 3)
    yield from unit(256, 512, 56, 2)
    yield from module(512, 28, 2)
    yield from unit(512, 1024, 28, 2)
    yield from module(1024, 14, 1)
    yield from unit(1024, 2048, 14, 2)
    for _ in range(2):
        yield from unit(2048, 2048, 7)
    yield Norm(2048, (7, 7))
    yield Dense(2048, classes)
