"""Pyramid non-local block: the non-local operation at several scales, each on its own group of channels.

The channels are split into n groups X'_0 ... X'_{n-1} of C' = C / n; group k is pooled k times by 2 x 2 to X_k, and

    Y_k = W_z y, y_i = sum_j f(theta(x_i), phi(x_j)) g(x_j) / C(X_k), brought back to H x W   (eq. 1 per scale)
    Y = Reshape(Attend(Y'_Q, Y'_K, Y'_stack)), or concat(Y_0, ..., Y_{n-1})                   (eq. 2)
    Attend = softmax(Y'_Q Y'_K^T / sqrt(C')) Y'_stack over the n scales                       (eq. 3)
    Z = BatchNorm(Y) + X

with Y'_Q and Y'_K linear maps of the spatio-temporal means of the Y_k. The pairwise functions f are those of the
non-local block, and so is everything else inside one scale (`blocks.non_local`).

Paper: Xu, Cao, Yang, Mao, Yin, See, "PNL: Efficient Long-Range Dependencies Extraction with Pyramid Non-Local Module
    for Action Recognition", Neurocomputing 2021.
Code consulted: none (none is public).
Differs from the paper: nothing its text decides; it leaves open, and here are switches: the kind of pooling, rounding
    of odd sizes, the up-sampling, the width of Q and K, and `share=False`, which contradicts the text but is what the
    printed parameter counts need (with `qk_reduction=8`). It asks for an identity at start and for n = 1 to be the
    non-local block, so one BatchNorm with gamma = beta = 0 follows the combination, where that block has it after W_z:
    the Y_k keep their values, and the scale attention can tell them apart from the first step on. Eq. 4 should read
    2 C^2 N instead of 2 C^3 N; `closed_form` follows the corrected eq. 9.

State dict: `operations.K.*` as in the non-local block without its `norm` (K = 0 only if shared), `linear_q`, `linear_k`
(with `combine="attention"`), `norm`.
"""

from __future__ import annotations

from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from blocks.base import Block, Cost, Position
from blocks.configs import NonLocalConfig, PNLConfig, Shape
from blocks.non_local import NonLocal

Map = Float[Tensor, "b c t h w"]


