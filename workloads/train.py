"""Train and evaluate one trial: the loop, from top to bottom.

    for epoch: for step: for micro-batch: forward, backward; optimizer step; then validation and a checkpoint

Nothing here knows a workload, a backbone or a block. Clips come from a `ClipSource`, steps are run by an `Engine`.

Why a trial resumes to the same bits without stored random states: the order of clips is a function of (seed, epoch),
and torch's generator is seeded anew in every step from (seed, step). The learning rate is a function of the step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from workloads import checkpoints
from workloads.backbones.base import Backbone
from workloads.backbones.model import build_model
from workloads.cache import content_key
from workloads.clips import Batch, ClipSource, Indices
from workloads.engine import learning_rates, micro_batches, open_engine, world_size
from workloads.evaluate import Evaluation, evaluate
from workloads.features import FrozenFeatures
from workloads.frozen_stages import cut, freeze_stages, train_mode
from workloads.measure import measure
from workloads.memory import PeakMemory
from workloads.progress import CheckpointWritten, Diverged, EpochDone, Finished, Progress, Stopped
from workloads.protocols import Protocol
from workloads.recipes import Recipe
from workloads.reproducible import reproducible, seed_for, seed_torch
from workloads.schedule import lr_factor
from workloads.spec import ModelSpec, RunContext, TrialSpec
from workloads.starting import load_start, note

_LOOK_EVERY = 20  # steps between looks at the loss, which make a GPU wait, and agreements between processes

Initialise = Callable[[Backbone[Any]], None]


def train(
    spec: TrialSpec, context: RunContext, source: ClipSource, *, initialise: Initialise | None = None
) -> Iterator[Progress]:
    """Train the model of `spec` on `source`, from the newest checkpoint in `context.checkpoint_dir` if there is one.

    Args:
        spec: what to train.
        context: where and how.
        source: the workload's clips.
        initialise: loads pre-trained weights into the fresh model, once.

    Yields:
        `EpochDone` and `CheckpointWritten` per epoch, `CheckpointWritten` within long epochs, `Finished` at the end.

    Raises:
        Diverged: the loss is not finite or above the recipe's bound.
        Stopped: `context.stop` said so; a checkpoint is written.
        BadData: `source` could not read too many clips.
        ValueError: spec, source and context do not go together.
    """
    device = torch.device(context.device)
    last = min(spec.recipe.epochs, context.pause_after or spec.recipe.epochs)
    # Between two yields somebody else's code runs: torch's settings are theirs then.
    with reproducible(device, context.threads):
        trial = _Trial(spec, context, source, initialise)
    while trial.epoch < last:
        with reproducible(device, context.threads):
            done = trial.advance()
        if done is not None:
            yield done  # before its checkpoint: a later attempt that starts behind this epoch cannot tell of it
        with reproducible(device, context.threads):
            saved = trial.save()
        yield saved
    if last < spec.recipe.epochs:
        return
    with reproducible(device, context.threads):
        finished = trial.finish()
    yield finished


class _Trial:
    """A trial on its way. All processes of a trial hold one each and do the same things in the same order."""

    def __init__(self, spec: TrialSpec, context: RunContext, source: ClipSource, initialise: Initialise | None) -> None:
        self.spec, self.context, self.recipe = spec, context, spec.recipe.at(0)
        self.device = torch.device(context.device)
        self.memory = PeakMemory(self.device)
        fresh, self.started = _fresh_model(spec, initialise)
        self.model = fresh.to(self.device)
        freeze_stages(self.model, self.recipe.freeze)
        network, self.source = _behind_frozen_layers(self.model, spec, source, context)
        self.batch = min(self.recipe.batch, source.train_clips)
        self.steps = source.train_clips // self.batch
        share = -(-self.batch // world_size())
        self.micro_batch = -(-share // self._parts(share, bound=context.micro_batch))
        self.engine = open_engine(
            self.model, network, self.recipe, batch=self.batch, micro_batch=self.micro_batch, context=context
        )
        self.epoch = self.step = 0
        self.sums = _Sums(self.device)
        self.seconds = {"train_seconds": 0.0, "eval_seconds": 0.0}
        self.train_loss = float("nan")
        self.last: Evaluation | None = None
        self.saved_at = perf_counter()
        self._resume()

    def advance(self) -> EpochDone | None:
        """Train to the end of the epoch, or to where a checkpoint within it is due: None. A checkpoint is to follow."""
        started = perf_counter()
        self._adopt(self.spec.recipe.at(self.epoch))
        train_mode(self.model, self.recipe.freeze)
        steps = self._micro_batches()
        batches = self.source.training(self.epoch, [part for parts in steps for part in parts])
        for parts in steps:
            if self._agreed(self.context.stop()):
                self._stop(started)
            self._optimizer_step(batches, len(parts))
            self.step += 1
            if self.step % _LOOK_EVERY == 0:
                self._check_divergence()
            if self.step < self.steps and self._agreed(self._checkpoint_is_due()):
                self._count("train_seconds", started)
                return None
        self._check_divergence()
        self._count("train_seconds", started)
        return self._end_epoch(started)

    def save(self) -> CheckpointWritten:
        """Write where the trial stands; a later attempt goes on from there."""
        tensors = {**self.engine.state(), "sums": self.sums.values, "highest": self.sums.highest}
        path = checkpoints.path_of(self.context.checkpoint_dir, self.epoch * self.steps + self.step)
        if self.engine.rank == 0:
            values = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "train_loss": self.train_loss}
            checkpoints.save(path, tensors, {"trial": _identity(self.spec, self.epoch, self.step), **values})
        self.saved_at = perf_counter()
        return CheckpointWritten(self.epoch - 1, path)

    def finish(self) -> Finished:
        """The last evaluation, under the spec's protocol, and measurements of the trained model."""
        protocol = self.spec.protocol
        if self.last is None or not protocol.same_views(protocol.curve()):
            self.last = self._evaluate(protocol)
        with self.engine.evaluating():
            latency = _latency_ms(self.model, self.spec, self.device)
        metrics = {**self.last.metrics(), "train_loss": self.train_loss, **self.seconds, **self.memory.read()}
        return Finished(metrics, self.last.predictions(self.source), {"latency_ms": latency}, self._notes())

    def _adopt(self, recipe: Recipe) -> None:
        """Train by `recipe` from here on."""
        if recipe != self.recipe:
            self.recipe = recipe
            self.engine.adopt(recipe)
            self.model.dropout.p = recipe.dropout or self.spec.backbone.dropout

    def _optimizer_step(self, batches: Iterator[Batch], micro_batches: int) -> None:
        """One step on the effective batch; its loss is the mean over the batch, however that is divided."""
        at = self.epoch * self.steps + self.step
        seed_torch(seed_for(self.spec.seed, "step", at, self.engine.rank), self.device)
        for number in range(1, micro_batches + 1):
            batch = next(batches)
            labels = batch.labels.to(self.device)
            scores = self.engine.forward(batch.inputs.to(self.device))
            loss = cross_entropy(scores, labels, reduction="sum", label_smoothing=self.recipe.label_smoothing)
            self.engine.backward(loss / self.batch, last=number == micro_batches)
            self.sums.add(loss.detach(), scores.detach(), labels)
        self.engine.step(lr_factor(self.recipe, at, self.steps))

    def _micro_batches(self) -> list[list[Indices]]:
        """This process's clips for each step that is left of the epoch, one list of micro-batches per step."""
        order = np.random.default_rng(seed_for(self.spec.seed, "order", self.epoch)).permutation(
            self.source.train_clips
        )
        rank, world = self.engine.rank, self.engine.world
        mine = [order[at : at + self.batch][rank::world] for at in range(0, self.steps * self.batch, self.batch)]
        count = self._parts(len(mine[0]), bound=self.micro_batch)
        return [np.array_split(clips, count) for clips in mine[self.step :]]

    def _parts(self, clips: int, *, bound: int | None) -> int:
        return micro_batches(clips, bound=bound, least=self.spec.block.least_clips)

    def _end_epoch(self, started: float) -> EpochDone:
        loss_sum, correct, clips = self.engine.total(self.sums.values).tolist()
        self.train_loss = loss_sum / clips
        self.last = self._evaluate(self.spec.protocol.curve())
        metrics = {"train_loss": self.train_loss, "train_top1_percent": 100 * correct / clips, **self.last.metrics()}
        done = EpochDone(self.epoch, metrics, perf_counter() - started)
        self.epoch, self.step, self.sums = self.epoch + 1, 0, _Sums(self.device)
        return done

    def _evaluate(self, protocol: Protocol) -> Evaluation:
        started = perf_counter()
        found = evaluate(self.engine, self.source, protocol, self.spec.backbone.classes)
        self._count("eval_seconds", started)
        return found

    def _check_divergence(self) -> None:
        highest = self.engine.total(self.sums.highest).item() / self.engine.world
        if not highest <= self.recipe.divergence:  # NaN compares false
            raise Diverged(
                f"training loss {highest:g} in epoch {self.epoch}, at or before step {self.step} of {self.steps}; "
                f"the recipe's bound is {self.recipe.divergence:g}"
            )

    def _agreed(self, wish: bool) -> bool:
        """Whether any process wishes it; several processes ask each other only now and then."""
        if self.engine.world == 1:
            return wish
        if self.step % _LOOK_EVERY:
            return False
        return self.engine.total(torch.tensor(float(wish), device=self.device)).item() > 0

    def _checkpoint_is_due(self) -> bool:
        limit = self.context.checkpoint_seconds
        return limit is not None and perf_counter() - self.saved_at > limit

    def _stop(self, started: float) -> NoReturn:
        self._count("train_seconds", started)
        raise Stopped(f"stopped in epoch {self.epoch} after step {self.step}; resumes from {self.save().path}")

    def _count(self, what: str, started: float) -> None:
        self.seconds[what] += perf_counter() - started

    def _resume(self) -> None:
        found = checkpoints.newest(self.context.checkpoint_dir)
        if found is None:
            return
        if found.values["trial"] != _identity(self.spec, found.values["epoch"], found.values["step"]):
            raise ValueError(
                f"{self.context.checkpoint_dir} holds checkpoints of another trial: give each trial a folder of its own"
            )
        self.epoch, self.step = found.values["epoch"], found.values["step"]
        self.seconds, self.train_loss = found.values["seconds"], found.values["train_loss"]
        self.sums.values.copy_(found.tensors.pop("sums"))
        self.sums.highest.copy_(found.tensors.pop("highest"))
        self.engine.load(found.tensors)

    def _notes(self) -> tuple[str, ...]:
        notes = [*self.started, *self.source.notes()]
        if self.recipe.lr_scale != 1.0:
            rates = ", ".join(f"{name} {rate:g}" for name, rate in learning_rates(self.spec.recipe).items())
            notes.append(
                f"batch {self.recipe.batch} is not the recipe's {self.recipe.lr_batch}: "
                f"learning rates were scaled linearly by {self.recipe.lr_scale:g} ({rates})"
            )
        for change in self.spec.recipe.changes:
            values = ", ".join(f"{name} {value:g}" for name, value in change.values.items())
            notes.append(f"from epoch {change.epoch} (0-based) on: {values}")
        if self.batch != self.recipe.batch:
            notes.append(f"only {self.batch} training clips: every step saw all of them, not {self.recipe.batch}")
        return tuple(notes)


