"""What `longrange attention` would keep of made-up networks, in memory and as its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dashboards.attention import Seen

RNG = np.random.default_rng(0)


def seen(groups: int = 1, *, places: int = 1, clips: tuple[str, ...] = ("a", "<b>"), blind: bool = False) -> Seen:
    """Noise on the given clips, one reference point, `places` blocks of `groups` maps each; none where `blind`."""
    n = len(clips)
    maps = {f"res{3 + k}.0": RNG.random((n, 1, groups, 2, 4, 6), dtype=np.float32) for k in range(places)}
    return Seen(
        clips=clips,
        labels=np.arange(n),
        classes=("zero", "one", "two", "three"),
        frames=RNG.integers(0, 256, (n, 4, 16, 12, 1), dtype=np.uint8),
        positions=((2, 8, 9),),
        maps={} if blind else maps,
        top_classes=np.array([[0, 1, 2]] * n),
        top_scores=np.array([[0.7, 0.2, 0.1]] * n, dtype=np.float32),
    )


def keep(whole: Seen, path: Path) -> Path:
    """Write what was seen as the file that `dashboards.attention.read` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"format": 1, "clips": whole.clips, "classes": whole.classes, "positions": whole.positions}
    arrays = {name: getattr(whole, name) for name in ("labels", "frames", "top_classes", "top_scores")}
    maps = {f"map_{number}": each for number, each in enumerate(whole.maps.values())}
    np.savez_compressed(path, about=np.array(json.dumps({**about, "places": list(whole.maps)})), **maps, **arrays)
    return path
