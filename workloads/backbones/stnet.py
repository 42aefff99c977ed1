"""StNet: a 2-D ResNet on super-images, with temporal convolutions inside and at the end.

Paper: He et al. 2019 (arXiv:1811.01549). Code consulted: the authors' release in PaddlePaddle/models (StNet_ResNet),
which defines this reading:

* N successive frames become one super-image of 3N channels; T super-images are a clip (N = 5, T = 7).
* A temporal modelling block after res3 and after res4: x + BN(ReLU(conv 3x1x1, with bias)), width unchanged.
* A temporal Xception block on the super-images' pooled features f: b = BN(f);
  ReLU(BN(pointwise(b) + separable(ReLU(BN(separable(b)))))), where separable is a channel-wise convolution over
  3 super-images and a pointwise one (2048 -> 1024, then 1024 -> 1024), all with bias.
* The maximum over the super-images, then the classifier.

Differs from the paper: bottlenecks are torchvision's, as in the released code; a clip whose length is not a multiple of
N is completed with copies of its last frame (the released reader samples T * N frames).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.backbones.base import Chain
from workloads.backbones.families import StNetConfig
from workloads.backbones.layers import convolution, init_like_torchvision
from workloads.backbones.resnet import ResNet


class SuperImages(nn.Module):
    """Stack N successive frames into channels: `[B, C, T, H, W]` -> `[B, N * C, ceil(T / N), H, W]`, frame by frame.

    Args:
        stacked: N.
    """

    def __init__(self, stacked: int) -> None:
        super().__init__()
        self.stacked = stacked

    def forward(self, x: Tensor) -> Tensor:
        lacking = -x.shape[2] % self.stacked
        if lacking:
            x = torch.cat((x, x[:, :, -1:].expand(-1, -1, lacking, -1, -1)), dim=2)
        batch, channels, frames, height, width = x.shape
        by_image = x.reshape(batch, channels, frames // self.stacked, self.stacked, height, width)
        return by_image.permute(0, 3, 1, 2, 4, 5).flatten(1, 2)


class TemporalModelling(nn.Module):
    """A residual temporal convolution: x + BN(ReLU(conv(x))), `[B, C, T, H, W]` -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.relu = nn.ReLU(inplace=True)
        self.bn = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.bn(self.relu(self.conv(x)))
        return out


class TemporalXception(nn.Module):
    """The temporal Xception block: `[B, C, T, 1, 1]` -> `[B, m, T, 1, 1]`; see the module docstring.

    Args:
        channels: C.
        width: m.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm3d(channels)
        self.separable1 = separable(channels, width)
        self.bn1 = nn.BatchNorm3d(width)
        self.separable2 = separable(width, width)
        self.shortcut = nn.Conv3d(channels, width, 1)
        self.bn2 = nn.BatchNorm3d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(x)
        branch = self.separable2(self.relu(self.bn1(self.separable1(x))))
        out: Tensor = self.relu(self.bn2(self.shortcut(x) + branch))
        return out


def separable(cin: int, cout: int) -> nn.Sequential:
    """A channel-wise convolution over three frames, then a pointwise one; both with bias."""
    return nn.Sequential(
        nn.Conv3d(cin, cin, (3, 1, 1), padding=(1, 0, 0), groups=cin),
        nn.Conv3d(cin, cout, 1),
    )


class StNet(ResNet[StNetConfig]):
    """See the module docstring."""

    def __init__(self, config: StNetConfig) -> None:
        super().__init__(config)
        plans = config.plans()
        self.super_images = SuperImages(config.stacked)
        self.temporal_after_res3 = TemporalModelling(plans["res3"].out)
        self.temporal_after_res4 = TemporalModelling(plans["res4"].out)
        self.neck = TemporalXception(plans["res5"].out, config.neck_width)
        for new in (self.temporal_after_res3, self.temporal_after_res4, self.neck):
            init_like_torchvision(new)

    def make_stem(self) -> nn.Module:
        return convolution(self.config.channels * self.config.stacked, 64, 7, stride=2)

    def body(self) -> Chain:
        plain = super().body()
        return {
            **plain,
            "stem": (self.super_images, *plain["stem"]),
            "res3": (*plain["res3"], self.temporal_after_res3),
            "res4": (*plain["res4"], self.temporal_after_res4),
        }
