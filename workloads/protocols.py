"""How a model is evaluated: clips x crops x frames, how scores are averaged, and the named protocols. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field

from workloads.frozen import Frozen


class Protocol(Frozen):
    """One evaluation protocol.

    Attributes:
        name: the preset it started from, `custom` for none; changes nothing.
        clips: clips per video, spread uniformly over time.
        crops: `centre` (1), `three` (3 along the longer side), `full` (fully convolutional on the whole frame).
        size: side of the crop in pixels (`full`: of the frame's shorter side); None is the backbone's input size.
        frames: frames per clip; None is the backbone's. Segment models (TSN) are tested on more than they train on.
        average: scores of views are averaged after (`softmax`) or before (`logits`) the softmax.
        batch: clips per forward pass; changes nothing but memory.
    """

    name: str = "custom"
    clips: int = Field(1, ge=1)
    crops: Literal["centre", "three", "full"] = "centre"
    size: int | None = Field(None, ge=8)
    frames: int | None = Field(None, ge=1)
    average: Literal["softmax", "logits"] = "softmax"
    batch: int = Field(64, ge=1)

    @property
    def views(self) -> int:
        """Views per video."""
        return self.clips * (3 if self.crops == "three" else 1)

    def curve(self) -> Protocol:
        """The one centre view that learning curves are made of, in place of a protocol of many views."""
        return Protocol(name="centre", average=self.average, batch=self.batch)

    def same_views(self, other: Protocol) -> bool:
        """Whether both give the same scores."""
        changes_nothing = {"name", "batch"}
        return self.model_dump(exclude=changes_nothing) == other.model_dump(exclude=changes_nothing)


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(),
        # "A single, spatially center-cropped clip": RNL's ablations, BAT's clip accuracy, ImageNet.
        Protocol(name="centre"),
        # Three crops of 256 x 256, fully convolutional in space; RNL on Something-Something.
        Protocol(name="views_2x3", clips=2, crops="three", size=256),
        # RNL and BAT on Kinetics.
        Protocol(name="views_10x3", clips=10, crops="three", size=256),
        # HG-NL's test phase: one frame from each of 25 segments, centre crop (TSN itself adds corners and flips).
        Protocol(name="segments_25", frames=25, average="logits"),
        # The whole frame, shorter side 256.
        Protocol(name="full", crops="full", size=256),
    )
}


def parse_protocol(given: Any) -> Protocol:
    """A protocol from `{"name": ..., **fields}` or a bare name; the named preset fills what is not given.

    Raises:
        ValueError: unknown preset or field, or wrong type.
    """
    if isinstance(given, Protocol):
        return given
    fields = {"name": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping):
        raise ValueError(f"a protocol is a name or a mapping, given {given!r}; known: {', '.join(PROTOCOLS)}")
    name = fields.get("name", "custom")
    if not isinstance(name, str) or name not in PROTOCOLS:
        close = get_close_matches(str(name), PROTOCOLS, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; use 'custom' and give your own values"
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}{hint}")
    return Protocol.model_validate({**PROTOCOLS[name].model_dump(), **fields})
