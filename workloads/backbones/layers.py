"""The layers all backbones share: per-frame convolution and pooling on 5-D clips, and the places where blocks go.

Why clips stay `[B, C, T, H, W]` and each per-frame convolution folds the frames into the batch by itself: the weights
are then plain 2-D ones, so that image checkpoints load unchanged, while shifts, temporal convolutions and blocks see
the clip. Under `torch.channels_last_3d` folding is a view. Measured on one CPU core, forward and backward of two
convolutions with batch norms, against `nn.Conv3d` with 1 x k x k kernels in the same memory format: 2.4 against 3.0 ms
at 32x16x4x8x8, 1.5 / 1.4 ms at 32x32x4x4x4, 1.9 / 1.7 ms at 32x64x4x2x2, 72 / 67 ms at 1x64x8x56x56; the ordinary
contiguous format is 5 to 25 % slower than `channels_last_3d` in nearly all of these. Speed does not decide; loading
does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fold(x: Tensor) -> Tensor:
    """Frames into the batch, `[B, C, T, H, W]` -> `[B * T, C, H, W]`: channels last, a view of `channels_last_3d`."""
    return x.movedim(1, -1).flatten(0, 1).movedim(-1, 1)


def unfold(x: Tensor, frames: int) -> Tensor:
    """The inverse of `fold`: `[B * T, C, H, W]` -> `[B, C, T, H, W]`, always a view."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


class ChannelsLast(nn.Module):
    """Bring `[B, C, T, H, W]` into the memory format in which folding is a view; values do not change.

    Through a flat view, because torch takes a one-channel clip for contiguous otherwise and goes on in that format:
    resnet-tiny's training step took 16.0 ms that way, and 9.5 ms like this.
    """

    def forward(self, x: Tensor) -> Tensor:
        last = x.movedim(1, -1)
        return last.reshape(-1).view(last.shape).movedim(-1, 1)


class FrameConv(nn.Conv2d):
    """A 2-D convolution of every frame of `[B, C, T, H, W]`."""

    def forward(self, x: Tensor) -> Tensor:
        return unfold(super().forward(fold(x)), x.shape[2])


class FrameMaxPool(nn.MaxPool2d):
    """A 2-D max-pool of every frame of `[B, C, T, H, W]`."""

    def forward(self, x: Tensor) -> Tensor:
        return unfold(super().forward(fold(x)), x.shape[2])


def convolution(
    cin: int, cout: int, side: int, *, time: int = 1, stride: int = 1, time_stride: int = 1, groups: int = 1
) -> nn.Module:
    """A `time x side x side` convolution with half padding, no bias, and spatial and temporal strides.

    Where it sees and skips no other frame it is a `FrameConv` with 2-D weights `[cout, cin / groups, side, side]`;
    otherwise the weights are 3-D, `[cout, cin / groups, time, side, side]`.
    """
    half = side // 2
    if time == time_stride == 1:
        return FrameConv(cin, cout, side, stride, padding=half, groups=groups, bias=False)
    strides, padding = (time_stride, stride, stride), (time // 2, half, half)
    return nn.Conv3d(cin, cout, (time, side, side), strides, padding, groups=groups, bias=False)


class LongRange(nn.ModuleDict):
    """The blocks inserted in one residual unit (or the head), by place; empty in a plain backbone.

    It holds no parameter of its own, so a backbone without blocks has exactly the keys of its published checkpoint,
    and a block's keys start with `<unit>.long_range.<place>.`. What a block returns goes on in the memory format that
    the block was given, whatever it made of it: a convolution in another format rounds differently, so that even a
    block that changes nothing would change the network's last digits.
    """

    def forward(self, x: Tensor, place: str = "unit") -> Tensor:
        if place not in self:
            return x
        out: Tensor = self[place](x)
        return out if out.stride() == x.stride() else torch.empty_like(x, dtype=out.dtype).copy_(out)


def init_like_torchvision(network: nn.Module) -> None:
    """He initialisation (fan-out) of every convolution; batch norms are 1 and 0; linear layers keep torch's default."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
