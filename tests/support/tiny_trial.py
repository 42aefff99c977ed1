"""A trial of seconds, but for its recipe: what several processes train together in the tests."""

from __future__ import annotations

from typing import Any

SPEC: dict[str, Any] = {
    "workload": {"name": "digits", "train_clips": 96, "validation_clips": 40, "still_images": 128},
    "backbone": {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": 10, "channels": 1},
    "block": {"name": "nl"},
    "insertion": {"res3": [0]},
    "protocol": {"name": "centre", "batch": 16},
    "seed": 0,
}
