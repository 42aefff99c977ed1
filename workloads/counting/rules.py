"""How the four papers counted: named counters over module hooks, in which functional operations cost nothing.

    rule                 convolution     BatchNorm       linear (k inputs)       global average pool    used by
    thop-2001            k + bias        2 per element   2k - 1 + bias           k + 1                  RNL
    thop-1909            k + bias        4 per element   2k - 1                  k + 1                  BAT
    thop-1909+matmul     the same, and 2 per MAC of products of activations                             BAT, its NL rows
    thop-2004            k + bias        2 per element   k                       1 (an AvgPool)         PNL
    hgnl                 2k - 1 + bias   0               2k - 1 + bias           0                      HG-NL, Table 2

per output element, k being the products it sums. `hgnl` also counts 2k - 1 per output of every product of activations;
the thop rules see modules only (neither attention nor functional convolutions), and ReLU and max-pool cost nothing.
`SpatialMean` is our networks' global average pool.

Paper: Lyken17/pytorch-OpCounter at the dates in the names (year and month); the HG-NL, RNL, PNL and BAT papers.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

from torch import nn

from workloads.backbones.base import SpatialMean
from workloads.counting.pieces import RULES, Rule

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
HOOKED = (*CONVOLUTIONS, *NORMS, *POOLS, nn.Linear, SpatialMean)


def hooked(network: nn.Module) -> list[nn.Module]:
    """The modules of `network` that the rules charge."""
    return [module for module in network.modules() if isinstance(module, HOOKED)]


def module_operations(module: Any, given: tuple[int, ...], made: tuple[int, ...]) -> dict[Rule, int]:
    """What each rule charges for one call of a leaf module.

    Args:
        module: one of `HOOKED`.
        given: shape of its input.
        made: shape of its output.
    """
    outputs, biased = prod(made), int(getattr(module, "bias", None) is not None)
    spread = partial(_spread, outputs)
    if isinstance(module, CONVOLUTIONS):
        k = prod(module.weight.shape[1:])
        return spread(k + biased, k + biased, k + biased, 2 * k - 1 + biased)
    if isinstance(module, NORMS):
        return spread(2, 4, 2, 0)
    if isinstance(module, nn.Linear):
        k = module.in_features
        return spread(2 * k - 1 + biased, 2 * k - 1, k, 2 * k - 1 + biased)
    k = prod(size // to for size, to in zip(given[2:], made[2:], strict=True))
    return spread(k + 1, k + 1, 1, 0)


def with_products(modules: dict[str, int], macs: int, outputs: int) -> dict[str, int]:
    """Add what `thop-1909+matmul` and `hgnl` charge for products of activations.

    Args:
        modules: rule -> operations of the hooked modules.
        macs: multiply-accumulates in products of two activations.
        outputs: elements those products wrote.
    """
    extra = {"thop-1909+matmul": 2 * macs, "hgnl": 2 * macs - outputs}
    return {rule: modules.get(rule, 0) + extra.get(rule, 0) for rule in RULES}


def _spread(outputs: int, y2001: int, y1909: int, y2004: int, hgnl: int) -> dict[Rule, int]:
    each = {"thop-2001": y2001, "thop-1909": y1909, "thop-1909+matmul": y1909, "thop-2004": y2004, "hgnl": hgnl}
    return {rule: outputs * each[rule] for rule in RULES}