class _Sums:
    """What an epoch adds up on the device.

    Attributes:
        values: `[3]`: loss summed over clips, correct clips, clips.
        highest: the highest mean loss of a micro-batch; NaN once there was one.
    """

    def __init__(self, device: torch.device) -> None:
        self.values = torch.zeros(3, dtype=torch.float64, device=device)
        self.highest = torch.full((), -torch.inf, device=device)

    def add(self, loss: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Take in a micro-batch with its summed loss."""
        correct = (scores.argmax(dim=1) == labels).sum()
        self.values += torch.stack([loss, correct, torch.full_like(loss, len(labels))])
        self.highest = torch.maximum(self.highest, loss / len(labels))


def _fresh_model(spec: TrialSpec, initialise: Initialise | None) -> tuple[Backbone[Any], tuple[str, ...]]:
    """The model before the first step, and where its weights are from.

    It is a function of the spec, its seed, and the pre-trained weights; the spec's own come last.
    """
    seed_torch(seed_for(spec.seed, "init"), torch.device("cpu"))
    model = build_model(_with_dropout(spec))
    if initialise is not None:
        initialise(model)
    if spec.start is None:
        return model, ()
    return model, (note(load_start(model, spec.start), spec.start),)


def _with_dropout(spec: TrialSpec) -> ModelSpec:
    """The recipe's dropout takes the place of the backbone's."""
    if not spec.recipe.dropout:
        return spec.model
    backbone = spec.backbone.model_copy(update={"dropout": spec.recipe.dropout})
    return spec.model.model_copy(update={"backbone": backbone})


def _behind_frozen_layers(
    model: Backbone[Any], spec: TrialSpec, source: ClipSource, context: RunContext
) -> tuple[nn.Module, ClipSource]:
    """The network to train and its inputs: from the frozen features on, where every epoch shows the same clips."""
    protocol = spec.protocol
    if not (spec.recipe.freeze and source.key and protocol.same_views(protocol.curve())):
        return model, source
    front, behind = cut(model, spec.recipe.freeze)
    model.eval()
    return behind, FrozenFeatures(
        source, front, protocol, folder=context.cache_dir / "features", device=torch.device(context.device)
    )


def _latency_ms(model: nn.Module, spec: TrialSpec, device: torch.device) -> tuple[float, ...]:
    """Raw times of single clips, up to 20, fewer where that would take longer than half a second.

    Other trials may share the machine: comparisons of speed belong to `longrange profile`, which has it to itself.
    """
    backbone = spec.backbone
    clip = torch.zeros(1, backbone.channels, backbone.frames, backbone.size, backbone.size, device=device)
    once = measure(model, clip, warmup=1, samples=1).latency_ms[0]
    samples = max(1, min(20, round(500 / once)))
    return measure(model, clip, warmup=0, samples=samples).latency_ms


def _identity(spec: TrialSpec, epoch: int, step: int) -> str:
    """What must agree between a checkpoint and the trial that resumes it; engines share the format.

    Changes of the recipe that come later do not count: trials that differ in those alone are the same up to there.
    """
    recipe = spec.recipe.until(epoch, step).model_dump(mode="json", exclude={"name", "engine", "zero_stage"})
    start = () if spec.start is None else (spec.start.sha256, spec.start.inflate)
    return content_key(spec.model.to_json(), recipe, spec.seed, *start)
