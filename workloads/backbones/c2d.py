"""C2D and I3D on ResNets, as the non-local and BAT papers lay them out.

Papers: Wang et al. 2018 (arXiv:1711.07971), Carreira and Zisserman 2017 (arXiv:1705.07750).
Code consulted: none copied.
Differs from the paper: bottlenecks stride on the 3x3 (torchvision); the max-pool after res2 is 2x1x1, so that no frame
is seen by two outputs (the non-local paper's table prints 3x1x1).
"""

from __future__ import annotations

from torch import nn

from workloads.backbones.families import C2DConfig
from workloads.backbones.layers import convolution
from workloads.backbones.resnet import ResNet


class C2D(ResNet[C2DConfig]):
    """A ResNet over time: T shrinks by max-pools, and in I3D some kernels see three (stem: five) frames."""

    def __init__(self, config: C2DConfig) -> None:
        super().__init__(config)
        if config.temporal_strides[2] != 1:
            self.pool_after_res2 = nn.MaxPool3d((2, 1, 1))

    def make_stem(self) -> nn.Module:
        stride, _, _ = self.config.temporal_strides
        return convolution(self.config.channels, 64, 7, time=self.config.stem_time, stride=2, time_stride=stride)

    def make_stem_pool(self) -> nn.Module:
        _, stride, _ = self.config.temporal_strides
        if stride == 1:
            return super().make_stem_pool()
        side_padding = int(self.config.stem_pool == "padded")
        return nn.MaxPool3d(3, (stride, 2, 2), (1, side_padding, side_padding))
