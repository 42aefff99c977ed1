"""DeepSpeed: optimizer state, gradients and weights partitioned over processes (ZeRO 0-3).

Paper: Rajbhandari et al. 2020 (arXiv:1910.02054). Only DeepSpeed's stepping is used: the optimizer is ours (same
parameter groups, same defaults), its checkpoints are not (see `workloads.checkpoints`), mixed precision is torch's.

Nothing here needs a compiler: the one CPU extension that DeepSpeed would build at start, for sums in shared memory, is
declared incompatible before; gloo does the sums instead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from workloads.average import Average
from workloads.engine import make_optimizer, set_learning_rates, set_recipe, world_size
from workloads.engine_plain import evaluated, join_group, summed, under
from workloads.recipes import Recipe


def deepspeed_config(recipe: Recipe, *, batch: int, world: int, micro_batch: int) -> dict[str, Any]:
    """What DeepSpeed is told, all of it derived from the recipe.

    Args:
        recipe: the swept values.
        batch: effective batch over all processes.
        world: number of processes.
        micro_batch: clips per forward pass and process.

    Raises:
        ValueError: the batch does not divide evenly, which DeepSpeed needs.
    """
    if batch % (world * micro_batch):
        raise ValueError(
            f"engine 'deepspeed' needs a batch of processes x micro-batch x whole steps, given batch {batch}, "
            f"{world} processes, micro-batch {micro_batch}: change one of them, or use engine 'plain'"
        )
    config: dict[str, Any] = {
        "train_batch_size": batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": batch // (world * micro_batch),
        "zero_optimization": {"stage": recipe.zero_stage},
        "zero_allow_untested_optimizer": True,
        # Said also where there is none: left out, this DeepSpeed clips at 1.
        "gradient_clipping": recipe.clip_grad_norm or 0.0,
        "steps_per_print": None,
    }
    if recipe.precision == "bf16":
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    return config


class DeepSpeedEngine:
    """See `workloads.engine.Engine`.

    Args:
        model: the whole network, on `device`; its names are those of the checkpoint.
        network: what maps the loop's inputs to scores; `model` or the part of it behind the frozen layers.
        recipe: optimizer, precision, averaging, clipping, ZeRO stage.
        device: where it runs.
        batch: effective batch.
        micro_batch: clips per forward pass and process.

    Raises:
        ValueError: DeepSpeed is not installed, or cannot divide the batch.
    """

    def __init__(
        self,
        model: nn.Module,
        network: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        batch: int,
        micro_batch: int,
    ) -> None:
        self.device, self.world = device, world_size()
        self.rank = join_group(device)
        config = deepspeed_config(recipe, batch=batch, world=self.world, micro_batch=micro_batch)
        self._model, self._stage = model, recipe.zero_stage
        self._optimizer = make_optimizer(model, recipe, fused=False)
        self._average = Average(model, recipe.ema) if recipe.ema is not None else None
        self.deepspeed: Any = _initialize(network, self._optimizer, config)

    def forward(self, inputs: Tensor) -> Tensor:
        return cast("Tensor", self.deepspeed(inputs)).float()

    def backward(self, loss: Tensor, *, last: bool) -> None:
        # DeepSpeed averages over processes where the loop wants the sum, and counts micro-batches in its own `step`.
        self.deepspeed.backward(loss * self.world, scale_wrt_gas=False)
        if not last:
            self.deepspeed.step()

    def step(self, lr_factor: float) -> None:
        set_learning_rates(self._optimizer, lr_factor)
        self.deepspeed.step()
        if self._average is not None:
            self._average.update()

    def adopt(self, recipe: Recipe) -> None:
        set_recipe(self._optimizer, recipe)  # a recipe for DeepSpeed does not change the bound: see `Recipe`

    @contextmanager
    def evaluating(self) -> Iterator[nn.Module]:
        with evaluated(self._model, self._average, self.world):
            yield self.deepspeed.module

    def total(self, values: Tensor) -> Tensor:
        return summed(values, self.world)

    def state(self) -> dict[str, Tensor]:
        tensors = {f"model/{name}": buffer for name, buffer in self._model.named_buffers()}
        if self._base_state():
            self._link()
        for name, parameter in self._model.named_parameters():
            tensors[f"model/{name}"] = self._whole(parameter)
            tensors |= {f"optimizer/{name}/{key}": value for key, value in self._optimizer_state(parameter).items()}
        if self._average is not None:
            tensors |= {f"ema/{name}": tensor for name, tensor in self._average.weights.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        buffers = dict(self._model.named_buffers())
        with torch.no_grad():
            for name, value in under("model", tensors).items():
                if name in buffers:
                    buffers[name].copy_(value)
            self._load_parameters(tensors)
        if self._average is not None:
            self._average.load(under("ema", tensors))

    def _whole(self, parameter: nn.Parameter) -> Tensor:
        """The full float32 weights, whatever part of them this process holds."""
        if self._stage < 3:
            return parameter
        with _gathered([parameter]):
            return parameter.detach().clone()

    def _optimizer_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What the optimizer keeps for one parameter, in the form a plain torch optimizer has it."""
        if self._stage == 0:
            return {key: value for key, value in self._optimizer.state.get(parameter, {}).items() if value is not None}
        kept = self._base_state()
        if not kept or not parameter.requires_grad:
            return {}
        from deepspeed.utils import safe_get_full_optimizer_state

        keys = [key for key, value in kept.items() if value is not None and key != "step"]
        found = {key: safe_get_full_optimizer_state(parameter, key) for key in keys}
        return found | ({"step": kept["step"].clone()} if "step" in kept else {})

    def _load_parameters(self, tensors: dict[str, Tensor]) -> None:
        states = {name: under(f"optimizer/{name}", tensors) for name, _ in self._model.named_parameters()}
        if self._stage:
            self._allocate(next((state for state in states.values() if state), {}))
        for name, parameter in self._model.named_parameters():
            self._set_whole(parameter, tensors[f"model/{name}"])
            if self._stage == 0 and states[name]:
                self._optimizer.state[parameter] = {key: value.to(self.device) for key, value in states[name].items()}
            elif states[name]:
                self._set_optimizer_state(parameter, states[name])

    def _set_whole(self, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        value = value.to(self.device)
        with _gathered([parameter]) if self._stage == 3 else nullcontext():
            parameter.copy_(value)
        if self._stage and parameter.requires_grad:
            safe_set_full_fp32_param(parameter, value)

    def _set_optimizer_state(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        for key, value in state.items():
            if key != "step":
                safe_set_full_optimizer_state(parameter, value.to(self.device), key)

    def _allocate(self, example: dict[str, Tensor]) -> None:
        """Give the partitions the optimizer state that they otherwise get in their first step.

        DeepSpeed offers no public way; the names below are those of the pinned version, and a test resumes each stage.
        """
        zero = self.deepspeed.optimizer
        flat = zero.fp32_partitioned_groups_flat if self._stage == 3 else zero.single_partition_of_fp32_groups
        for partition in flat:
            self._base_optimizer.state[partition] = {
                key: value.clone() if key == "step" else torch.zeros_like(partition) for key, value in example.items()
            }
        self._link()

    def _link(self) -> None:
        """Let parameters find their optimizer state; DeepSpeed does so once, before the second group has any."""
        if self._stage in (1, 2):
            zero = self.deepspeed.optimizer
            zero._hp_optimizer_states_linked = False
            zero._lazy_init_hp_params_optimizer_state()

    def _base_state(self) -> dict[str, Any]:
        """What the optimizer keeps for a parameter or partition, of any of them; empty before the first step."""
        states = self._optimizer.state if self._stage == 0 else self._base_optimizer.state
        return next((state for state in states.values() if state), {})

    @property
    def _base_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer inside DeepSpeed's; it works on flat partitions."""
        return cast("torch.optim.Optimizer", self.deepspeed.optimizer.optimizer)


def _initialize(network: nn.Module, optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    try:
        import deepspeed
        from deepspeed.utils import logger
    except ImportError as error:
        raise ValueError(
            f"engine 'deepspeed' is not installed ({error}): pip install 'longrange[deepspeed]', or use engine 'plain'"
        ) from error
    logger.setLevel(logging.ERROR)
    os.environ.setdefault("LOCAL_RANK", "0")  # asked for even where processes were started by nobody it knows
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    engine, *_ = deepspeed.initialize(model=network, optimizer=optimizer, config=config, dist_init_required=False)
    return engine


def _gathered(parameters: list[nn.Parameter]) -> Any:
    """Inside, partitioned parameters are whole on every process; what is written to them on all stays."""
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0)
