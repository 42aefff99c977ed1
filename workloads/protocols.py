"""How a model is evaluated: clips x crops x frames, how scores are averaged, and the named protocols. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from workloads.frozen import Frozen


class Protocol(Frozen):
    """One evaluation protocol.

    Attributes:
        name: the preset's name; changes nothing.
        clips: clips per video, spread uniformly over time.
        crops: `centre` (1), `three` (3 along the longer side), `full` (fully convolutional on the whole frame).
        size: side of the crop in pixels; None is the backbone's input size.
        average: scores of views are averaged after (`softmax`) or before (`logits`) the softmax.
        batch: clips per forward pass; changes nothing but memory.
    """

    name: str = "centre"
    clips: int = Field(1, ge=1)
    crops: Literal["centre", "three", "full"] = "centre"
    size: int | None = Field(None, ge=8)
    average: Literal["softmax", "logits"] = "softmax"
    batch: int = Field(64, ge=1)


PROTOCOLS: dict[str, Protocol] = {
    "centre": Protocol(),
}
