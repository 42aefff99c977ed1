"""Hierarchical group-wise non-local block: grouped convolutions, and one attention map per group of channels.

With n positions (or frames) F: [m, n] and three 1x1 convolutions with bias,

    Q = W_q F, K = W_k F        m -> m1 = m / reduction channels, in g1 (primary) groups
    V = W_v F                   m -> m channels, in g2 (secondary) groups; g1 = r g2
    A_g = ReLU(Q_g^T K_g)       eq. 7: one n x n map for each of the g2 groups
    Fo_g = V_g A_g              eq. 8
    z = F + s Fo                eq. 5

`affinity="softmax"` is eq. 3-4, A = softmax(Q^T K); with g1 = g2 = 1 it is the paper's NL aggregator. Since Fo = V A,
output j weighs the values by column j of A: the softmax runs over i, the positions of Q, and columns sum to one.
`shared` reuses one kernel and bias for all groups of a convolution: parameters / groups, as many multiply-accumulates.
`normalise="positions"` divides A by n, which the paper does not: its response grows with n (3 segments in training, 25
in testing). n may change between training and testing.
`level="frames"` is the paper's use: F holds the means over H, W of the T frames, and s Fo is added to all positions of
a frame. `level="positions"` attends over all T*H*W positions. The mean over n (eq. 6) is the network's global pooling.

Paper: Liu, Cai, Liu, Ding, Wang, "iqiyi Submission to ActivityNet Challenge 2019 Kinetics-700 challenge: Hierarchical
    Group-wise Attention", arXiv:2002.02918.
Code consulted: none (not released).
Differs from the paper: it leaves s open; here a learnable scalar that starts at `start` = 0. Table 1 does not count it:
    `cost().params` is the printed number plus one.

State dict: `q.conv`, `k.conv`, `v.conv` (`weight`, `bias`) and the scalar `s`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks import affinity
from blocks.base import Block, Cost, Position
from blocks.configs import HGNLConfig, Shape


class HGNL(Block[HGNLConfig]):
    """Hierarchical group-wise non-local block; identity at start with the default `start` = 0.

    Args:
        config: see `HGNLConfig`.
        shape: the map it is inserted at; any other T, H, W works too.
    """

    identity_at_start = True

    def __init__(self, config: HGNLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        m, m1 = shape.channels, shape.channels // config.reduction
        self.q = GroupedPointwise(m, m1, config.g1, shared=config.shared)
        self.k = GroupedPointwise(m, m1, config.g1, shared=config.shared)
        self.v = GroupedPointwise(m, m, config.g2, shared=config.shared)
        self.s = nn.Parameter(torch.tensor(float(config.start)))

    def forward(self, x: Float[Tensor, "b m t h w"]) -> Float[Tensor, "b m t h w"]:
        fo = self._aggregate(self._features(x))
        return x + self.s * fo

    def _features(self, x: Float[Tensor, "b m t h w"]) -> Float[Tensor, "b m t h2 w2"]:
        return x.mean((3, 4), keepdim=True) if self.config.level == "frames" else x

    def _aggregate(self, f: Float[Tensor, "b m t h w"]) -> Float[Tensor, "b m t h w"]:
        # Fo = V A sums over the positions of Q: in the words of `attend`, K asks and Q answers.
        fo_bgnc = affinity.attend(
            self._form,
            self._rows(self.k(f)),
            self._rows(self.q(f)),
            self._rows(self.v(f)),
            normalise=self.config.normalise == "positions",
            implementation=self.config.implementation,
        )
        return fo_bgnc.mT.reshape(f.shape)

    @property
    def _form(self) -> affinity.Form:
        return "softmax" if self.config.affinity == "softmax" else "relu"

    def _rows(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b g n d"]:
        return x.reshape(x.shape[0], self.config.g2, x.shape[1] // self.config.g2, -1).mT

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b m t h w"], position: Position) -> Float[Tensor, "b g t h w"]:
        """The column of every A_g that belongs to `position`: the weight of each V in its output.

        At `level="frames"` the weight of a frame is spread evenly over its positions, whose mean it weighs.
        """
        t, h, w = self.asked(x, position)
        f = self._features(x)
        frames, height, width = f.shape[2:]
        asked = (t * height + h) * width + w if self.config.level == "positions" else t
        row_bgn = affinity.row(
            self._form,
            self._rows(self.k(f)),
            self._rows(self.q(f)),
            asked,
            normalise=self.config.normalise == "positions",
        )
        map_bgthw = row_bgn.reshape(x.shape[0], self.config.g2, frames, height, width)
        spread = x.shape[3] * x.shape[4] // (height * width)
        return (map_bgthw / spread).expand(-1, -1, *x.shape[2:])

    @classmethod
    def closed_form(cls, config: HGNLConfig, shape: Shape) -> Cost:
        """Three grouped convolutions and two products per group; the mean and s Fo multiply and accumulate nothing.

        The peak is either the attention (x, the frames' features, q, k, v and two maps, or one map and Fo) or the end
        of the block (x, Fo, s Fo and the output).
        """
        m, m1 = shape.channels, shape.channels // config.reduction
        frames = config.level == "frames"
        n = shape.frames if frames else shape.positions
        weights_q, weights_v = m * m1 // config.g1, m * m // config.g2
        product = n * n * (m1 + m)
        shared_q, shared_v = (config.g1, config.g2) if config.shared else (1, 1)
        maps = config.g2 * n * n
        during = m * shape.positions + (m * n if frames else 0) + (2 * m1 + m) * n + maps + max(maps, m * n)
        return Cost(
            macs=(2 * weights_q + weights_v) * n + product,
            params=2 * (weights_q + m1) // shared_q + (weights_v + m) // shared_v + 1,
            peak_activation_elements=max(during, 2 * m * shape.positions + 2 * m * n),
            product_macs=product,
        )


class GroupedPointwise(nn.Module):
    """A grouped 1x1x1 convolution with bias, optionally with one kernel and bias for all groups.

    Args:
        inputs: input channels, divisible by `groups`.
        outputs: output channels, divisible by `groups`.
        groups: number of groups.
        shared: reuse one kernel [outputs / groups, inputs / groups] for every group.
    """

    def __init__(self, inputs: int, outputs: int, groups: int, *, shared: bool) -> None:
        super().__init__()
        self.groups = groups
        self.shared = shared
        if shared:
            self.conv = nn.Conv3d(inputs // groups, outputs // groups, 1)
        else:
            self.conv = nn.Conv3d(inputs, outputs, 1, groups=groups)

    def forward(self, x: Float[Tensor, "b inputs t h w"]) -> Float[Tensor, "b outputs t h w"]:
        if not self.shared:
            result: Tensor = self.conv(x)
            return result
        # Groups as extra clips: one kernel sees every group.
        b, c, *thw = x.shape
        grouped: Tensor = self.conv(x.reshape(b * self.groups, c // self.groups, *thw))
        return grouped.reshape(b, -1, *thw)
