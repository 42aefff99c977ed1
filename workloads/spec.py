"""What to train: one fully resolved trial, as every stage sees it. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from blocks import BlockConfig, config_dict, parse_config
from workloads import registry
from workloads.backbones.config import BackboneConfig
from workloads.frozen import Frozen
from workloads.protocols import Protocol, parse_protocol
from workloads.recipes import Recipe, parse_recipe
from workloads.registry import WorkloadConfig
from workloads.start import Start


def _block(given: Any) -> BlockConfig:
    return given if isinstance(given, BlockConfig) else parse_config(given)


BlockField = Annotated[BlockConfig, BeforeValidator(_block), PlainSerializer(config_dict)]
BackboneField = Annotated[SerializeAsAny[BackboneConfig], BeforeValidator(registry.parse_backbone)]
WorkloadField = Annotated[SerializeAsAny[WorkloadConfig], BeforeValidator(registry.parse_workload)]
RecipeField = Annotated[Recipe, BeforeValidator(parse_recipe)]
ProtocolField = Annotated[Protocol, BeforeValidator(parse_protocol)]


class ModelSpec(Frozen):
    """A network: a backbone with one kind of block at the places `insertion` names."""

    backbone: BackboneField
    block: BlockField
    insertion: dict[str, tuple[int, ...] | Literal["all"]] = Field(default_factory=dict)


class TrialSpec(ModelSpec):
    """Everything that can change a trial's result, defaults included.

    Attributes:
        start: weights that the network starts from; None: its random initialisation, or the workload's own.
    """

    workload: WorkloadField
    recipe: RecipeField
    protocol: ProtocolField
    seed: int = Field(ge=0)
    start: Start | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_there(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Trials without starting weights keep the ids they had before there were any.
        values: dict[str, Any] = write(self)
        return {key: value for key, value in values.items() if key != "start" or value is not None}

    @property
    def model(self) -> ModelSpec:
        """The network alone."""
        return ModelSpec(backbone=self.backbone, block=self.block, insertion=self.insertion)


@dataclass(frozen=True)
class RunContext:
    """Where and how a trial runs; nothing here may change its result.

    Attributes:
        cache_dir: shared between trials and sweeps: prepared data, pre-trained weights. Writers lock and rename.
        checkpoint_dir: this trial's own folder; the newest valid checkpoint in it is resumed.
        device: `cpu`, `cuda`, `cuda:1`.
        threads: CPU threads for torch; part of bit-exactness on the CPU, so plans fix it (1 by default).
        data_workers: threads that load clips ahead; 0 loads in place.
        micro_batch: upper bound after out-of-memory decisions; gradients are accumulated to the recipe's batch.
        checkpoint_seconds: also write a checkpoint within an epoch when the last one is older; None: at its end only.
        stop: asked between steps; True means checkpoint and raise `Stopped`.
        pause_after: a run ends, without `Finished`, when so many epochs are trained and their checkpoint is written.
    """

    cache_dir: Path
    checkpoint_dir: Path
    device: str = "cpu"
    threads: int = 1
    data_workers: int = 0
    micro_batch: int | None = None
    checkpoint_seconds: float | None = None
    stop: Callable[[], bool] = lambda: False
    pause_after: int | None = None
