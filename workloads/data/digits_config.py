"""Digit recall, the embedded workload: a clip whose label no single frame tells. No torch here.

A clip has four 16x16 frames in random order. Two **pair** frames show a key digit on the left and a value digit on
the right; two **query** frames show one key alone. The label is the value that stands beside the queried key. Digits
are real scans (scikit-learn's bundled data set), each drawn independently; motion and layout are made up.

A network that adds up per-frame scores is bounded at 75 % for two keys: for two values x and y, the four cases (which
key has which value, which key is asked) need one sum of per-frame terms to be both positive and negative. About 50 %
(guess one of the two values) is what training finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from workloads.registry import WorkloadConfig

if TYPE_CHECKING:
    from workloads.backbones.config import BackboneConfig
    from workloads.protocols import Protocol
    from workloads.registry import Workload

FRAMES, SIZE, CLASSES, CHANNELS = 4, 16, 10, 1


class DigitsConfig(WorkloadConfig):
    """Digit recall with two keys: the quickstart's workload.

    Attributes:
        keys: how many digits serve as keys; two of them are in each clip.
        train_clips: number of training clips.
        validation_clips: number of validation clips.
        seed: of the training clips; validation clips have the next one.
        validation_scans: which end of the 1797 scans validation draws from: 597 `last` or `first` ones.
        still_images: single frames of the pre-training, which every trial starts from; 0 for none.
        still_seed: of the pre-training: its weights, its images, their order.
    """

    title: ClassVar[str] = "Digit recall: which value stood beside the queried key?"
    caveat: ClassVar[str] = (
        "Made-up clips of real digit scans. They test whether a block carries content between frames, and one global "
        "context vector is enough for that: nothing here is evidence about video recognition, or that attention "
        "between all pairs of positions is needed. The recipe was tuned with non-local blocks at res3, so "
        "differences among blocks favour those; blocks first sit near 50 % and then jump, so look at every seed."
    )

    name: str = "digits"
    keys: int = Field(2, ge=2, le=10)
    train_clips: int = Field(4000, ge=1)
    validation_clips: int = Field(1500, ge=1)
    seed: int = Field(1, ge=0)
    validation_scans: Literal["last", "first"] = "last"
    still_images: int = Field(16000, ge=0)
    still_seed: int = Field(0, ge=0)

    @property
    def classes(self) -> int:
        return CLASSES

    @property
    def channels(self) -> int:
        return CHANNELS

    def clips(self) -> tuple[int, int]:
        return self.train_clips, self.validation_clips

    def defaults(self) -> dict[str, Any]:
        shape = {"frames": FRAMES, "size": SIZE, "classes": CLASSES, "channels": CHANNELS}
        return {
            "backbone": {"name": "resnet_tiny", **shape},
            "recipe": {"name": "quick"},
            "protocol": {"name": "centre"},
        }

    def misfits(self, backbone: BackboneConfig, protocol: Protocol) -> list[str]:
        wrong = super().misfits(backbone, protocol)
        for name, given, needed in (("frames", backbone.frames, FRAMES), ("size", backbone.size, SIZE)):
            if given != needed:
                wrong.append(f"backbone.{name}={given}, but the clips of {self.name} have {name} {needed}")
        if not protocol.same_views(protocol.curve()):
            wrong.append(f"{self.name} has one view per clip: use protocol 'centre', given {protocol.name!r}")
        return wrong

    def open(self) -> Workload:
        from workloads.data.digits import Digits

        return Digits(self)


class DigitsHardConfig(DigitsConfig):
    """Digit recall with three keys, two of them in each clip: separates the blocks more."""

    title: ClassVar[str] = "Digit recall with three keys"

    name: str = "digits-hard"
    keys: int = Field(3, ge=2, le=10)
