"""TSM: a 2-D ResNet whose residual units see neighbouring frames through shifted channels.

Paper: Lin et al. 2019 (arXiv:1811.08383). Code consulted: none copied; keys as in its released checkpoints (see
`weights`).
Differs from the paper: nothing (residual shift, one eighth each way, zero padded, offline/bidirectional).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workloads.backbones.families import TSMConfig, UnitPlan
from workloads.backbones.resnet import ResNet, Unit


class TemporalShift(nn.Module):
    """Move channels in time: the first C / divisor come from the next frame, as many from the previous one.

    Beyond the clip's ends there are zeros. `[B, C, T, H, W]` -> the same shape; no parameter, no multiplication.
    """

    def __init__(self, divisor: int) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1] // self.divisor
        nothing = torch.zeros_like(x[:, :n, :1])
        from_next = torch.cat((x[:, :n, 1:], nothing), dim=2)
        from_previous = torch.cat((nothing, x[:, n : 2 * n, :-1]), dim=2)
        # Not by assigning slices: forward and backward then take 2.8 times as long.
        return torch.cat((from_next, from_previous, x[:, 2 * n :]), dim=1)

    def extra_repr(self) -> str:
        return f"divisor={self.divisor}"


class TSM(ResNet[TSMConfig]):
    """A ResNet with a shift before the first convolution of every residual unit; the shortcut is not shifted."""

    def make_unit(self, plan: UnitPlan, cin: int, *, stride: int, time: int) -> Unit:
        unit = super().make_unit(plan, cin, stride=stride, time=time)
        unit.shift = TemporalShift(self.config.shift_divisor)
        return unit
