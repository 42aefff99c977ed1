"""Convolutional block attention: a channel gate, then a gate over positions.

    M_c = sigmoid(MLP(mean of x over T, H, W) + MLP(max of x over T, H, W))   (eq. 2; one MLP, C -> C / r -> C)
    x' = M_c * x                                                              (eq. 1)
    M_s = sigmoid(BN(conv([max of x' over C; mean of x' over C])))            (eq. 3; k x k x k, 2 -> 1 channels)
    z = M_s * x'                                                              (eq. 1)

Paper: Woo, Park, Lee, Kweon, "CBAM: Convolutional Block Attention Module", ECCV 2018, arXiv:1807.06521; a baseline in
    Table III of "Region-based Non-local Operation for Video Classification".
Code consulted: Jongchan/attention-module@e4ee180 (MODELS/cbam.py).
Differs from the paper: pools over time as well as space and convolves over all three axes. As in the code: the MLP has
    biases, the convolution has none and a BatchNorm follows it (momentum 0.1 here, 0.01 there), max comes before mean.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost
from blocks.configs import CBAMConfig, Shape


class CBAM(Block[CBAMConfig]):
    """Convolutional block attention; not an identity at start.

    Its gate over positions depends on the neighbourhood only, so there is no attention map of a reference position.

    Args:
        config: the reduction r and the side k of the spatio-temporal kernel.
        shape: the map it is inserted at; any other T, H, W works too.
    """

    def __init__(self, config: CBAMConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c, width = shape.channels, shape.channels // config.reduction
        self.down = nn.Linear(c, width)
        self.up = nn.Linear(width, c)
        self.spatial = nn.Conv3d(2, 1, config.kernel, padding=config.kernel // 2, bias=False)
        self.norm = nn.BatchNorm3d(1)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        x = x * self.channel_gate(x)
        return x * self.spatial_gate(x)

    def channel_gate(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c 1 1 1"]:
        """M_c of eq. 2, in (0, 1)."""
        pooled_2bc = torch.stack((x.mean((2, 3, 4)), x.amax((2, 3, 4))))
        gate_bc = torch.sigmoid(self.up(torch.relu(self.down(pooled_2bc))).sum(0))
        return gate_bc[:, :, None, None, None]

    def spatial_gate(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1 t h w"]:
        """M_s of eq. 3, in (0, 1)."""
        pooled_b2thw = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)
        return torch.sigmoid(self.norm(self.spatial(pooled_b2thw)))

    @classmethod
    def closed_form(cls, config: CBAMConfig, shape: Shape) -> Cost:
        """The MLP runs twice; the convolution counts its padding, as usual."""
        c, n, width = shape.channels, shape.positions, shape.channels // config.reduction
        kernel = 2 * config.kernel**3
        return Cost(
            macs=4 * c * width + kernel * n,
            params=2 * c * width + width + c + kernel + 2,
            peak_activation_elements=max(3 * c + 1, 2 * c + 4) * n,
        )
