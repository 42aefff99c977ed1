"""Non-local block: every position collects from all positions, weighted by a pairwise function of their features.

Equations (numbers of the paper): y_i = sum_j f(x_i, x_j) g(x_j) / C(x) (1), z_i = W_z y_i + x_i (6), with f one of

    gaussian           exp(x_i . x_j),             C = sum_j f        (2)
    embedded_gaussian  exp(theta_i . phi_j),       C = sum_j f        (3)
    dot_product        theta_i . phi_j,            C = N              (4)
    concatenation      ReLU(w_f [theta_i, phi_j]), C = N              (5)

where theta = W_theta x, phi = W_phi x, g = W_g x and N counts the keys.

Paper: Wang, Girshick, Gupta, He, "Non-local Neural Networks", CVPR 2018.
Code consulted: facebookresearch/video-nonlocal-net@4b5d2dd, facebookresearch/SlowFast@1739b74.
Differs from the paper: nothing by default. Switches beyond it: `heads`; `scale="sqrt"` (both codes can divide by the
square root of the width, the paper does not); `sub_sample="after"` (the RNL authors' code pools phi and g, the paper
pools x). The paper's bottleneck is `reduction=2`. W_z is followed by BatchNorm with gamma = beta = 0, so that the block
starts as the identity.

Weights start as in the authors' code: every convolution normal(0, 0.01) with zero bias. State dict: `theta`, `phi`,
`g`, `w_z` (`weight`, `bias`), `norm` (BatchNorm), and for concatenation the halves `f_theta.weight` and `f_phi.weight`
of w_f. `gaussian` has neither theta nor phi.
"""

from __future__ import annotations

from typing import Final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from blocks.affinity import Form, Keys, Output, Queries, Values, attend, attend_within, row
from blocks.base import Block, Cost, Position
from blocks.configs import NonLocalConfig, Shape

Map = Float[Tensor, "b c t h w"]

_FORM: Final[dict[str, Form]] = {
    "gaussian": "softmax",
    "embedded_gaussian": "softmax",
    "dot_product": "dot_product",
    "concatenation": "concatenation",
}


