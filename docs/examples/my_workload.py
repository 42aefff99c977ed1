"""Somebody's own data and training loop as a workload: which of four corners is bright in noise?"""

from typing import ClassVar

import torch

from workloads.backbones.model import build_model
from workloads.progress import EpochDone, Finished
from workloads.registry import WorkloadConfig


class Corners(WorkloadConfig):  # noqa: D101
    name: str = "my_workload:Corners"
    classes: ClassVar[int] = 4
    channels: ClassVar[int] = 1

    def defaults(self):
        return {"backbone": {"name": "resnet_tiny", "frames": 4, "size": 16}, "recipe": {"epochs": 2}}

    def open(self):
        return self  # `prepare` and `run` below are the torch side

    def prepare(self, context): ...

    def run(self, spec, context):
        torch.manual_seed(spec.seed)
        x, y, model = torch.randn(512, 1, 4, 16, 16), torch.arange(512) % 4, build_model(spec.model)
        for row, corner in enumerate(y):
            x[row, 0].unflatten(1, (2, 8)).unflatten(3, (2, 8))[:, corner // 2, :, corner % 2] += 0.2
        optimizer = torch.optim.AdamW(model.parameters(), lr=spec.recipe.lr)
        for epoch in range(spec.recipe.epochs):
            for rows in torch.randperm(384).split(spec.recipe.batch):
                model.train().zero_grad()
                loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
            top1 = 100 * (model.eval()(x[384:]).argmax(1) == y[384:]).float().mean().item()
            yield EpochDone(epoch, {"train_loss": loss.item(), "top1_percent": top1}, seconds=0.0)
        yield Finished({"top1_percent": top1})
