"""Frame features made beforehand, one `.npz` per video, and the network that starts from them. No torch here.

HG-NL sits on the frame features in front of the classifier, so everything before it can be computed once: an ablation
of it then takes minutes on a CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from workloads.backbones.config import BackboneConfig, Stage
from workloads.backbones.families import Consensus, head_stage
from workloads.data.folder_config import FolderConfig, Kind

if TYPE_CHECKING:
    from torch import nn

    from workloads.protocols import Protocol
    from workloads.registry import Workload


class FrameFeaturesNet(BackboneConfig):
    """The head of a network: blocks go on the features, `head: [0]`, then comes the classifier.

    Attributes:
        channels: features per frame.
        size: features have no height and width.
        consensus: how frames meet: `features` classifies the mean feature, `scores` averages the frames' scores,
            `max_*` takes the maximum instead.
    """

    name: str = "frame_features"
    frames: int = Field(3, ge=1)
    size: int = Field(1, ge=1, le=1)
    classes: int = Field(700, ge=2)
    channels: int = Field(2048, ge=1)
    consensus: Consensus = "features"

    def stages(self) -> dict[str, Stage]:
        return {"head": head_stage(self.channels, self.frames)}

    def build(self) -> nn.Module:
        from workloads.data.features import FeatureHead

        return FeatureHead(self)


class FrameFeaturesConfig(FolderConfig):
    """`<root>/<split>/<class>/<video>.npz`, or a list, each file with an array `features`, `[frames, width]`.

    Attributes:
        width: features per frame.
    """

    title: ClassVar[str] = "Frame features made beforehand, for blocks in front of the classifier"
    caveat: ClassVar[str] = "Only what comes after the features is trained."
    kind: ClassVar[Kind] = "features"
    needs: ClassVar[str] = "train/<class>/*.npz and val/<class>/*.npz, or a list; each with an array features"

    name: str = "frame-features"
    width: int = Field(2048, ge=1)

    @property
    def channels(self) -> int:
        return self.width

    def defaults(self) -> dict[str, Any]:
        return {
            "backbone": {"name": "frame_features"},
            "recipe": {"name": "hgnl_finetune"},
            "protocol": {"name": "segments_25"},
        }

    def misfits(self, backbone: BackboneConfig, protocol: Protocol) -> list[str]:
        wrong = super().misfits(backbone, protocol)
        if protocol.crops != "centre" or protocol.size is not None:
            wrong.append(f"frame features have no crops: use protocol.crops=centre, given protocol {protocol.name!r}")
        return wrong

    def open(self) -> Workload:
        from workloads.data.features import Features

        return Features(self)
