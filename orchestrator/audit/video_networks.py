"""Cited video networks, layer by layer.

Papers: He et al. 2016 (ResNet v1), Szegedy et al. 2015 inflated by Carreira and Zisserman 2017 (I3D), Xie et al. 2018
(S3D), Tran et al. 2015 and 2018 (C3D, 3-D ResNet-18). Code consulted: tensorflow/models (slim's s3dg.py), for where
S3D's temporal convolutions may start; none copied.
"""

from __future__ import annotations

from typing import Literal

from orchestrator.audit.layers import Conv, Dense, Rows, Sizes, normed

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
MODULES = sum(len(modules) for _, modules in INCEPTION)


def inception_3d(channels: int, classes: int, *, third: Literal[1, 3], separable: int, flat_stem: bool = False) -> Rows:
    """64 frames of 224 x 224; every convolution is followed by a batch norm but the classifier.

    Args:
        channels: of the input.
        classes: outputs of the classifier.
        third: kernel at the end of a module's third branch, GoogLeNet's 5x5: 3 for I3D's 3x3x3, or 1.
        separable: modules from the first one whose 3x3x3 are 1x3x3 and 3x1x1 (S3D); the stem's too, if there are any.
        flat_stem: the stem has 1x7x7 and 1x3x3 only.
    """

    def large(cin: int, cout: int, kernel: int, out: Sizes, *, split: bool, flat: bool = False) -> Rows:
        if not split and not flat:
            yield from normed(cin, cout, kernel, out)
        else:
            yield from normed(cin, cout, (1, kernel, kernel), out)
            if not flat:
                yield from normed(cout, cout, (kernel, 1, 1), out)

    yield from large(channels, 64, 7, (32, 112, 112), split=separable > 0, flat=flat_stem)
    yield from normed(64, 64, 1, (32, 56, 56))
    yield from large(64, 192, 3, (32, 56, 56), split=separable > 0, flat=flat_stem)
    cin, done = 192, 0
    for out, modules in INCEPTION:
        for plain, reduce3, wide3, reduce5, wide5, pooled in modules:
            for width in (plain, reduce3, reduce5, pooled):
                yield from normed(cin, width, 1, out)
            yield from large(reduce3, wide3, 3, out, split=done < separable)
            yield from large(reduce5, wide5, third, out, split=done < separable and third > 1)
            cin, done = plain + wide3 + wide5 + pooled, done + 1
    yield Dense(cin, classes)


def c3d(classes: int) -> Rows:
    """16 frames of 112 x 112, two fully connected layers of 4096."""
    cin = 3
    maps = ((16, 112), (16, 56), (8, 28), (8, 28), (4, 14), (4, 14), (2, 7), (2, 7))
    for cout, (frames, side) in zip((64, 128, 256, 256, 512, 512, 512, 512), maps, strict=True):
        yield Conv(cin, cout, (3, 3, 3), (frames, side, side), bias=True)
        cin = cout
    yield Dense(8192, 4096)
    yield Dense(4096, 4096)
    yield Dense(4096, classes)


def resnet3d18(classes: int) -> Rows:
    """16 frames of 112 x 112, all kernels 3x3x3 but the stem's 3x7x7."""
    frames, side, cin = 16, 56, 64
    yield from normed(3, 64, (3, 7, 7), (frames, side, side))
    for stage, width in enumerate((64, 128, 256, 512)):
        if stage:
            frames, side = frames // 2, side // 2
            yield from normed(cin, width, 1, (frames, side, side))
        for fed in (cin, width, width, width):
            yield from normed(fed, width, 3, (frames, side, side))
        cin = width
    yield Dense(cin, classes)


def c2d_resnet50_v1(classes: int) -> Rows:
    """ResNet-50 as He et al. 2016 stride it, on the first 1x1 of a unit; 16 frames in the stem, 4 in all stages."""
    side, cin = 56, 64
    yield from normed(3, 64, (1, 7, 7), (16, 112, 112))
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        side //= 2 if stage else 1
        for unit in range(units):
            out = (4, side, side)
            yield from normed(cin, width, 1, out)
            yield from normed(width, width, (1, 3, 3), out)
            yield from normed(width, 4 * width, 1, out)
            if not unit:
                yield from normed(cin, 4 * width, 1, out)
            cin = 4 * width
    yield Dense(cin, classes)
