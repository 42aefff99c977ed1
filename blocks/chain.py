"""Attention chain SE + RNL: a channel gate that shifts the map, then the region-based non-local block.

    s' = mean of x over T, H, W                        eq. 10
    s = W_2 ReLU(BN(W_1 s'))                           eq. 11; fully connected, C -> C / r -> C, with bias
    v = x + s                                          eq. 12: added, neither sigmoid nor product
    z = RNL(v)                                         `blocks.rnl`

`gate_pool="attention"` is the released code's gate: s' = sum_j a_j x_j with a = softmax over positions of a 1x1x1
convolution to one channel, instead of the mean.

Paper: Huang, Bors, "Region-based Non-local Operation for Video Classification", section III-D, ICPR 2020,
    arXiv:2007.09033.
Code consulted: russellllaputa/region-based-non-local-network@940b28c (ops/rnl.py, class ChannelGate).
Differs from the paper: r is 2 in the text (W_1 of size C/2 x C) and in the code, but the parameters in Table III
    (35.95 M) need r = 16, the default here, in all five blocks (the code gates only the first). The paper is silent on
    the start: as in the code W_2 is zero, so that the block starts as the identity. BatchNorm momentum is 0.1 as
    everywhere here, 0.01 in the code.

State dict: `gate.down`, `gate.norm`, `gate.up`, with attention pooling `gate.key`, and `rnl.*`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost, Position
from blocks.configs import SERNLConfig, Shape
from blocks.rnl import RNL


class SERNL(Block[SERNLConfig]):
    """Modified squeeze-excitation, then RNL; identity at start (zero W_2, zero gamma and beta in RNL).

    Training needs at least two clips per device: the gate's BatchNorm sees one vector per clip.

    Args:
        config: see `SERNLConfig`.
        shape: the map it is inserted at; any other T, H, W works too (at least 2 x 2 with `sub_sample`).
    """

    identity_at_start = True

    def __init__(self, config: SERNLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        self.gate = ChannelShift(shape.channels, config.gate_reduction, attention=config.gate_pool == "attention")
        self.rnl = RNL(config, shape)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        z: Tensor = self.rnl(self.gate(x))
        return z

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b c t h w"], position: Position) -> Float[Tensor, "b 1 t h w"]:
        """RNL's map for the shifted input, with the gate's running statistics whatever the mode."""
        self.asked(x, position)
        training = self.gate.training
        self.gate.eval()
        try:
            return self.rnl.attention(self.gate(x), position)
        finally:
            self.gate.train(training)

    @classmethod
    def closed_form(cls, config: SERNLConfig, shape: Shape) -> Cost:
        """RNL plus the gate: two layers on one vector and, with attention pooling, one score and share per position."""
        c, n, width = shape.channels, shape.positions, shape.channels // config.gate_reduction
        pools = config.gate_pool == "attention"
        rnl = RNL.closed_form(config, shape)
        return Cost(
            macs=rnl.macs + 2 * c * width + (2 * c * n if pools else 0),
            params=rnl.params + 2 * c * width + 3 * width + c + (c + 1 if pools else 0),
            # x stays alive beside the shifted map that RNL works on.
            peak_activation_elements=rnl.peak_activation_elements + c * n,
            product_macs=rnl.product_macs + (c * n if pools else 0),
        )


class ChannelShift(nn.Module):
    """The modified squeeze-excitation, eq. 10-12: adds one number per channel to the whole clip.

    Args:
        channels: C.
        reduction: r, C over the bottleneck's width.
        attention: pool by softmax weights (released code) instead of the mean (eq. 10).
    """

    def __init__(self, channels: int, reduction: int, *, attention: bool) -> None:
        super().__init__()
        width = channels // reduction
        self.key = nn.Conv3d(channels, 1, 1) if attention else None
        self.down = nn.Linear(channels, width)
        self.norm = nn.BatchNorm1d(width)
        self.up = nn.Linear(width, channels)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        shift_bc: Tensor = self.up(torch.relu(self.norm(self.down(self.pool(x)))))
        return x + shift_bc[:, :, None, None, None]

    def pool(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c"]:
        """s' of eq. 10, or its attention-pooled form."""
        if self.key is None:
            return x.mean((2, 3, 4))
        score_b1n: Tensor = self.key(x).flatten(2)
        return (x.flatten(2) @ score_b1n.softmax(2).mT).squeeze(2)
