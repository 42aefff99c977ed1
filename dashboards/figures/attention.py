"""Where a block looks: a clip's frames with the attention map of one reference point laid over them."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme

OVERLAY = 0.62  # opacity of the strongest position
CELL_PIXELS = 150


@dataclass(frozen=True)
class AttentionInfo:
    """One row of pictures per map.

    Attributes:
        frames: `[T, H, W, 3]` 0..255.
        maps: label -> `[T, h, w]`, scaled so that the strongest position of each map is 1.
        reference: (frame, row, column) in coordinates of the first map, or None.
    """

    frames: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float64]]
    reference: tuple[int, int, int] | None


def info(frames: ArrayLike, maps: dict[str, ArrayLike], reference: tuple[int, int, int] | None = None) -> AttentionInfo:
    """The pictures.

    Args:
        frames: `[T, H, W]` grey or `[T, H, W, 3]` colour, bytes or floats of any range (scaled over the clip).
        maps: label -> `[T', h, w]` attention of the reference point over all positions; T' divides T.
        reference: (frame, row, column) in the coordinates of the first map.

    Raises:
        ValueError: shapes that do not go together.
    """
    clip = np.asarray(frames)
    if clip.ndim not in (3, 4) or (clip.ndim == 4 and clip.shape[-1] != 3):
        raise ValueError(f"frames must be [T, H, W] or [T, H, W, 3], given {list(clip.shape)}")
    scaled = {label: _scaled(np.asarray(each, dtype=float), len(clip), label) for label, each in maps.items()}
    return AttentionInfo(_bytes(clip), scaled, reference)


def draw(info: AttentionInfo, theme: Theme = "light") -> go.Figure:
    """Frames from left to right, one row per map; the reference point is a cross."""
    if not info.maps:
        return themes.message("No attention map was given.", theme)
    rows, columns = len(info.maps), len(info.frames)
    chart = make_subplots(rows, columns, horizontal_spacing=0.01, vertical_spacing=0.04, row_titles=_titles(info.maps))
    chart.update_layout(template=themes.template(theme), height=CELL_PIXELS * rows + 60, showlegend=False)
    for row, each in enumerate(info.maps.values(), start=1):
        for frame in range(columns):
            place = {"row": row, "col": frame + 1}
            chart.add_image(z=info.frames[frame], hoverinfo="skip", **place)
            chart.add_heatmap(**_overlay(each, info.frames.shape, frame), **place)
    _draw_reference(chart, info)
    chart.update_xaxes(visible=False)
    chart.update_yaxes(visible=False, autorange="reversed")
    return chart


def top_regions(map_thw: ArrayLike, most: int = 5) -> list[tuple[int, int, int, float]]:
    """The positions a reference point attends to most: (frame, row, column, share of the whole), strongest first."""
    values = np.asarray(map_thw, dtype=float)
    order = np.argsort(values, axis=None, kind="stable")[::-1][:most]
    share = values / values.sum() if values.sum() else values
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return [(int(t), int(h), int(w), float(share[t, h, w])) for t, h, w in places]


def _scaled(values: NDArray[np.float64], frames: int, label: str) -> NDArray[np.float64]:
    if values.ndim != 3 or frames % len(values):
        raise ValueError(
            f"map {label!r} must be [T', h, w] with T' dividing {frames} frames, given {list(values.shape)}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"map {label!r} holds NaN or infinite values")
    most = np.abs(values).max()
    return values / most if most else values


def _bytes(clip: NDArray[Any]) -> NDArray[np.uint8]:
    if clip.dtype != np.uint8:
        least, most = float(clip.min()), float(clip.max())
        clip = ((clip - least) / (most - least or 1.0) * 255).astype(np.uint8)
    return clip if clip.ndim == 4 else np.repeat(clip[..., None], 3, axis=-1)


def _overlay(values: NDArray[np.float64], shape: Sequence[int], frame: int) -> dict[str, Any]:
    """The map of one frame, its cells stretched over the picture."""
    _, height, width, _ = shape
    part = values[frame * len(values) // shape[0]]
    return {
        "z": part,
        "x": (np.arange(part.shape[1]) + 0.5) * width / part.shape[1] - 0.5,
        "y": (np.arange(part.shape[0]) + 0.5) * height / part.shape[0] - 0.5,
        "zmin": min(0.0, float(values.min())),
        "zmax": 1.0,
        "colorscale": "Cividis",
        "opacity": OVERLAY,
        "showscale": False,
        "hovertemplate": "%{z:.2f} of the strongest<extra></extra>",
    }


def _draw_reference(chart: go.Figure, info: AttentionInfo) -> None:
    if info.reference is None:
        return
    first = next(iter(info.maps.values()))
    frame, row, column = info.reference
    step = len(info.frames) // len(first)
    _, height, width, _ = info.frames.shape
    x, y = (column + 0.5) * width / first.shape[2] - 0.5, (row + 0.5) * height / first.shape[1] - 0.5
    cross = {"symbol": "cross-thin", "size": 16, "line": {"width": 3, "color": "#d55e00"}}
    shared = {"mode": "markers", "marker": cross, "hovertemplate": "reference<extra></extra>", "col": frame * step + 1}
    for at in range(1, len(info.maps) + 1):
        chart.add_scatter(x=[x], y=[y], row=at, **shared)


def _titles(maps: dict[str, NDArray[np.float64]]) -> list[str]:
    return [html.escape(label) for label in maps]
