"""Compact generalised non-local block: every (position, channel) pair of a group sees every other one, in linear time.

With theta, phi, g 1x1x1 convolutions of x to C' = C / reduction channels, split into groups of C' / groups channels
and flattened over channels and positions to vectors of length L = N C' / groups (the paper's generalised operation,
re-associated: its compact form for the dot-product kernel):

    vec(Y) = (theta phi^T) g = theta (phi^T g)   per group, 2L multiply-accumulates instead of 2L^2
    Z = GroupNorm(W_z Y) + x                     W_z and the norm grouped alike

Paper: Yue, Sun, Yuan, Zhou, Ding, Xu, "Compact Generalized Non-local Network", NeurIPS 2018, arXiv:1810.13125; the
    baseline CGNL in Tables 5 and 6 of "PNL: Efficient Long-Range Dependencies Extraction with Pyramid Non-Local
    Module for Action Recognition".
Code consulted: the class SpatialCGNL of KaiyuYue/cgnl-network.pytorch, as copied into NUAAXQ/MLCVNet.
Differs from the paper: as in its code, GroupNorm where the text normalises each group by a BatchNorm. Only the
    dot-product kernel (the code's default), without the code's optional division by sqrt(L). Consequence: phi^T g is
    one number per group, which the GroupNorm of the same groups cancels but for its sign.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from blocks.base import Block, Cost, Position
from blocks.configs import CGNLConfig, Shape


class CGNL(Block[CGNLConfig]):
    """Compact generalised non-local block, dot-product kernel; identity at start (zero gamma and beta).

    Args:
        config: groups and reduction.
        shape: the map it is inserted at; any other map size works too.
    """

    identity_at_start = True

    def __init__(self, config: CGNLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c, width, groups = shape.channels, shape.channels // config.reduction, config.groups
        self.theta = nn.Conv3d(c, width, 1, bias=False)
        self.phi = nn.Conv3d(c, width, 1, bias=False)
        self.g = nn.Conv3d(c, width, 1, bias=False)
        self.z = nn.Conv3d(width, c, 1, groups=groups, bias=False)
        self.norm = nn.GroupNorm(groups, c)
        for conv in (self.theta, self.phi, self.g, self.z):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        z: Tensor = self.norm(self.z(self._respond(x)))
        return z + x

    def _respond(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b width t h w"]:
        theta_bgl, phi_bgl, g_bgl = (self._grouped(conv(x)).flatten(2) for conv in (self.theta, self.phi, self.g))
        multiply = _plain if self.config.implementation == "reference" else _fast
        return multiply(theta_bgl, phi_bgl, g_bgl).reshape(x.shape[0], -1, *x.shape[2:])

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b c t h w"], position: Position) -> Float[Tensor, "b groups t h w"]:
        """The kernel theta_i phi_j between two positions, summed over both channels of a group."""
        t, h, w = self.asked(x, position)
        theta, phi = self._grouped(self.theta(x)).sum(2), self._grouped(self.phi(x)).sum(2)
        return phi * theta[:, :, t, h, w, None, None, None]

    @property
    def signed_attention(self) -> bool:
        """The dot-product kernel has both signs."""
        return True

    def _grouped(self, x: Float[Tensor, "b width t h w"]) -> Float[Tensor, "b groups c t h w"]:
        return x.reshape(x.shape[0], self.config.groups, -1, *x.shape[2:])

    @classmethod
    def closed_form(cls, config: CGNLConfig, shape: Shape) -> Cost:
        """The convolutions (z is grouped) and the two products phi^T g and theta (phi^T g)."""
        c, n, groups = shape.channels, shape.positions, config.groups
        width = c // config.reduction
        weights = 3 * c * width + width * c // groups
        product = 2 * width * n
        return Cost(
            macs=weights * n + product,
            params=weights + 2 * c,
            peak_activation_elements=max((c + 4 * width) * n + groups, 3 * c * n + 2 * groups),
            product_macs=product,
        )


def _fast(
    theta: Float[Tensor, "b g length"], phi: Float[Tensor, "b g length"], value: Float[Tensor, "b g length"]
) -> Float[Tensor, "b g length"]:
    return theta * (phi * value).sum(2, keepdim=True)


def _plain(
    theta: Float[Tensor, "b g length"], phi: Float[Tensor, "b g length"], value: Float[Tensor, "b g length"]
) -> Float[Tensor, "b g length"]:
    response_bg11 = phi.unsqueeze(2) @ value.unsqueeze(3)
    return (response_bg11 @ theta.unsqueeze(2)).squeeze(2)
