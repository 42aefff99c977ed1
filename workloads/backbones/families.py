"""The backbone families' configs and presets; owned by the backbone author."""

from __future__ import annotations

from workloads.backbones.config import BackboneConfig

PRESETS: dict[str, BackboneConfig] = {}
