"""What `ShapesOnly` leaves out changes nothing that a count sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workloads.counting.shapes import ShapesOnly


class Seen(TorchDispatchMode):
    """Every operation and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[tuple[Any, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        leaves = [(tuple(leaf.shape), leaf.dtype, leaf.stride(), leaf.device.type) for leaf in tree_leaves(out)]
        self.calls.append((str(func), leaves))
        return out


@pytest.mark.parametrize("flops", [False, True], ids=["alone", "beneath FlopCounterMode"])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_normalisation_returns_what_torch_would(
    affine: bool, training: bool, dtype: torch.dtype, memory: torch.memory_format, flops: bool
) -> None:
    def seen(*modes: TorchDispatchMode) -> Seen:
        layer = nn.BatchNorm3d(8, affine=affine, device="meta").train(training)
        x = torch.empty(2, 8, 3, 4, 4, device="meta", dtype=dtype).to(memory_format=memory)
        watch = Seen()
        modes = (*modes, watch, *([FlopCounterMode(display=False)] if flops else []))
        with torch.no_grad():
            for mode in modes:
                mode.__enter__()
            layer(x)
            for mode in reversed(modes):
                mode.__exit__(None, None, None)
        return watch

    plain = seen()
    assert any("batch_norm" in name for name, _ in plain.calls)
    assert seen(ShapesOnly()).calls == plain.calls


def test_nothing_real_is_left_out() -> None:
    def made() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)).eval()
        x = torch.randn(2, 3, 4, 5, 5)
        return layers[0].weight, layers(x)

    with torch.no_grad():
        weight, y = made()
        with ShapesOnly():
            same_weight, same_y = made()
    assert torch.equal(weight, same_weight)
    assert torch.equal(y, same_y)
    assert weight.std() > 0


def test_a_network_on_the_meta_device_is_the_same_network() -> None:
    with torch.device("meta"), ShapesOnly():
        layer = nn.Linear(3, 4)
    assert (layer.weight.shape, layer.weight.is_meta, layer.weight.requires_grad) == ((4, 3), True, True)
