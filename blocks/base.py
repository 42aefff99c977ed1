"""What every long-range block promises: the contract the registry, the plan and the contract suite rely on.

A block maps a feature map to a feature map of the same shape, ``[B, C, T, H, W] -> [B, C, T, H, W]``, and lets every
position see positions far away. It is built for the map it is inserted at (`Shape`, without the batch axis) but runs
on any batch size, and on other map sizes unless its docstring says otherwise. What it cannot take is a ValueError that
says what was given, what is allowed and what to change. (No exception leaves a graph of `torch.compile` with
`fullgraph=True`: dynamo raises its own error there, which quotes the sentence as `raised exception ValueError(...)`.)

Each block is one file for one paper: its frozen config lives in `blocks.configs` (readable without torch, so that
plans are fast), its module and its closed-form cost live together in the block's own file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from blocks.checks import no_clips
from blocks.configs import BlockConfig, Shape

ConfigT = TypeVar("ConfigT", bound=BlockConfig)

Position = tuple[int, int, int]


@dataclass(frozen=True)
class Cost:
    """What one forward pass of one clip (batch of one) costs, by the block's definition.

    Attributes:
        macs: executed multiply-accumulates, attention products included (1 MAC = 2 FLOPs).
        params: learnable parameters.
        peak_activation_elements: the largest sum of tensor elements that the plain (reference) evaluation holds at
            one moment, input and output included, without gradients.
        product_macs: the part of `macs` spent in products of two activations (attention), which the module hooks
            behind the published numbers cannot see.
    """

    macs: int
    params: int
    peak_activation_elements: int
    product_macs: int = 0


class Block(nn.Module, ABC, Generic[ConfigT]):
    """Base class of all long-range blocks.

    Args:
        config: the frozen choices of this block.
        shape: the map it is inserted at, `(channels, frames, height, width)`.

    Raises:
        ValueError: the config does not fit the shape; the message lists every problem.
    """

    identity_at_start: ClassVar[bool] = False

    def __init__(self, config: ConfigT, shape: Shape) -> None:
        super().__init__()
        problems = _no_shape(shape) or config.problems(shape)
        if problems:
            raise ValueError(f"block {config.name!r} cannot be inserted at {shape}: " + "; ".join(problems))
        self.config: ConfigT = config
        self.shape = shape
        self.register_forward_pre_hook(_refuse_other_maps)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, C, T, H, W]` to the same shape."""

    @classmethod
    @abstractmethod
    def closed_form(cls, config: Any, shape: Shape) -> Cost:
        """The cost of this block for one clip of `shape`, as a formula; equals what really runs."""

    def cost(self, shape: Shape | None = None) -> Cost:
        """`closed_form` for this block's config at `shape` (default: the shape it was built for)."""
        return self.closed_form(self.config, shape or self.shape)

    def problems(self, shape: Shape) -> list[str]:
        """Why this block's config does not fit `shape`; empty if it does."""
        return self.config.problems(shape)

    def attention(self, x: Tensor, position: Position) -> Tensor | None:
        """How strongly each position of one clip feeds the output at `position = (t, h, w)`.

        Args:
            x: `[B, C, T, H, W]`.
            position: the reference position `(t, h, w)`, 0-based.

        Returns:
            `[B, G, T, H, W]`, one map per group, head or scale, never formed through the N x N map;
            None for blocks without a spatial attention map.
        """
        return None

    @property
    def signed_attention(self) -> bool:
        """Whether attention maps may be negative; False is a promise that they are not."""
        return getattr(self.config, "affinity", None) == "dot_product"

    def asked(self, x: Tensor, position: Position) -> Position:
        """`position`, once it is sure to lie in the maps of `x` and these to be maps of this block.

        Raises:
            ValueError: it does not; a negative number does not count from the end.
        """
        problems = no_clips(x.shape, self.shape.channels)
        if not problems and not all(0 <= at < size for at, size in zip(position, x.shape[2:], strict=True)):
            inside = " x ".join(map(str, x.shape[2:]))
            problems = [f"position (t, h, w) must lie in the {inside} map, counted from 0, given {tuple(position)}"]
        self._refuse(problems)
        return position

    def _refuse(self, problems: list[str]) -> None:
        for problem in problems:  # not joined: dynamo cannot, and a compiled model's error would not say it
            raise ValueError(f"block {self.config.name!r}: {problem}")

    def extra_repr(self) -> str:
        return f"{self.config}, shape={tuple(self.shape)}"


def _no_shape(shape: Shape) -> list[str]:
    if isinstance(shape, Shape) and min(shape) >= 1:
        return []
    return ["it needs a Shape(channels, frames, height, width) of whole numbers from 1 on"]


def _refuse_other_maps(block: Block[Any], given: tuple[Any, ...]) -> None:
    """Runs before every forward pass: PyTorch would name the layer that failed, or compute something else."""
    if given:
        x = given[0]
        block._refuse(no_clips(x.shape, block.shape.channels) or _too_few_to_train_on(block, x))


def _too_few_to_train_on(block: Block[Any], x: Tensor) -> list[str]:
    """Why batch statistics cannot be taken of `x`; empty if they can or need not."""
    least = block.config.least_clips
    if block.training and x.shape[0] < least:
        need = f"training needs at least {least} clips per device at once, given {x.shape[0]}"
        return [f"{need}; use a micro-batch of {least} or more"]
    if block.training and x.numel() == x.shape[1] and any(isinstance(part, _BatchNorm) for part in block.modules()):
        need = "training needs at least 2 values per channel for its BatchNorm, given 1 clip of 1 position"
        return [f"{need}; use a micro-batch of 2 or more, or a larger map"]
    return []
