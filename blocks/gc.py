"""Global context block: one attention-pooled context vector, transformed and added to every position.

    a = softmax over positions of (W_k x + b_k)          W_k: C -> 1
    delta = W_v2 ReLU(LN(W_v1 sum_j a_j x_j))            W_v1: C -> C / r
    z_i = x_i + delta                                    (eq. 4)

Paper: Cao, Xu, Lin, Wei, Hu, "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", ICCVW 2019,
    arXiv:1904.11492; a baseline in Table III of "Region-based Non-local Operation for Video Classification".
Code consulted: open-mmlab/mmcv@1d7b818 (mmcv/cnn/bricks/context_block.py, the released block as maintained there).
Differs from the paper: attends over time as well as space. As in the code, every 1x1x1 convolution has a bias and the
    last one starts at zero, so the block starts as the identity.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost, Position
from blocks.configs import GCConfig, Shape


class GC(Block[GCConfig]):
    """Global context block; identity at start (the last convolution is zero).

    Args:
        config: the reduction r.
        shape: the map it is inserted at; any other T, H, W works too.
    """

    identity_at_start = True

    def __init__(self, config: GCConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c, width = shape.channels, shape.channels // config.reduction
        self.key = nn.Conv3d(c, 1, 1)
        self.down = nn.Conv3d(c, width, 1)
        self.norm = nn.LayerNorm([width, 1, 1, 1])
        self.up = nn.Conv3d(width, c, 1)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        context_bc1 = x.flatten(2) @ self.weights(x).transpose(1, 2)
        delta: Tensor = self.up(torch.relu(self.norm(self.down(context_bc1[..., None, None]))))
        return x + delta

    def weights(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1 n"]:
        """The share of every position in the context; sums to one."""
        score_b1n: Tensor = self.key(x).flatten(2)
        return score_b1n.softmax(2)

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b c t h w"], position: Position) -> Float[Tensor, "b 1 t h w"]:
        """The shares of the positions; the same map for every reference position, which is the block's point."""
        self.asked(x, position)
        return self.weights(x).reshape(x.shape[0], 1, *x.shape[2:])

    @classmethod
    def closed_form(cls, config: GCConfig, shape: Shape) -> Cost:
        """The keys, the pooling (a product of two activations) and the two layers on one vector."""
        c, n, width = shape.channels, shape.positions, shape.channels // config.reduction
        return Cost(
            macs=2 * c * n + 2 * c * width,
            params=c + 1 + 2 * c * width + width + c + 2 * width,
            peak_activation_elements=2 * c * n + 2 * c,
            product_macs=c * n,
        )
