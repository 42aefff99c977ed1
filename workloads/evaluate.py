"""Scores of the validation clips under a protocol."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workloads import metrics, protocols
from workloads.clips import ClipSource, Indices
from workloads.engine import Engine
from workloads.progress import Predictions


class Evaluation(NamedTuple):
    """Averaged scores of the clips that could be read.

    Attributes:
        indices: `[n]` positions in the source's list, rising.
        labels: `[n]`.
        scores: `[n, classes]` probabilities.
    """

    indices: Indices
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    def metrics(self) -> dict[str, float]:
        """What learning curves and results show."""
        return metrics.summary(self.scores, self.labels)

    def predictions(self, source: ClipSource) -> Predictions:
        """For the ledger."""
        names = tuple(source.names[index] for index in self.indices)
        named = tuple(getattr(source, "class_names", ()))
        return Predictions(names, self.labels, self.scores.astype(np.float16), named)


@torch.no_grad()
def evaluate(engine: Engine, source: ClipSource, protocol: protocols.Protocol, classes: int) -> Evaluation:
    """Score every validation clip; several processes share the work and all get the result.

    Args:
        engine: holds the network.
        source: the clips.
        protocol: views, averaging, clips per forward pass.
        classes: number of scores per clip.
    """
    clips = len(source.labels)
    scores = torch.zeros(clips, classes, device=engine.device)
    seen = torch.zeros(clips, device=engine.device)
    mine, extra = _share(clips, max(1, protocol.batch // protocol.views), engine)
    with engine.evaluating() as network:
        for turn, batch in enumerate(source.validation(protocol, mine)):
            averaged = _averaged(network, batch.inputs.to(engine.device), protocol)
            if turn < len(mine) - extra:
                at = torch.from_numpy(batch.indices).to(engine.device)
                scores[at], seen[at] = averaged, 1.0
    scores, seen = engine.total(scores).cpu(), engine.total(seen).cpu()
    indices = seen.nonzero().flatten().numpy()
    return Evaluation(indices, source.labels[indices], scores.numpy()[indices])


def _share(clips: int, batch: int, engine: Engine) -> tuple[list[Indices], int]:
    """This process's batches, and how many at their end are there only to keep pace with the other processes.

    Partitioned networks gather their weights in every forward pass, so all processes must make equally many.
    """
    batches = np.array_split(np.arange(clips), -(-clips // batch))
    mine = batches[engine.rank :: engine.world]
    extra = -(-len(batches) // engine.world) - len(mine)
    return [*mine, *batches[:1] * extra], extra


def _averaged(network: nn.Module, views: Tensor, protocol: protocols.Protocol) -> Tensor:
    """Probabilities `[b, classes]` of clips `[b, views, C, T, H, W]`."""
    logits: Tensor = network(views.flatten(0, 1)).float().unflatten(0, views.shape[:2])
    if protocol.average == "logits":
        return logits.mean(dim=1).softmax(dim=-1)
    return logits.softmax(dim=-1).mean(dim=1)
