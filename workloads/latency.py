"""How long one clip takes: raw samples of the trained model, clip by clip, where the trial ran.

Other trials may share the machine, so these numbers describe the trial; comparisons of speed belong to
`workloads.measure`, which has the machine to itself.
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import nn

from workloads.backbones.config import BackboneConfig

_WARM_UP, _MOST, _ENOUGH_SECONDS = 3, 20, 0.5


@torch.no_grad()
def latency_ms(model: nn.Module, backbone: BackboneConfig, device: torch.device) -> tuple[float, ...]:
    """Milliseconds of forward passes of one clip each, after warm-up: up to 20, fewer where half a second is over.

    Args:
        model: in evaluation mode, on `device`.
        backbone: says what a clip is.
        device: `cpu` or a CUDA device.
    """
    clip = torch.zeros(1, backbone.channels, backbone.frames, backbone.size, backbone.size, device=device)
    samples: list[float] = []
    begun = perf_counter()
    while len(samples) < _WARM_UP + _MOST and (len(samples) <= _WARM_UP or perf_counter() - begun < _ENOUGH_SECONDS):
        started = perf_counter()
        model(clip)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        samples.append(1e3 * (perf_counter() - started))
    return tuple(samples[_WARM_UP:])
