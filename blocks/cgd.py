"""Compact global descriptor: a channel gate made from the product of two pooled descriptors.

With a, m the mean and the maximum of every channel over its positions and s = softmax(a) over channels:

    psi = tanh(s (a . w0) + b0)              (final scheme, first line)
    phi = tanh(s (m . w1) + b1)              (second line)
    z = x * (1 + tanh(psi (phi . w2) + b2))  (third line)

It works on the width C of a bottleneck, right after conv1 of every unit: the backbone places it there.

Paper: He, Cheng, Chen, Hu, Wang, Cheng, "Compact Global Descriptor for Neural Networks", arXiv:1907.09665; the
    baseline Res50-CGD in Table 5 of "PNL: Efficient Long-Range Dependencies Extraction with Pyramid Non-Local Module
    for Action Recognition".
Code consulted: HolmesShuan/Compact-Global-Descriptor@109a752 (README, "Final scheme").
Differs from the paper: pooled over time as well as space, so that the gate of a clip sees all of its frames.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost
from blocks.configs import CGDConfig, Shape


class CGD(Block[CGDConfig]):
    """Compact global descriptor gate with 6C parameters; not an identity at start.

    Args:
        config: has no choices.
        shape: the map after the first convolution of a unit.
    """

    def __init__(self, config: CGDConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c = shape.channels
        self.w0, self.w1, self.w2 = (nn.Parameter(torch.empty(c, 1)) for _ in range(3))
        self.b0, self.b1, self.b2 = (nn.Parameter(torch.zeros(c)) for _ in range(3))
        for weight in (self.w0, self.w1, self.w2):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        return x * self.gate(x)[:, :, None, None, None]

    def gate(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c"]:
        """What every channel of every clip is multiplied by, in (0, 2)."""
        x_bcn = x.flatten(2)
        mean_bc, max_bc = x_bcn.mean(2), x_bcn.amax(2)
        share_bc = mean_bc.softmax(1)
        psi_bc = torch.tanh(share_bc * (mean_bc @ self.w0) + self.b0)
        phi_bc = torch.tanh(share_bc * (max_bc @ self.w1) + self.b1)
        return 1 + torch.tanh(psi_bc * (phi_bc @ self.w2) + self.b2)

    @classmethod
    def closed_form(cls, config: CGDConfig, shape: Shape) -> Cost:
        """3C for the three inner products; scaling by the gate is no multiply-accumulate."""
        c = shape.channels
        return Cost(macs=3 * c, params=6 * c, peak_activation_elements=2 * c * shape.positions + c)
