"""Your own network and training: does a clip show exactly one of a lying bar, first frame, and a standing one, last?"""

from typing import ClassVar

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from workloads.own import OwnConfig, OwnWorkload, Place


class Net(nn.Module):  # noqa: D101
    def __init__(self, config):
        super().__init__()
        self.conv, self.place, self.fc = nn.Conv3d(3, 16, 3, (1, 2, 2), 1), Place(), nn.Linear(16, config.classes)

    def forward(self, x):
        return self.fc(self.place(self.conv(x).relu()).mean((2, 3, 4)))


class NetConfig(OwnConfig):  # noqa: D101
    name: str = "my_model:NetConfig"
    network: ClassVar = Net


class Bars(OwnWorkload):  # noqa: D101
    name: str = "my_model:Bars"
    classes: ClassVar[int] = 2

    def train(self, model, spec):
        x, bars = 0.1 * torch.randn(2048, 3, 4, 8, 8), torch.randint(2, (2048, 2))
        x[bars[:, 0] == 1, :, 0, 4] += 1
        x[bars[:, 1] == 1, :, 3, :, 4] += 1
        y, optimizer = bars.sum(1) % 2, torch.optim.AdamW(model.parameters(), lr=spec.recipe.lr)
        for rows in torch.arange(10 * 1536).remainder(1536).split(32):
            loss = cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = model.eval()(x[1536:]).argmax(1) == y[1536:]
        return {"top1_percent": 100 * right.float().mean().item()}
