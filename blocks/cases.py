"""A block with a config and a map that fits it, as the contract suite and the tests run it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blocks.base import Block
from blocks.configs import BlockConfig, Shape

BATCH = 2


@dataclass(frozen=True)
class Case:
    """A block class with a config and a map that fits it."""

    block: type[Block[Any]]
    config: BlockConfig
    shape: Shape

    def build(
        self,
        *,
        config: BlockConfig | None = None,
        dtype: torch.dtype = torch.float64,
        scramble: bool = True,
        seed: int = 0,
    ) -> Block[Any]:
        """The block with reproducible weights; `scramble` moves them (and running statistics) off their start."""
        seed_torch(seed)
        block = self.block(config or self.config, self.shape).to(dtype)
        if scramble:
            _scramble(block)
        return block

    def clips(self, *, dtype: torch.dtype = torch.float64, shape: Shape | None = None) -> Tensor:
        """Reproducible clips `[B, C, T, H, W]`: two, or as many as training needs."""
        generator = torch.Generator().manual_seed(1)
        size = (max(BATCH, self.config.least_clips), *(shape or self.shape))
        return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)


def seed_torch(seed: int) -> None:
    """Seed what modules on the CPU draw from.

    `torch.manual_seed` also notes the caller's stack for every kind of device that is not there: milliseconds each.
    """
    torch.default_generator.manual_seed(seed)


def lively(block: nn.Module) -> None:
    """Weights that let the whole block take part, at the size of a trained network's; nothing is dropped."""
    generator = torch.Generator().manual_seed(3)
    for parameter in trainable(block).values():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    for part in block.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0


def trainable(block: nn.Module) -> dict[str, Tensor]:
    """The parameters that training changes, by name."""
    return {name: parameter for name, parameter in block.named_parameters() if parameter.requires_grad}


def _scramble(block: nn.Module) -> None:
    with torch.no_grad():
        for parameter in trainable(block).values():
            parameter.copy_(0.3 * torch.randn_like(parameter))
        for name, buffer in block.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.3 * torch.randn_like(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand_like(buffer))
