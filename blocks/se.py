"""Squeeze-and-excitation: every channel is scaled by a gate that sees the whole clip.

    s' = mean of x over T, H, W             (squeeze, eq. 2)
    s = sigmoid(W_2 ReLU(W_1 s' + b_1) + b_2)   (excitation, eq. 3; W_1: C -> C / r)
    z = s * x                               (eq. 4)

Paper: Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507; a baseline in Table III of
    "Region-based Non-local Operation for Video Classification".
Code consulted: none.
Differs from the paper: pooled over time as well as space, one gate per clip. Both layers have a bias (eq. 3 has none),
    as usual in code; the parameters printed for "+ 5 SE" (24.79 M) fit both.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost
from blocks.configs import SEConfig, Shape


class SE(Block[SEConfig]):
    """Squeeze-and-excitation gate; not an identity at start. Has no spatial attention map.

    Args:
        config: the reduction r.
        shape: the map it is inserted at; any other T, H, W works too.
    """

    def __init__(self, config: SEConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c, width = shape.channels, shape.channels // config.reduction
        self.down = nn.Linear(c, width)
        self.up = nn.Linear(width, c)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        gate_bc = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3, 4))))))
        return x * gate_bc[:, :, None, None, None]

    @classmethod
    def closed_form(cls, config: SEConfig, shape: Shape) -> Cost:
        """The two fully connected layers; scaling by the gate is no multiply-accumulate."""
        c, width = shape.channels, shape.channels // config.reduction
        return Cost(
            macs=2 * c * width,
            params=2 * c * width + width + c,
            peak_activation_elements=2 * c * shape.positions + c,
        )
