"""A block in thirty lines: every position sees the mean of the clip, z_i = W mean_j(x_j) + x_i."""

from dataclasses import dataclass

from torch import nn

from blocks.base import Block, Cost
from blocks.configs import BlockConfig


@dataclass(frozen=True, kw_only=True)
class MeanConfig(BlockConfig):
    """`bias`: whether W has one."""

    name = "mean"
    bias: bool = True


class MeanBlock(Block[MeanConfig]):
    """A context block without attention; starts as the identity."""

    Config, identity_at_start = MeanConfig, True

    def __init__(self, config, shape):
        super().__init__(config, shape)
        self.w = nn.Conv3d(shape.channels, shape.channels, 1, bias=config.bias)
        for parameter in self.w.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x):
        return x + self.w(x.mean((2, 3, 4), keepdim=True))

    @classmethod
    def closed_form(cls, config, shape):
        c, held = shape.channels, 2 * shape.channels * shape.positions + shape.channels
        return Cost(macs=c * c, params=c * c + c * config.bias, peak_activation_elements=held)
