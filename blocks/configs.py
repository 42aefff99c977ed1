"""Every ablatable choice of every block, on one page and without torch.

A config is frozen, complete (defaults included it identifies the block) and validated when it is made. `problems`
says why a config does not fit a feature map; plans call it before anything is built. What each choice means is
defined in the block's own file, next to the equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Self

from blocks.checks import below, indivisible, too_small_to_pool, unknown_field, wrong_types

Implementation = Literal["auto", "reference"]
Kernel = tuple[int, int, int]


class InvalidChoice(ValueError):
    """Values of the right type that do not go together; in a grid of settings this is a rejection, not a typo."""


class Shape(NamedTuple):
    """A feature map without its batch axis."""

    channels: int
    frames: int
    height: int
    width: int

    @property
    def positions(self) -> int:
        """N = T * H * W."""
        return self.frames * self.height * self.width

    def __str__(self) -> str:
        return f"C={self.channels} T={self.frames} H={self.height} W={self.width}"


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """Base of all block configs. Subclasses set `name`, add fields, and override `invalid` and `problems`."""

    name: ClassVar[str] = ""
    least_clips: ClassVar[int] = 1  # at once on a device in training; 2 where a BatchNorm sees one vector per clip

    def __post_init__(self) -> None:
        wrong = wrong_types(self)
        if wrong:
            raise ValueError(f"block {self.name!r}: " + "; ".join(wrong))
        invalid = self.invalid()
        if invalid:
            raise InvalidChoice(f"block {self.name!r}: " + "; ".join(invalid))

    def invalid(self) -> list[str]:
        """What is wrong with these values whatever the feature map."""
        return []

    def problems(self, shape: Shape) -> list[str]:
        """Why this block cannot be inserted at `shape`; empty if it can."""
        return []

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """A config from plain JSON values.

        Raises:
            ValueError: unknown fields or invalid values, all of them in one message.
        """
        known = [field.name for field in fields(cls)]
        unknown = [unknown_field(key, known) for key in given if key not in known]
        if unknown:
            raise ValueError(f"block {cls.name!r}: " + "; ".join(unknown))
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


@dataclass(frozen=True, kw_only=True)
class NoneConfig(BlockConfig):
    """No block: the network as it is. The usual control."""

    name: ClassVar[str] = "none"


@dataclass(frozen=True, kw_only=True)
class NonLocalConfig(BlockConfig):
    """Non-local block (Wang et al. 2018).

    Attributes:
        affinity: the pairwise function f.
        scale: `none` as in the paper, or `sqrt`: divide theta^T phi by sqrt(width of one head) (SlowFast, BAT code).
            Only the softmax affinities can be scaled.
        heads: attention heads; each uses (C / reduction) / heads channels.
        reduction: theta, phi and g map C to C / reduction.
        sub_sample: max-pool (1, 2, 2) keys and values: `before` phi and g (SlowFast, BAT) or `after` them (RNL code).
    """

    name: ClassVar[str] = "nl"

    affinity: Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"] = "embedded_gaussian"
    scale: Literal["none", "sqrt"] = "none"
    heads: int = 1
    reduction: int = 2
    sub_sample: Literal["none", "before", "after"] = "none"
    implementation: Implementation = "auto"

    def invalid(self) -> list[str]:
        wrong = below(self, heads=1, reduction=1)
        if self.scale != "none" and self.affinity in ("dot_product", "concatenation"):
            wrong.append(f"scale={self.scale!r} is defined for the softmax affinities only, given {self.affinity!r}")
        return wrong

    def problems(self, shape: Shape) -> list[str]:
        return indivisible(shape.channels, self.reduction * self.heads, "reduction * heads") + too_small_to_pool(
            shape.height, shape.width, pooled=self.sub_sample != "none"
        )


@dataclass(frozen=True, kw_only=True)
class HGNLConfig(BlockConfig):
    """Hierarchical group-wise non-local block (iqiyi, ActivityNet 2019).

    Attributes:
        g1: groups of the 1x1 convolutions W_q and W_k (primary); a multiple of g2.
        g2: groups of W_v and of the matrix products (secondary), i.e. the number of attention maps.
        reduction: m / m1, the width of queries and keys.
        shared: one kernel and bias reused by all groups of a convolution.
        affinity: `relu` (eq. 7), or `softmax` over the values (eq. 3; with g1 = g2 = 1 the paper's NL aggregator).
        normalise: `none` (paper) or `positions`: divide the map by the number of positions.
        level: `positions` attends over all T*H*W positions; `frames` over the T spatially averaged frame features.
        start: initial value of the learnable residual scale s.
    """

    name: ClassVar[str] = "hgnl"

    g1: int = 16
    g2: int = 8
    reduction: int = 8
    shared: bool = False
    affinity: Literal["relu", "softmax"] = "relu"
    normalise: Literal["none", "positions"] = "none"
    level: Literal["positions", "frames"] = "positions"
    start: float = 0.0
    implementation: Implementation = "auto"

    def invalid(self) -> list[str]:
        wrong = below(self, g1=1, g2=1, reduction=1)
        if not wrong and self.g1 % self.g2:
            wrong.append(f"g1 must be a multiple of g2 (g1 = r * g2), given g1={self.g1}, g2={self.g2}")
        if self.affinity == "softmax" and self.normalise != "none":
            wrong.append("a softmax map is normalised already: normalise must be 'none'")
        return wrong

    def problems(self, shape: Shape) -> list[str]:
        m, m1 = shape.channels, shape.channels // self.reduction
        g1 = indivisible(m1, self.g1, "g1", multiple_of=self.g2)
        return indivisible(m, self.reduction, "reduction") or [f"m1 = {m} / {self.reduction} = {m1}: {x}" for x in g1]


@dataclass(frozen=True, kw_only=True)
class RNLConfig(BlockConfig):
    """Region-based non-local block (RNL).

    Attributes:
        affinity: the pairwise function f (eq. 5-7).
        aggregate: F_theta: channel-wise convolution, average or max pooling over the region.
        kernel: the region (time, height, width), odd; (1, 1, 1) is no aggregation.
        reduction: g maps C to C / reduction.
        sub_sample: max-pool (1, 2, 2) keys and values.
        parity: `depthwise`, or `masked_grouped`: the released code's masked grouped convolution, which computes the
            same function but stores (and so counts) more parameters. Needs aggregate `conv`.
    """

    name: ClassVar[str] = "rnl"

    affinity: Literal["gaussian", "dot_product", "cosine"] = "gaussian"
    aggregate: Literal["conv", "avg", "max"] = "conv"
    kernel: Kernel = (3, 7, 7)
    reduction: int = 2
    sub_sample: bool = False
    parity: Literal["depthwise", "masked_grouped"] = "depthwise"
    implementation: Implementation = "auto"

    def invalid(self) -> list[str]:
        wrong = below(self, reduction=1)
        if any(size < 1 or size % 2 == 0 for size in self.kernel):
            wrong.append(f"kernel sizes must be odd and positive, given {list(self.kernel)}")
        if self.parity == "masked_grouped" and self.aggregate != "conv":
            wrong.append(f"parity='masked_grouped' needs aggregate='conv', given {self.aggregate!r}")
        return wrong

    def problems(self, shape: Shape) -> list[str]:
        found = indivisible(shape.channels, self.reduction, "reduction")
        width = shape.channels // self.reduction
        if not found and self.parity == "masked_grouped" and width > 32 and width % 32:  # below 32 it is one group
            how = "use parity='depthwise', which computes the same"
            found = [f"the released code's group of 32 channels does not divide C / reduction = {width}: {how}"]
        return found + too_small_to_pool(shape.height, shape.width, pooled=self.sub_sample)


@dataclass(frozen=True, kw_only=True)
class SERNLConfig(RNLConfig):
    """Attention chain: a modified squeeze-excitation, then RNL (RNL paper, eq. 10-12).

    Attributes:
        gate_reduction: C / width of the gate's bottleneck (printed 2, counted 16).
        gate_pool: `mean` over positions (eq. 10) or `attention`: the released code's softmax-weighted pooling.
    """

    name: ClassVar[str] = "se_rnl"
    least_clips: ClassVar[int] = 2  # the gate's BatchNorm sees one vector per clip

    gate_reduction: int = 16
    gate_pool: Literal["mean", "attention"] = "mean"

    def invalid(self) -> list[str]:
        return super().invalid() + below(self, gate_reduction=1)

    def problems(self, shape: Shape) -> list[str]:
        return super().problems(shape) + indivisible(shape.channels, self.gate_reduction, "gate_reduction")


@dataclass(frozen=True, kw_only=True)
class PNLConfig(BlockConfig):
    """Pyramid non-local block (PNL).

    Attributes:
        n: number of scales; must divide the channels, and the map must survive n - 1 halvings.
        affinity: the pairwise function f.
        combine: `attention` over scales (eq. 2) or `concat`.
        share: one set of non-local weights for all scales (the paper's text) or one set each (its printed counts).
        pool: how the map is halved k times for scale k.
        ceil: round odd sizes up when halving.
        upsample: back to the full size.
        qk_reduction: the scale-attention's linear maps take C' = C / n to C' / qk_reduction.
        reduction: theta, phi and g take C' to C' / reduction.
    """

    name: ClassVar[str] = "pnl"

    n: int = 4
    affinity: Literal["embedded_gaussian", "gaussian", "dot_product", "concatenation"] = "embedded_gaussian"
    combine: Literal["attention", "concat"] = "attention"
    share: bool = True
    pool: Literal["max", "avg"] = "max"
    ceil: bool = False
    upsample: Literal["nearest", "trilinear"] = "nearest"
    qk_reduction: int = 1
    reduction: int = 2
    implementation: Implementation = "auto"

    @property
    def least_size(self) -> int:
        """Rows and columns a map needs for each of the n - 1 halvings to make it smaller, and none to empty it."""
        return (1 << self.n - 2) + 1 if self.ceil and self.n > 1 else 1 << self.n - 1

    def invalid(self) -> list[str]:
        return below(self, n=1, qk_reduction=1, reduction=1)

    def problems(self, shape: Shape) -> list[str]:
        found = indivisible(shape.channels, self.n, "n")
        if not found:
            found = indivisible(shape.channels // self.n, self.reduction, "reduction")
            if self.combine == "attention":
                found += indivisible(shape.channels // self.n, self.qk_reduction, "qk_reduction")
        smallest, least = min(shape.height, shape.width), self.least_size
        if smallest < least:
            most = (smallest - 1).bit_length() + 1 if self.ceil else smallest.bit_length()
            given = f"given {shape.height} x {shape.width}"
            found.append(f"n={self.n} scales need a map of at least {least} x {least}, {given}: use n <= {most}")
        return found


@dataclass(frozen=True, kw_only=True)
class BATConfig(BlockConfig):
    """Grouped bilinear attentional transform (BAT).

    Attributes:
        k: attention groups; 0 fixes P = Q = identity and drops the predictor.
        s: side of the small transforms P and Q (`block`, `downsampling`); unused by `full`.
        matrix: `block` expands P and Q by Kronecker products, `full` predicts them at map size,
            `downsampling` transforms a map resized to s x s.
        normalise: `l1` (eq. 2: sigmoid, then divide by the sum) or `softmax` (released video code).
        temporal: 3-D: also transform along time. False is the 2-D block, applied frame by frame.
        kt: temporal attention groups (3-D only).
        ts: side of the temporal transform M (3-D only); must divide the frames.
        reduction: D / C, the input width over the working width.
        predictor: C', the predictor's width; 0 means k, as the published counts have it.
        dropout: 0 in the paper, 0.2 in the released video code.
    """

    name: ClassVar[str] = "bat"

    k: int = 8
    s: int = 7
    matrix: Literal["block", "full", "downsampling"] = "block"
    normalise: Literal["l1", "softmax"] = "l1"
    temporal: bool = True
    kt: int = 4
    ts: int = 4
    reduction: int = 2
    predictor: int = 0
    dropout: float = 0.0
    implementation: Implementation = "auto"

    def invalid(self) -> list[str]:
        wrong = below(self, k=0, s=1, kt=1, ts=1, reduction=1, predictor=0)
        if not 0.0 <= self.dropout < 1.0:
            wrong.append(f"dropout must be in [0, 1), given {self.dropout}")
        return wrong

    def problems(self, shape: Shape) -> list[str]:
        found = indivisible(shape.channels, self.reduction, "reduction")
        if found or (self.k == 0 and self.matrix != "downsampling"):
            return found
        width = shape.channels // self.reduction
        if self.k:
            found += indivisible(width, self.k, "k")
        most = min(shape.height, shape.width)
        if self.matrix != "full" and most < self.s:
            found.append(f"s={self.s} is larger than the {shape.height} x {shape.width} map: use s <= {most}")
        if self.temporal and self.k:
            found += indivisible(width, self.kt, "kt")
            if shape.frames % self.ts:
                found.append(f"T={shape.frames} is not a multiple of ts={self.ts}: use a divisor of {shape.frames}")
        return found


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig(BlockConfig):
    """Base of blocks that squeeze C channels through C / `reduction`."""

    reduction: int = 16

    def invalid(self) -> list[str]:
        return below(self, reduction=1)

    def problems(self, shape: Shape) -> list[str]:
        return indivisible(shape.channels, self.reduction, "reduction")


@dataclass(frozen=True, kw_only=True)
class SEConfig(BottleneckConfig):
    """Squeeze-and-excitation, pooled over time and space. `reduction`: C over the bottleneck's width."""

    name: ClassVar[str] = "se"


@dataclass(frozen=True, kw_only=True)
class CBAMConfig(BottleneckConfig):
    """Convolutional block attention. `kernel`: the spatio-temporal gate's odd side."""

    name: ClassVar[str] = "cbam"

    kernel: int = 7

    def invalid(self) -> list[str]:
        wrong = super().invalid() + below(self, kernel=1)
        if self.kernel % 2 == 0:
            wrong.append(f"kernel must be odd, given {self.kernel}")
        return wrong


@dataclass(frozen=True, kw_only=True)
class GCConfig(BottleneckConfig):
    """Global context block (GCNet). `reduction`: C over the transform's width."""

    name: ClassVar[str] = "gc"

    def problems(self, shape: Shape) -> list[str]:
        found = super().problems(shape)
        if shape.channels == self.reduction:
            zero = f"leaves one of {shape.channels} channels, which LayerNorm turns into zero"
            found.append(f"reduction={self.reduction} {zero}: use a smaller reduction")
        return found


@dataclass(frozen=True, kw_only=True)
class CGNLConfig(BlockConfig):
    """Compact generalised non-local block. `groups`: channel groups of the flattened product."""

    name: ClassVar[str] = "cgnl"

    groups: int = 8
    reduction: int = 2
    implementation: Implementation = "auto"

    def invalid(self) -> list[str]:
        return below(self, groups=1, reduction=1)

    def problems(self, shape: Shape) -> list[str]:
        return indivisible(shape.channels, self.reduction * self.groups, "reduction * groups")


@dataclass(frozen=True, kw_only=True)
class CGDConfig(BlockConfig):
    """Channel-wise global dependency gate, used after the first convolution of every bottleneck."""

    name: ClassVar[str] = "cgd"
