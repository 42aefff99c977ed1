"""Plain PyTorch: one CPU, one GPU, or one process per device with gradients averaged between them (DDP)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import HashStore
from torch.nn.parallel import DistributedDataParallel

from workloads.average import Average
from workloads.engine import AUTOCAST, make_optimizer, set_learning_rates, set_recipe, world_size
from workloads.recipes import Recipe
from workloads.rendezvous import join


class PlainEngine:
    """See `workloads.engine.Engine`.

    Args:
        model: the whole network, on `device`; its names are those of the checkpoint.
        network: what maps the loop's inputs to scores; `model` or the part of it behind the frozen layers.
        recipe: optimizer, precision, averaging, clipping.
        device: where it runs.
    """

    def __init__(self, model: nn.Module, network: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.device, self.world, self.rank = device, world_size(), 0
        if self.world > 1:
            self.rank = join_group(device)
        self._model, self._network = model, network
        self._parallel = DistributedDataParallel(network) if self.world > 1 else network
        self._optimizer = make_optimizer(model, recipe, fused=True)
        self._trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        self._clip = recipe.clip_grad_norm
        self._dtype = AUTOCAST.get(recipe.precision)
        self._scaler = torch.amp.GradScaler(device.type) if recipe.precision == "fp16" else None
        self._average = Average(model, recipe.ema) if recipe.ema is not None else None

    def forward(self, inputs: Tensor) -> Tensor:
        if self._dtype is None:
            return cast("Tensor", self._parallel(inputs))
        with torch.autocast(self.device.type, self._dtype):
            return cast("Tensor", self._parallel(inputs)).float()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        # DDP averages over processes where the loop wants the sum.
        if self.world > 1:
            loss = loss * self.world
        if self._scaler is not None:
            loss = self._scaler.scale(loss)
        with nullcontext() if last or self.world == 1 else self._parallel.no_sync():  # type: ignore[operator]
            loss.backward()  # type: ignore[no-untyped-call]

    def step(self, lr_factor: float) -> None:
        set_learning_rates(self._optimizer, lr_factor)
        if self._scaler is not None:
            self._scaler.unscale_(self._optimizer)
        if self._clip is not None:
            nn.utils.clip_grad_norm_(self._trained, self._clip)
        if self._scaler is not None:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update()

    def adopt(self, recipe: Recipe) -> None:
        set_recipe(self._optimizer, recipe)
        self._clip = recipe.clip_grad_norm

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        with evaluated(self._model, self._average, self.world):
            yield self._network

    def total(self, values: Tensor) -> Tensor:
        return summed(values, self.world)

    def state(self) -> dict[str, Tensor]:
        names: dict[Tensor, str] = {parameter: name for name, parameter in self._model.named_parameters()}
        tensors = {f"model/{name}": tensor for name, tensor in self._model.state_dict().items()}
        for parameter, kept in self._optimizer.state.items():
            tensors |= {
                f"optimizer/{names[parameter]}/{key}": value for key, value in kept.items() if value is not None
            }
        if self._average is not None:
            tensors |= {f"ema/{name}": tensor for name, tensor in self._average.weights.items()}
        if self._scaler is not None:
            kept = self._scaler.state_dict()
            tensors["scaler"] = torch.tensor([kept["scale"], kept["_growth_tracker"]], dtype=torch.float64)
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        self._model.load_state_dict(under("model", tensors))
        for name, parameter in self._model.named_parameters():
            kept = under(f"optimizer/{name}", tensors)
            if kept:
                self._optimizer.state[parameter] = {key: value.to(self.device) for key, value in kept.items()}
        if self._average is not None:
            self._average.load(under("ema", tensors))
        if self._scaler is not None:
            scale, tracker = tensors["scaler"].tolist()
            fresh = self._scaler.state_dict()
            self._scaler.load_state_dict({**fresh, "scale": scale, "_growth_tracker": int(tracker)})


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose path starts with `prefix`, without it."""
    start = prefix + "/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def join_group(device: torch.device) -> int:
    """Join the processes that `WORLD_SIZE`, `RANK` and `MASTER_ADDR` announce, unless done; this process's rank."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not distributed.is_initialized() and world_size() == 1:
        distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    elif not distributed.is_initialized():
        join(backend, world_size())
    return distributed.get_rank()


@contextmanager
def evaluated(model: nn.Module, average: Average | None, world: int) -> Iterator[None]:
    """Inside, `model` is in evaluation mode with its averages, if there are any, and equal on all processes."""
    if world > 1:
        share_buffers(model)
    model.eval()
    with average.in_place() if average is not None else nullcontext():
        if world > 1 and average is not None:
            share_buffers(model)
        yield


def share_buffers(model: nn.Module) -> None:
    """Give every process the batch statistics of the first one: each has seen its own clips only."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


def summed(values: Tensor, world: int) -> Tensor:
    """`values` summed over all processes."""
    if world > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values
