"""Region-based non-local block: two positions are compared by the regions around them.

    g = W_g x                                          1x1x1, C -> C' = C / reduction, bias
    theta = F_theta(g)                                 eq. 3: aggregates a region N_i, channel by channel
    y_i = sum_j f(theta_i, theta_j) g_j / C(x)         eq. 4
    z = W_z y + x                                      eq. 8; 1x1x1 with bias, then BatchNorm with zero gamma and beta

    gaussian      f = exp(theta_i . theta_j), C(x) = sum_j f    eq. 5
    dot_product   f = theta_i . theta_j, C(x) = N               eq. 6, signed
    cosine        f = ReLU(cos(theta_i, theta_j)), C(x) = N     eq. 7; a zero vector is orthogonal to everything

F_theta (`aggregate`), stride 1 and half padding: `conv` is one kernel per channel without bias; `avg` divides by the
size of the whole region, padding included, which makes it eq. 3 with u_k = 1 / |N| for all regions; `max` ignores the
padding. A 1x1x1 kernel aggregates nothing, whatever `aggregate` says.

Paper: Huang, Bors, "Region-based Non-local Operation for Video Classification", ICPR 2020, arXiv:2007.09033.
Code consulted: russellllaputa/region-based-non-local-network@940b28c (ops/rnl.py, ops/depthwise_conv.py).
Differs from the paper: eq. 9 is printed with a misplaced parenthesis; read as softmax(F(xW_g) F(xW_g)^T) xW_g, as the
    code does. As in the code: the BatchNorm after W_z, F_theta without bias and the spread of its initial weights, and
    `sub_sample`, which max-pools keys after F_theta and values. `parity="masked_grouped"` keeps F_theta as the code
    does, a dense convolution in groups of 32 channels times a stored 0/1 mask: the same function with 64 times the
    parameters (the printed 35.48 M and 2.67 M count both) and 32 times the multiply-accumulates.

State dict: `g`, `w_z` (`weight`, `bias`), `norm` (BatchNorm); with `aggregate="conv"` also `region.weight`
`[C', 1, kt, kh, kw]`, in the masked form `[C', 32, kt, kh, kw]` beside `region.mask`.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks import affinity
from blocks.base import Block, Cost, Position
from blocks.configs import Implementation, Kernel, RNLConfig, Shape
from blocks.depthwise import depthwise

FORMS: dict[str, affinity.Form] = {"gaussian": "softmax", "dot_product": "dot_product", "cosine": "cosine"}
GROUP = 32  # Channels per group of the released code's masked convolution.


class RNL(Block[RNLConfig]):
    """Region-based non-local block; identity at start (zero gamma and beta).

    Args:
        config: see `RNLConfig`.
        shape: the map it is inserted at; any other T, H, W works too (at least 2 x 2 with `sub_sample`).
    """

    identity_at_start = True

    def __init__(self, config: RNLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        c, width = shape.channels, shape.channels // config.reduction
        self.g = nn.Conv3d(c, width, 1)
        self.region = _region(config, width)
        self.w_z = nn.Conv3d(width, c, 1)
        self.norm = nn.BatchNorm3d(c)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        y = self._aggregate(x)
        z: Tensor = self.norm(self.w_z(y))
        return x + z

    def _aggregate(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b width t h w"]:
        g = self.g(x)
        theta = self.region(g)
        form, implementation = FORMS[self.config.affinity], self.config.implementation
        if self.config.sub_sample:
            query, key, value = map(_rows, (theta, self._pooled(theta), self._pooled(g)))
            y_b1nc = affinity.attend(form, query, key, value, implementation=implementation)
        else:
            y_b1nc = affinity.attend_within(form, _rows(theta), _rows(g), implementation=implementation)
        return y_b1nc.squeeze(1).mT.reshape(g.shape)

    def _pooled(self, x: Float[Tensor, "b width t h w"]) -> Float[Tensor, "b width t h2 w2"]:
        return F.max_pool3d(x, (1, 2, 2)) if self.config.sub_sample else x

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b c t h w"], position: Position) -> Float[Tensor, "b 1 t h w"]:
        """f(theta_i, theta_j) / C(x); a pooled key lends its weight to each position it was pooled from."""
        t, h, w = self.asked(x, position)
        theta = self.region(self.g(x))
        key = self._pooled(theta)
        query_b11c = theta[:, :, t, h, w][:, None, None]
        row_b1m = affinity.row(FORMS[self.config.affinity], query_b11c, _rows(key), 0)
        map_b1thw = row_b1m.reshape(x.shape[0], 1, *key.shape[2:])
        if not self.config.sub_sample:
            return map_b1thw
        seen = F.interpolate(map_b1thw, scale_factor=(1, 2, 2), mode="nearest")
        height, width = x.shape[3:]
        return F.pad(seen, (0, width % 2, 0, height % 2))  # the pooling drops an odd last row or column

    @classmethod
    def closed_form(cls, config: RNLConfig, shape: Shape) -> Cost:
        """W_g, F_theta (pooling multiplies nothing), two products of width C' with M keys, W_z.

        M = T (H/2) (W/2) when sub-sampled, else N. The peak is F_theta (x, g, its result and the masked kernel, the
        padded map or the maxima's indices), the attention (x, g, theta, pooled keys and values, and two maps, or one
        map and the larger of y and the unit vectors of `cosine`), or the end (x, y and two maps of C channels).
        """
        c, n, width = shape.channels, shape.positions, shape.channels // config.reduction
        m = shape.frames * (shape.height // 2) * (shape.width // 2) if config.sub_sample else n
        region = _RegionCost(config, shape)
        product = 2 * n * m * width
        pooled = 2 * width * m if config.sub_sample else 0
        units = width * (n + m) if config.affinity == "cosine" else 0
        held = (c + (2 if region.taps > 1 else 1) * width) * n
        return Cost(
            macs=2 * c * width * n + region.macs + product,
            params=2 * c * width + width + 3 * c + region.params,
            peak_activation_elements=max(
                held + region.operand, held + pooled + n * m + max(n * m, width * n, units), (3 * c + width) * n
            ),
            product_macs=product,
        )


class _RegionCost:
    """What F_theta multiplies, stores, and holds beside its input and output."""

    def __init__(self, config: RNLConfig, shape: Shape) -> None:
        width = shape.channels // config.reduction
        self.taps = prod(config.kernel)
        self.macs = self.params = self.operand = 0
        if self.taps > 1 and config.aggregate == "conv":
            masked = config.parity == "masked_grouped"
            stored = width * self.taps * (_group(width) if masked else 1)
            self.macs = stored * shape.positions
            self.params, self.operand = (2 * stored, stored) if masked else (stored, 0)
        elif self.taps > 1 and config.aggregate == "avg":
            self.operand = width * prod(size + k - 1 for size, k in zip(shape[1:], config.kernel, strict=True))
        elif self.taps > 1:
            self.operand = width * shape.positions


class Region(nn.Module):
    """F_theta by pooling: the mean or the maximum over the region, channel by channel."""

    def __init__(self, aggregate: str, kernel: Kernel, implementation: Implementation) -> None:
        super().__init__()
        self.aggregate, self.kernel, self.implementation = aggregate, kernel, implementation

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        if self.aggregate == "max":
            return self._max(x)
        if self.implementation == "auto" and x.device.type == "cpu":
            weight = x.new_full((x.shape[1], 1, *self.kernel), 1 / prod(self.kernel))
            return depthwise(x, weight)
        # Padded by hand: the pooling refuses maps smaller than its kernel even where the padding makes up for it.
        around = [half for half in reversed(_half(self.kernel)) for _ in range(2)]
        return F.avg_pool3d(F.pad(x, around), self.kernel, stride=1)

    def _max(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        if self.implementation == "reference":
            return F.max_pool3d(x, self.kernel, stride=1, padding=_half(self.kernel))
        # The maximum over a cuboid is the maximum of maxima along its axes: kt + kh + kw comparisons, not kt * kh * kw.
        kt, kh, kw = self.kernel
        for kernel in ((1, 1, kw), (1, kh, 1), (kt, 1, 1)):
            x = F.max_pool3d(x, kernel, stride=1, padding=_half(kernel)) if prod(kernel) > 1 else x
        return x

    def extra_repr(self) -> str:
        return f"{self.aggregate}, kernel={self.kernel}"


class RegionConv(nn.Module):
    """F_theta by convolution: one kernel per channel, no bias.

    Args:
        channels: C'.
        config: kernel, parity and implementation.
    """

    mask: nn.Parameter

    def __init__(self, channels: int, config: RNLConfig) -> None:
        super().__init__()
        self.implementation = config.implementation
        self.masked = config.parity == "masked_grouped"
        self.group = _group(channels)
        stored = self.group if self.masked else 1
        self.weight = nn.Parameter(torch.empty(channels, stored, *config.kernel))
        # Xavier as the released code draws it: over the dense groups, not over the single channel that is kept.
        bound = (6 / ((self.group + channels) * prod(config.kernel))) ** 0.5
        nn.init.uniform_(self.weight, -bound, bound)
        if self.masked:
            kept = torch.arange(channels)[:, None] % self.group == torch.arange(self.group)
            mask = kept[:, :, None, None, None].expand_as(self.weight).to(self.weight.dtype)
            self.mask = nn.Parameter(mask.contiguous(), requires_grad=False)
            self.weight.data.mul_(self.mask)

    def forward(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        if self.implementation == "auto":
            return depthwise(x, self.kernels())
        weight = (self.weight * self.mask if self.masked else self.weight).to(x.dtype)
        groups = x.shape[1] // weight.shape[1]
        return F.conv3d(x, weight, padding=_half(weight.shape[2:]), groups=groups)

    def kernels(self) -> Float[Tensor, "c 1 kt kh kw"]:
        """The kernel of every channel: the weights that the mask keeps."""
        if not self.masked:
            return self.weight
        channel = torch.arange(self.weight.shape[0], device=self.weight.device)
        kept = channel % self.group
        return (self.weight[channel, kept] * self.mask[channel, kept]).unsqueeze(1)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, kernel={tuple(self.weight.shape[2:])}, masked={self.masked}"


def _region(config: RNLConfig, width: int) -> nn.Module:
    if prod(config.kernel) == 1:
        return nn.Identity()
    if config.aggregate == "conv":
        return RegionConv(width, config)
    return Region(config.aggregate, config.kernel, config.implementation)


def _group(channels: int) -> int:
    return min(GROUP, channels)


def _half(kernel: tuple[int, ...]) -> list[int]:
    return [size // 2 for size in kernel]


def _rows(x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b 1 n c"]:
    return x.flatten(2).mT.unsqueeze(1)
