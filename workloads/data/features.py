"""Frame features as clips: reading them, the network that starts from them, and the workload. See `features_config`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from workloads import protocols
from workloads.backbones.base import Backbone, Chain, TakesBlocks
from workloads.backbones.layers import ChannelsLast
from workloads.clips import Batch, Indices
from workloads.data.annotations import Clip
from workloads.data.features_config import FrameFeaturesNet
from workloads.data.folder import Folder, FolderClips
from workloads.data.pictures import Choose, UnreadableVideo
from workloads.data.store import Store
from workloads.spec import RunContext

ARRAY = "features"


def read_features(path: Path, choose: Choose, width: int) -> NDArray[np.float32]:
    """The chosen frames' features, `[t, width]`.

    Raises:
        UnreadableVideo: no such file, no such array, another shape, or values that are not finite.
    """
    try:
        # Opened here: numpy leaves files open that turn out not to be archives.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            found = np.asarray(held[ARRAY], np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, TypeError) as error:
        raise UnreadableVideo(f"{path}: no array {ARRAY!r} can be read: {str(error).lower()}") from error
    if found.ndim != 2 or found.shape[1] != width or not len(found):
        raise UnreadableVideo(f"{path}: {ARRAY} is {list(found.shape)}, [frames, {width}] is needed")
    chosen: NDArray[np.float32] = found[choose(len(found))]
    if not np.isfinite(chosen).all():
        raise UnreadableVideo(f"{path}: {ARRAY} holds values that are not finite")
    return chosen


class FeatureHead(Backbone[FrameFeaturesNet]):
    """`[B, width, T, 1, 1]` through the block at the head, if any, to the classifier."""

    classifier_key = "fc"

    def __init__(self, config: FrameFeaturesNet) -> None:
        super().__init__(config, consensus=config.consensus)
        self.layout = ChannelsLast()
        self.fc = nn.Linear(config.channels, config.classes)

    def body(self) -> Chain:
        return {"stem": (self.layout,)}

    def residual_units(self, stage: str) -> Sequence[TakesBlocks]:
        raise AssertionError(f"only the head takes blocks, asked for {stage}")


class FeatureClips(FolderClips):
    """A `ClipSource` of features: frames are sampled as of videos; there is nothing to crop."""

    def _open_store(self, paths: Sequence[str], context: RunContext) -> Store | None:
        return None

    def _augmented(self, epoch: int, index: int) -> Tensor:
        if not self._config.augment:
            return self._views(self._train[index], protocols.Protocol())[0]
        return _as_clips(self._features(self._train[index], self._training_choice(epoch, index)), 1)[0]

    def _views(self, clip: Clip, protocol: protocols.Protocol) -> Tensor:
        if protocol.crops != "centre":
            raise ValueError(f"frame features have no {protocol.crops} crops: use protocol.crops=centre")
        return _as_clips(self._features(clip, self._view_choice(protocol)), protocol.clips)

    def _features(self, clip: Clip, choose: Choose) -> NDArray[np.float32]:
        return read_features(self._config.folder / clip.path, choose, self._config.channels)

    def _batch(self, clips: Sequence[Tensor], labels: Indices, indices: Indices) -> Batch:
        return Batch(torch.stack(list(clips)), torch.from_numpy(labels[indices]), indices)


class Features(Folder):
    """The workload."""

    clips: ClassVar[type[FolderClips]] = FeatureClips


def _as_clips(features: NDArray[Any], views: int) -> Tensor:
    """`[views * T, width]` as `[views, width, T, 1, 1]`."""
    split = torch.from_numpy(features).unflatten(0, (views, -1))  # type: ignore[no-untyped-call]
    shaped: Tensor = split.transpose(1, 2)[..., None, None]
    return shaped