class NonLocal(Block[NonLocalConfig]):
    """The non-local block; runs on any map size with the channels it was built for.

    Args:
        config: its choices, see `NonLocalConfig`.
        shape: the map it is inserted at.

    Raises:
        ValueError: C is not divisible by reduction * heads, or the map is too small to sub-sample.
    """

    identity_at_start = True

    def __init__(self, config: NonLocalConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        channels, width, heads = shape.channels, shape.channels // config.reduction, config.heads
        embedded = config.affinity != "gaussian"
        scalar = config.affinity == "concatenation"
        self.theta = nn.Conv3d(channels, width, 1) if embedded else nn.Identity()
        self.phi = nn.Conv3d(channels, width, 1) if embedded else nn.Identity()
        self.f_theta = nn.Conv3d(width, heads, 1, groups=heads, bias=False) if scalar else nn.Identity()
        self.f_phi = nn.Conv3d(width, heads, 1, groups=heads, bias=False) if scalar else nn.Identity()
        self.g = nn.Conv3d(channels, width, 1)
        self.pool_before = nn.MaxPool3d((1, 2, 2)) if config.sub_sample == "before" else nn.Identity()
        self.pool_after = nn.MaxPool3d((1, 2, 2)) if config.sub_sample == "after" else nn.Identity()
        self.w_z = nn.Conv3d(width, channels, 1)
        self.norm = nn.BatchNorm3d(channels)
        self.form = _FORM[config.affinity]
        self.scale = ((width if embedded else channels) // heads) ** -0.5 if config.scale == "sqrt" else 1.0
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as the module's docstring says."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, x: Map) -> Map:
        y = self._respond(x).mT.reshape(x.shape[0], -1, *x.shape[2:])
        z: Tensor = self.norm(self.w_z(y))
        return x + z

    def collect(self, x: Map) -> Map:
        """W_z y, what the block normalises and adds to x; PNL combines it over scales first."""
        z: Map = self.w_z(self._respond(x).mT.reshape(x.shape[0], -1, *x.shape[2:]))
        return z

    def attention(self, x: Map, position: Position) -> Float[Tensor, "b heads t h w"]:
        """One map per head; a pooled key lends its weight to each position it was pooled from."""
        t, h, w = self.asked(x, position)
        q = self._queries(x[:, :, t : t + 1, h : h + 1, w : w + 1])
        weights = row(self.form, q, self._keys(self.pool_before(x)), 0, scale=self.scale)
        frames, height, width = x.shape[2:]
        if self.config.sub_sample == "none":
            return weights.reshape(*weights.shape[:2], frames, height, width)
        pooled = weights.reshape(*weights.shape[:2], frames, height // 2, width // 2)
        seen = F.interpolate(pooled, scale_factor=(1, 2, 2), mode="nearest")
        return F.pad(seen, (0, width % 2, 0, height % 2))  # the pooling drops an odd last row or column

    def _respond(self, x: Map) -> Output:
        if self.config.affinity == "gaussian" and self.config.sub_sample == "none":
            v = self._split(self.g(x))
            return attend_within(
                self.form, self._split(x), v, scale=self.scale, implementation=self.config.implementation
            )
        source = self.pool_before(x)
        q, k, v = self._queries(x), self._keys(source), self._split(self.pool_after(self.g(source)))
        del source
        return attend(self.form, q, k, v, scale=self.scale, implementation=self.config.implementation)

    def _queries(self, x: Map) -> Queries:
        if self._folds:
            return self._split(_conv_of_conv(x, self.theta, self.f_theta))
        return self._split(self.f_theta(self.theta(x)))

    def _keys(self, source: Map) -> Keys:
        if self._folds and self.config.sub_sample != "after":
            return self._split(_conv_of_conv(source, self.phi, self.f_phi))
        return self._split(self.f_phi(self.pool_after(self.phi(source))))

    @property
    def _folds(self) -> bool:
        """Whether w_f may be multiplied into W_theta and W_phi: C multiplications per position, not C^2 / reduction."""
        return self.form == "concatenation" and self.config.implementation == "auto"

    def _split(self, x: Map) -> Values:
        heads = self.config.heads
        return x.reshape(x.shape[0], heads, x.shape[1] // heads, -1).mT

    @classmethod
    def closed_form(cls, config: NonLocalConfig, shape: Shape) -> Cost:
        """The definition with its N x M map per head, M = T (H/2) (W/2) when sub-sampled, else N.

        Each 1x1x1 convolution takes its positions times its weights; the map N M (width of q) and its product with the
        values N M C/r, except that a concatenation's map is a sum of two scalars per head. The peak is either the
        attention (x, q, k, v and two maps, or one map and the larger of y and a scaled copy of q) or the end of the
        block (x, y and two maps of C channels).
        """
        channels, n, heads = shape.channels, shape.positions, config.heads
        m = n if config.sub_sample == "none" else shape.frames * (shape.height // 2) * (shape.width // 2)
        width = channels // config.reduction
        embeds, scalar = config.affinity != "gaussian", config.affinity == "concatenation"
        key_positions = m if config.sub_sample == "before" else n

        macs = channels * width * (n * embeds + key_positions * (embeds + 1) + n) + scalar * width * (n + m)
        qk_width = 0 if scalar else width if embeds else channels
        products = n * m * (qk_width + width)
        params = channels * width * (2 * embeds + 2) + width * (2 * embeds + 1) + 3 * channels + 2 * scalar * width

        q_elements = (heads if scalar else width) * n if embeds else 0
        k_elements = (heads if scalar else width) * m if embeds else channels * m * (config.sub_sample != "none")
        scaled = (width if embeds else channels) * n if config.scale == "sqrt" else 0
        held = channels * n + q_elements + k_elements + width * m
        attention = held + heads * n * m + max(heads * n * m, width * n, scaled)
        peak = max(attention, 3 * channels * n + width * n)
        return Cost(macs=macs + products, params=params, peak_activation_elements=peak, product_macs=products)


def _conv_of_conv(x: Map, first: nn.Module, second: nn.Module) -> Float[Tensor, "b heads t h w"]:
    """`second(first(x))` for 1x1x1 convolutions, the second one grouped by heads, with their weights multiplied."""
    assert isinstance(first, nn.Conv3d)
    assert first.bias is not None
    assert isinstance(second, nn.Conv3d)
    heads = second.groups
    outer = second.weight.reshape(heads, -1, 1)
    weight = (outer * first.weight.reshape(heads, -1, first.in_channels)).sum(1)
    bias = (outer[..., 0] * first.bias.reshape(heads, -1)).sum(1)
    return F.conv3d(x, weight[:, :, None, None, None], bias)
