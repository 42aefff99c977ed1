"""Bilinear attentional transform: predicted matrices mix the rows, the columns and the frames of a feature map.

Per frame and group of channels, with P [H, H] and Q [W, W] predicted from the map itself:

    Y = P X Q                                       (eq. 1)
    P_ij / sum_k P_ik,  Q_ij / sum_k Q_kj           (eq. 2: non-negative rows of P and columns of Q sum to one)
    rows, columns: maxima over s bands of the map   (eq. 3-6: what P and Q are predicted from)
    Z_t = sum_t' M_tt' Y_t'                         (eq. 7: along time, after space)
    W = P^T A Q^T, A all ones                       (eq. 8: `attention`)

`matrix="block"`: P and Q have side s and are copied along diagonals (fig. 3): P (x) I_{H/s}, Q (x) I_{W/s}. The whole:

    x -> 1x1 to C, BN, ReLU -> Y or Z -> 1x1, BN, ReLU -> 1x1 to D, BN, ReLU -> dropout -> + x
         predictor, on the C channels: 1x1 to C', BN, ReLU -> pooling -> one global convolution each for P, Q, M

Paper: Chi, Yuan, Mu, Wang, "Non-Local Neural Networks with Grouped Bilinear Attentional Transforms", CVPR 2020.
Code consulted: BA-Transform/BAT-Video-Classification@a0b3903 and BA-Transform/BAT-Image-Classification@76275b5.
Differs from the paper: eq. 5-6 print overlapping bands (i <= k < i + H/s); here, as in the code, the bands tile the
    map. Maps that s does not divide, which the paper leaves open: the s bands have ceil(H/s) rows each, are spread
    evenly, overlap their neighbours in at most one row, and a row covered twice is the mean of both results. The
    expanded matrices keep their sums of one, identity stays identity, and the form is the paper's where s divides.
    (The code averages matrices predicted from overlapping windows and fails at some sizes.) The cost is the paper's
    (Table 1): that of the expanded matrices, C N (H + W), whatever `implementation` computes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from blocks.base import Block, Cost, Position
from blocks.bilinear import expand, split_bands, transform_fast, transform_plain
from blocks.configs import BATConfig, Shape


class BAT(Block[BATConfig]):
    """Grouped bilinear attentional transform; not an identity at start (a ReLU ends the branch).

    Works on every map with at least as many rows and columns as P and Q and, in 3-D, a multiple of ts frames.

    Compiled with the clip's length marked dynamic, one graph serves all clips of more than ts frames; PyTorch compiles
    those of exactly ts frames by themselves, as it does wherever a size is one.

    Args:
        config: sides, groups and kinds of the matrices.
        shape: the map it is inserted at; `matrix="full"` takes the sides of P and Q from it.
    """

    def __init__(self, config: BATConfig, shape: Shape) -> None:
        super().__init__(config, shape)
        width = shape.channels // config.reduction
        self.reduce = _conv_bn_relu(shape.channels, width)
        self.least = _sides(config, shape) if config.k or config.matrix == "downsampling" else (1, 1)
        self.predictor = MatrixPredictor(width, config, _sides(config, shape)) if config.k else None
        self.mix = _conv_bn_relu(width, width)
        self.expand = _conv_bn_relu(width, shape.channels)
        self.dropout = nn.Dropout3d(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b d t h w"]) -> Float[Tensor, "b d t h w"]:
        self._check(x)
        y = self.mix(self._transform(self._resized(self.reduce(x))))
        if y.shape != (*y.shape[:2], *x.shape[2:]):
            y = functional.interpolate(y, x.shape[2:], mode="trilinear", align_corners=False)
        branch: Tensor = self.dropout(self.expand(y))
        return branch + x

    def _check(self, x: Tensor) -> None:
        t, h, w = x.shape[2:]
        rows, columns = self.least
        if h < rows or w < columns:
            how = "build it for a smaller map" if self.config.matrix == "full" else "use a smaller s"
            raise ValueError(f"BAT was built for maps of at least {rows} x {columns}, given {h} x {w}: {how}")
        if self.predictor is not None and self.config.temporal and t % self.config.ts:
            raise ValueError(f"BAT mixes multiples of ts={self.config.ts} frames, given {t}: change ts or the frames")

    def _resized(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h2 w2"]:
        """The map that P and Q transform: `downsampling` shrinks it to s x s first."""
        if self.config.matrix != "downsampling":
            return x
        return functional.adaptive_avg_pool3d(x, (x.shape[2], self.config.s, self.config.s))

    def _transform(self, x: Float[Tensor, "b c t h w"]) -> Float[Tensor, "b c t h w"]:
        if self.predictor is None:
            return x
        p, q, m = self.predictor(x)
        transform = transform_plain if self.config.implementation == "reference" else transform_fast
        return transform(x, p, q, m)

    @torch.no_grad()
    def attention(self, x: Float[Tensor, "b d t h w"], position: Position) -> Float[Tensor, "b k t h w"] | None:
        """Eq. 8 per spatial group, as seen from frame `position[0]` (it is the same for every place in a frame).

        In 3-D the map of frame t' is weighted by M[t, t'], averaged over the group's channels; in 2-D a frame sees
        itself only. BatchNorm makes it depend on the mode: call it in eval mode.

        Returns:
            `[B, k, T, H, W]`; None for k = 0.
        """
        frame = self.asked(x, position)[0]
        self._check(x)
        if self.predictor is None:
            return None
        small = self._resized(self.reduce(x))
        p, q, m = self.predictor(small)
        rows_bkth = expand(p, small.shape[3]).sum(-2)
        columns_bktw = expand(q.mT, small.shape[4]).sum(-2)
        maps = rows_bkth.unsqueeze(-1) * columns_bktw.unsqueeze(-2)
        if maps.shape[3:] != x.shape[3:]:
            maps = functional.interpolate(maps, x.shape[2:], mode="trilinear", align_corners=False)
        return maps * self._frame_weights(m, small, frame)[..., None, None]

    def _frame_weights(self, m: Tensor | None, x: Tensor, t: int) -> Float[Tensor, "b k frames"]:
        """How much frame `t` of the output takes from every frame, per spatial group."""
        b, width, frames = x.shape[:3]
        if m is None:
            return torch.eye(frames, dtype=x.dtype, device=x.device)[t].expand(b, self.config.k, frames)
        row_bct = expand(m, frames)[:, :, t].repeat_interleave(width // self.config.kt, dim=1)
        return row_bct.reshape(b, self.config.k, -1, frames).mean(2)

    @classmethod
    def closed_form(cls, config: BATConfig, shape: Shape) -> Cost:
        """Table 1 for the 1x1 convolutions and the matrices, exact instead of rounded, plus M and its product."""
        d, n, t = shape.channels, shape.positions, shape.frames
        c, (height, width) = d // config.reduction, _inner_size(config, shape)
        inner = t * height * width
        macs, params = 2 * d * c * n + c * c * inner, 2 * d * c + c * c + 6 * c + 3 * d
        if config.k == 0:
            return Cost(macs=macs, params=params, peak_activation_elements=(3 * d + c) * n)
        p, sides = config.predictor or config.k, _sides(config, shape)
        per_frame = sum(p * config.k * s**3 for s in sides)
        per_clip = p * config.kt * config.ts**3 * config.temporal
        macs += c * p * inner + per_frame * t + per_clip
        params += (c + 3) * p + per_frame + per_clip
        params += config.k * sum(s**2 for s in sides) + config.kt * config.ts**2 * config.temporal
        product = c * inner * (height + width + t * config.temporal)
        peak = _peak(config, shape)
        return Cost(macs=macs + product, params=params, peak_activation_elements=peak, product_macs=product)


class MatrixPredictor(nn.Module):
    """The transformation predictor (sections 3.2-3.4): P and Q per frame and group, M per clip and temporal group.

    Args:
        channels: C, the width of the map it reads.
        config: groups, normalisation and C' (`predictor`).
        sides: of P and of Q.
    """

    def __init__(self, channels: int, config: BATConfig, sides: tuple[int, int]) -> None:
        super().__init__()
        width = config.predictor or config.k
        self.config = config
        self.sides = sides
        self.compress = _conv_bn_relu(channels, width)
        self.conv_p = nn.Conv3d(width, config.k * sides[0] ** 2, (1, sides[0], 1))
        self.conv_q = nn.Conv3d(width, config.k * sides[1] ** 2, (1, 1, sides[1]))
        self.conv_m = nn.Conv3d(width, config.kt * config.ts**2, (config.ts, 1, 1)) if config.temporal else None

    def forward(
        self, x: Float[Tensor, "b c t h w"]
    ) -> tuple[Float[Tensor, "b k t s s"], Float[Tensor, "b k t s2 s2"], Float[Tensor, "b kt ts ts"] | None]:
        f = self.compress(x)
        (rows, columns), (k, kt, ts) = self.sides, (self.config.k, self.config.kt, self.config.ts)
        p = self._matrices(self.conv_p, split_bands(f.amax(4), 3, rows).amax(4).unsqueeze(4), k, -1)
        q = self._matrices(self.conv_q, split_bands(f.amax(3), 3, columns).amax(4).unsqueeze(3), k, -2)
        if self.conv_m is None:
            return p, q, None
        frames = f.mean((3, 4)).reshape(f.shape[0], f.shape[1], ts, -1).mean(3)
        return p, q, self._matrices(self.conv_m, frames[..., None, None], kt, -1).squeeze(2)

    def _matrices(
        self, conv: nn.Conv3d, pooled: Float[Tensor, "b p t h w"], groups: int, dim: int
    ) -> Float[Tensor, "b groups t2 s s"]:
        """One convolution over everything pooled gives all matrices of a frame; `dim` sums to one in each (eq. 2)."""
        side = max(conv.kernel_size)
        matrices: Tensor = (
            conv(pooled).reshape(pooled.shape[0], groups, side, side, -1).permute(0, 1, 4, 2, 3).contiguous()
        )
        if self.config.normalise == "softmax":
            return matrices.softmax(dim)
        positive = matrices.sigmoid()
        return positive / positive.sum(dim, keepdim=True)


def _conv_bn_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 1), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))


def _inner_size(config: BATConfig, shape: Shape) -> tuple[int, int]:
    """Height and width of the map that P and Q transform."""
    return (config.s, config.s) if config.matrix == "downsampling" else (shape.height, shape.width)


def _sides(config: BATConfig, shape: Shape) -> tuple[int, int]:
    """Sides of P and Q."""
    return (shape.height, shape.width) if config.matrix == "full" else (config.s, config.s)


def _peak(config: BATConfig, shape: Shape) -> int:
    """Elements held by `transform_plain`, the predictor before it or the expansion to D channels after it."""
    d, t, (height, width) = shape.channels, shape.frames, _inner_size(config, shape)
    c, (rows, columns), kt = d // config.reduction, _sides(config, shape), config.k * t
    inner = c * t * height * width
    base = d * shape.positions + inner
    p = config.predictor or config.k
    f = p * t * height * width

    def made(groups: int, s: int, pooled: int) -> int:
        """What one convolution of the predictor makes: its input, its output and what normalises that."""
        return p * pooled + groups * (2 * s * s if config.normalise == "softmax" else 3 * s * s + s)

    def applied(groups: int, s: int, size: int, frames: int, transposed: int = 0) -> int:
        """A matrix expanded from s to `size`, or one copy of it per channel and the product."""
        padded = -(-size // s) * s
        building = transposed + groups * padded**2 + (padded // s) ** 2
        if padded != size:
            building += 3 * groups * padded * size + 3 * size
        copies = c * frames * size**2 if groups < c * frames else 0
        return max(building, groups * size**2 + copies + inner)

    moments = [2 * f, f + made(kt, rows, t * rows), f + kt * rows**2 + made(kt, columns, t * columns)]
    small = kt * (rows**2 + columns**2)
    if config.temporal:
        moments.append(f + small + made(config.kt, config.ts, config.ts))
        small += config.kt * config.ts**2
        moments.append(small + inner + applied(config.kt, config.ts, t, 1))
    transposed_q = kt * columns**2 if columns > 1 else 0
    moments.append(small + applied(kt, rows, height, t))
    moments.append(small + inner + applied(kt, columns, width, t, transposed_q))
    return max(base + max(moments), 3 * d * shape.positions + c * shape.positions)
