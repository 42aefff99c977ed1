"""Clips seen through the frozen front of a network: computed once, kept on disk, read in every epoch of every trial."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from workloads import protocols
from workloads.cache import content_key, made_once
from workloads.clips import Batch, ClipSource, Indices
from workloads.frozen_stages import Before

_AT_ONCE = 256  # clips per forward pass


class FrozenFeatures:
    """A `ClipSource` whose inputs are the features of another one's clips, all in memory.

    Args:
        source: its clips must be the same in every epoch (`source.key`), its validation clips seen in one view.
        front: the frozen layers, in evaluation mode.
        protocol: of the validation clips.
        folder: where the features are kept, by content.
        device: where features are computed and held.
    """

    def __init__(
        self, source: ClipSource, front: Before, protocol: protocols.Protocol, *, folder: Path, device: torch.device
    ) -> None:
        self.key = source.key
        self.train_clips, self.names, self.labels = source.train_clips, source.names, source.labels
        self.class_names = getattr(source, "class_names", ())
        self._notes = source.notes
        name = content_key(source.key, protocol.to_json(), fingerprint(front.layers), torch.__version__)
        path = made_once(
            folder / f"features-{name}.safetensors",
            lambda aside: save_file(_all_features(source, front, protocol, device), aside),
        )
        self._held = load_file(path, device=str(device))

    def training(self, epoch: int, batches: Sequence[Indices]) -> Iterator[Batch]:
        for indices in batches:
            yield self._batch("train", indices)

    def validation(self, protocol: protocols.Protocol, batches: Sequence[Indices]) -> Iterator[Batch]:
        for indices in batches:
            batch = self._batch("validation", indices)
            yield batch._replace(inputs=batch.inputs.unsqueeze(1))

    def notes(self) -> tuple[str, ...]:
        return self._notes()

    def _batch(self, part: str, indices: Indices) -> Batch:
        at = torch.from_numpy(indices).to(self._held["train"].device)
        inputs = self._held[part].index_select(0, at).permute(0, 4, 1, 2, 3)
        return Batch(inputs, self._held[f"{part}_labels"].index_select(0, at), indices)


def fingerprint(layers: Sequence[nn.Module]) -> str:
    """16 hex digits over what these layers compute: their structure and the values of their state."""
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(repr(layer).encode())
        for name, tensor in layer.state_dict().items():
            digest.update(name.encode() + _bytes(tensor))
    return digest.hexdigest()[:16]


def _all_features(
    source: ClipSource, front: Before, protocol: protocols.Protocol, device: torch.device
) -> dict[str, Tensor]:
    """`train` and `validation`: features `[n, T, H, W, C]`, channels last; with their labels."""
    train = source.training(0, _parts(source.train_clips))
    views = source.validation(protocol, _parts(len(source.labels)))
    one_view = (batch._replace(inputs=batch.inputs.flatten(0, 1)) for batch in views)
    return {**_features("train", train, front, device), **_features("validation", one_view, front, device)}


@torch.no_grad()
def _features(part: str, batches: Iterator[Batch], front: Before, device: torch.device) -> dict[str, Tensor]:
    maps, labels = [], []
    for batch in batches:
        maps.append(front(batch.inputs.to(device)).permute(0, 2, 3, 4, 1).contiguous().cpu())
        labels.append(batch.labels)
    return {part: torch.cat(maps), f"{part}_labels": torch.cat(labels)}


def _parts(clips: int) -> list[np.ndarray[Any, np.dtype[np.int64]]]:
    return np.array_split(np.arange(clips), -(-clips // _AT_ONCE))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
