"""Networks that the papers only cite, as tables of layers: enough to count them, not to run them."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal, NamedTuple

from pydantic import Field

from orchestrator.audit import image_networks as images
from orchestrator.audit import video_networks as videos
from orchestrator.audit.layers import Conv, Dense, Norm, Rows
from orchestrator.audit.octave_networks import oct_resnet50
from workloads.frozen import Frozen


class Cited(Frozen):
    """A cited network in a declaration.

    Attributes:
        network: which definition.
        classes: outputs of the classifier.
        width: multiplier of MobileNetV2's channels.
        low: share of the channels that octave convolutions keep at half the height and width.
        third: kernel at the end of the third branch of I3D's and S3D's modules, 3x3x3 as published or 1x1x1.
        separable: modules of S3D, from the first one, whose 3x3x3 are split in space and time.
        flat_stem: the two large convolutions in I3D's and S3D's stem see one frame at a time, 1x7x7 and 1x3x3.
        resnext: the residual attention network with ResNeXt's units.
        streams: input channels of each of several equal networks: (3, 2) is one on colour and one on optical flow.
        norms: what counts as parameters of a batch norm: nothing, its scale and shift (`learned`), or its running mean
            and variance too (`stored`), as a sum over a checkpoint's arrays does.
    """

    network: Literal[
        "mobilenet_v2",
        "i3d",
        "s3d",
        "c3d",
        "resnet3d18",
        "densenet201",
        "res2net50",
        "ge_resnet50",
        "srm_resnet50",
        "c2d_resnet50_v1",
        "mfnet_2d",
        "attention56",
        "oct_resnet50",
        "oct_i3d_resnet50",
    ]
    classes: int = 1000
    width: float = 1.0
    low: float = Field(0.0, ge=0.0, lt=1.0)
    third: Literal[1, 3] = 3
    separable: int = Field(videos.MODULES, ge=1, le=videos.MODULES)
    flat_stem: bool = False
    resnext: bool = False
    streams: tuple[int, ...] = Field((3,), min_length=1)
    norms: Literal["none", "learned", "stored"] = "learned"

    def rows(self) -> Rows:
        """All layers of all streams."""
        for channels in self.streams:
            yield from TABLES[self.network](self, channels)


# Network -> its rows; only those that may have several streams look at the channels.
TABLES: dict[str, Callable[[Cited, int], Rows]] = {
    "mobilenet_v2": lambda net, _: images.mobilenet_v2(net.width, net.classes),
    "densenet201": lambda net, _: images.densenet201(net.classes),
    "res2net50": lambda net, _: images.bottlenecks(net.classes, "res2"),
    "ge_resnet50": lambda net, _: images.bottlenecks(net.classes, "ge"),
    "srm_resnet50": lambda net, _: images.bottlenecks(net.classes, "srm"),
    "mfnet_2d": lambda net, _: images.mfnet_2d(net.classes),
    "attention56": lambda net, _: images.attention56(net.classes, resnext=net.resnext),
    "i3d": lambda net, channels: videos.inception_3d(
        channels, net.classes, third=net.third, separable=0, flat_stem=net.flat_stem
    ),
    "s3d": lambda net, channels: videos.inception_3d(
        channels, net.classes, third=net.third, separable=net.separable, flat_stem=net.flat_stem
    ),
    "c3d": lambda net, _: videos.c3d(net.classes),
    "resnet3d18": lambda net, _: videos.resnet3d18(net.classes),
    "c2d_resnet50_v1": lambda net, _: videos.c2d_resnet50_v1(net.classes),
    "oct_resnet50": lambda net, _: oct_resnet50(net.classes, net.low, video=False),
    "oct_i3d_resnet50": lambda net, _: oct_resnet50(net.classes, net.low, video=True),
}


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
        if isinstance(row, Norm):
            params += row.channels * {"none": 0, "learned": 2, "stored": 4}[network.norms]
        else:
            macs += prod(made) * prod(module.weight.shape[1:])
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