class PNL(Block[PNLConfig]):
    """Pyramid non-local block; identity at start (zero gamma and beta).

    Args:
        config: its choices, see `PNLConfig`.
        shape: the map it is inserted at; any other map that survives n - 1 halvings works too.
    """

    identity_at_start = True

    def __init__(self, config: PNLConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width = shape.channels // config.n
        sets = 1 if config.share else config.n
        self.operations = nn.ModuleList(_operation(config, shape) for _ in range(sets))
        self.norm = nn.BatchNorm3d(shape.channels)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)
        if config.combine == "attention":
            self.linear_q = nn.Linear(width, width // config.qk_reduction)
            self.linear_k = nn.Linear(width, width // config.qk_reduction)

    def forward(self, x: Map) -> Map:
        z: Tensor = self.norm(self._combined(x))
        return x + z

    def _combined(self, x: Map) -> Map:
        responses = [self._resized(self._at(k).collect(x_k), x) for k, x_k in enumerate(self._pyramid(x))]
        if self.config.combine == "concat":
            return torch.cat(responses, dim=1)
        return self._attend(torch.stack(responses, dim=1))

    def _at(self, k: int) -> NonLocal:
        operation = self.operations[0 if self.config.share else k]
        assert isinstance(operation, NonLocal)
        return operation

    def _pyramid(self, x: Map) -> list[Float[Tensor, "b c2 t _ _"]]:
        """X_0 ... X_{n-1}: group k of the channels, halved k times."""
        least = self.config.least_size
        if min(x.shape[3:]) < least:
            raise ValueError(
                f"PNL with n={self.config.n} scales needs maps of at least {least} x {least}, "
                f"given {x.shape[3]} x {x.shape[4]}: use fewer scales"
            )
        groups = list(x.chunk(self.config.n, dim=1))
        for k in range(1, self.config.n):
            for _ in range(k):
                groups[k] = self._halved(groups[k])
        return groups

    def _halved(self, x: Map) -> Float[Tensor, "b c t h2 w2"]:
        pool = functional.max_pool3d if self.config.pool == "max" else functional.avg_pool3d
        half: Tensor = pool(x, (1, 2, 2), ceil_mode=self.config.ceil)
        return half

    def _resized(self, y: Map, like: Float[Tensor, "b c2 t h2 w2"]) -> Float[Tensor, "b c t h2 w2"]:
        if y.shape[2:] == like.shape[2:]:
            return y
        if self.config.upsample == "nearest":
            return functional.interpolate(y, like.shape[2:], mode="nearest")
        return functional.interpolate(y, like.shape[2:], mode="trilinear", align_corners=False)

    def _attend(self, stack: Float[Tensor, "b n c t h w"]) -> Float[Tensor, "b n*c t h w"]:
        """Eq. 2 and 3: every group of output channels is its own mixture of the scales."""
        means_bnc = stack.mean((3, 4, 5))
        logits_bnn = self.linear_q(means_bnc) @ self.linear_k(means_bnc).mT
        weights_bnn = (logits_bnn * stack.shape[2] ** -0.5).softmax(-1)
        mixed: Tensor = weights_bnn @ stack.flatten(2)
        return mixed.reshape(stack.shape[0], -1, *stack.shape[3:])

    @torch.no_grad()
    def attention(self, x: Map, position: Position) -> Float[Tensor, "b n t h w"]:
        """One map per scale, from the cell of that scale that holds `position`, brought back to H x W."""
        t, h, w = self.asked(x, position)
        maps = []
        for k, x_k in enumerate(self._pyramid(x)):
            rows, columns = x_k.shape[3:]
            cell = (t, min(h >> k, rows - 1), min(w >> k, columns - 1))  # rounding down may drop the last row
            maps.append(self._resized(self._at(k).attention(x_k, cell), x))
        return torch.cat(maps, dim=1)

    @classmethod
    def closed_form(cls, config: PNLConfig, shape: Shape) -> Cost:
        """The non-local block's cost on every scale without its BatchNorm, plus the attention over scales."""
        n, width, positions = config.n, shape.channels // config.n, shape.positions
        costs = [NonLocal.closed_form(_scale_config(config), scale) for scale in _scales(config, shape)]
        sets = costs[:1] if config.share else costs
        macs, products = sum(cost.macs for cost in costs), sum(cost.product_macs for cost in costs)
        params = sum(cost.params - 2 * width for cost in sets) + 2 * shape.channels
        if config.combine == "attention":
            qk = width // config.qk_reduction
            mixing = n * n * (qk + width * positions)
            macs, products = macs + 2 * n * width * qk + mixing, products + mixing
            params += 2 * (width + 1) * qk
        return Cost(macs=macs, params=params, peak_activation_elements=_peak(config, shape), product_macs=products)


def _operation(config: PNLConfig, shape: Shape) -> NonLocal:
    """The non-local operation of one scale; the norm belongs to the combination of all scales."""
    operation = NonLocal(_scale_config(config), shape._replace(channels=shape.channels // config.n))
    operation.norm = nn.Identity()  # type: ignore[assignment]
    return operation


def _scale_config(config: PNLConfig) -> NonLocalConfig:
    return NonLocalConfig(affinity=config.affinity, reduction=config.reduction, implementation=config.implementation)


def _scales(config: PNLConfig, shape: Shape) -> list[Shape]:
    """The maps X_0 ... X_{n-1}."""
    channels, frames, height, width = shape
    scales = []
    for _ in range(config.n):
        scales.append(Shape(channels // config.n, frames, height, width))
        height, width = (height + config.ceil) // 2, (width + config.ceil) // 2
    return scales


def _peak(config: PNLConfig, shape: Shape) -> int:
    """Either the two maps of one scale, beside x, all pooled groups and the responses so far, or the combination."""
    scales, full = _scales(config, shape), prod(shape)
    pooled = sum(prod(scale) for scale in scales[1:])
    mixing = full + shape.channels + 2 * config.n**2 if config.combine == "attention" else 0
    moments = [3 * full + mixing]
    for k, scale in enumerate(scales):
        n, width = scale.positions, scale.channels // config.reduction
        embedding = {"gaussian": 0, "concatenation": 2 * n}.get(config.affinity, 2 * width * n)
        moments.append(full + pooled + k * full // config.n + embedding + width * n + n * n + max(n * n, width * n))
    return max(moments)
