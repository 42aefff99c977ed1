"""Where a block looks: a clip's frames with the attention map of one reference point laid over them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots
from plotly.utils import image_array_to_data_uri

from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme

CELL_PIXELS, TITLE_PIXELS, ROW_PIXELS = 150, 24, 1040  # a picture at most, its row's title, a whole row at most
MOST_PIXELS = 128  # of a picture's longer side: more is not seen, and pages grow with it
# Nothing covers the picture where nothing is looked at. Orange lightens dark scenes and darkens bright ones, so a grey
# print shows it; blue is attention that counts against.
OVERLAY = (
    (0.0, "rgba(0,114,178,0.85)"),
    (0.5, "rgba(128,128,128,0)"),
    (0.75, "rgba(230,120,0,0.5)"),
    (1.0, "rgba(230,100,0,0.85)"),
)

Region = tuple[int, int, int, float]  # frame, row and column of a map's cell, and its share of the attention


@dataclass(frozen=True)
class AttentionInfo:
    """One row of pictures per map.

    Attributes:
        frames: `[T, H, W, 3]` 0..255.
        maps: label -> `[T, h, w]`, scaled so that the strongest position of each map is 1.
        reference: (frame, row, column) on a grid, or None.
        grid: frames, rows and columns that `reference` counts in.
    """

    frames: NDArray[np.uint8]
    maps: dict[str, NDArray[np.float64]]
    reference: tuple[int, int, int] | None
    grid: tuple[int, int, int] = (1, 1, 1)


def info(
    frames: ArrayLike,
    maps: Mapping[str, ArrayLike],
    reference: tuple[int, int, int] | None = None,
    grid: tuple[int, int, int] | None = None,
) -> AttentionInfo:
    """The pictures.

    Args:
        frames: `[T, H, W]` grey or `[T, H, W, 3]` colour, bytes or floats of any range (scaled over the clip).
        maps: label -> `[T', h, w]` attention of the reference point over all positions; T' divides T.
        reference: (frame, row, column) of the reference point.
        grid: what `reference` counts in, `(T, H, W)`; by default the first map's cells.

    Raises:
        ValueError: shapes that do not go together.
    """
    clip = np.asarray(frames)
    if clip.ndim not in (3, 4) or (clip.ndim == 4 and clip.shape[-1] != 3):
        raise ValueError(f"frames must be [T, H, W] or [T, H, W, 3], given {list(clip.shape)}")
    scaled = {label: _scaled(np.asarray(each, dtype=float), len(clip), label) for label, each in maps.items()}
    t, h, w = grid or next((each.shape for each in scaled.values()), (1, 1, 1))
    return AttentionInfo(_bytes(clip), scaled, reference, (t, h, w))


def draw(info: AttentionInfo, theme: Theme = "light", *, plain: bool = False, regions: int = 0) -> go.Figure:
    """Frames from left to right, one row per map; the reference point is a cross.

    Args:
        info: the pictures.
        theme: light or dark.
        plain: begin with a row of frames without a map.
        regions: frame so many of each map's most related cells, numbered from the strongest.
    """
    if not info.maps:
        return themes.message("No attention map was given.", theme)
    titles = [*(["the clip"] if plain else []), *info.maps]
    rows, columns = len(titles), len(info.frames)
    chart = _grid(info, titles, theme)
    pictures = [image_array_to_data_uri(frame) for frame in info.frames]
    for row, frame in product(range(1, rows + 1), range(columns)):
        chart.add_image(source=pictures[frame], hoverinfo="skip", row=row, col=frame + 1)
    for row, each in enumerate(info.maps.values(), start=rows - len(info.maps) + 1):
        for frame in range(columns):
            chart.add_heatmap(**_overlay(each, info.frames.shape, frame), row=row, col=frame + 1)
        for place, region in enumerate(top_regions(each, regions), start=1):
            _draw_region(chart, info, each, region, place=place, row=row)
    _draw_reference(chart, info, rows)
    _, height, width, _ = info.frames.shape
    chart.update_xaxes(visible=False, range=[-0.5, width - 0.5])
    chart.update_yaxes(visible=False, range=[height - 0.5, -0.5])
    return chart


def top_regions(map_thw: ArrayLike, most: int = 5) -> list[Region]:
    """The positions a reference point attends to most: (frame, row, column, share of the whole), strongest first."""
    values = np.asarray(map_thw, dtype=float)
    order = np.argsort(values, axis=None, kind="stable")[::-1][:most]
    share = values / values.sum() if values.sum() else values
    places = zip(*np.unravel_index(order, values.shape), strict=True)
    return [(int(t), int(h), int(w), float(share[t, h, w])) for t, h, w in places]


def outline(
    info: AttentionInfo, map_thw: NDArray[np.float64], region: Region
) -> tuple[int, tuple[float, float], tuple[float, float]]:
    """Frame, left and right, top and bottom of a map's cell in pixels of the picture it is laid over."""
    at, top, left, _ = region
    count, height, width, _ = info.frames.shape
    tall, wide = height / map_thw.shape[1], width / map_thw.shape[2]
    inset = width / 100  # neighbours do not cover each other
    x = (left * wide - 0.5 + inset, (left + 1) * wide - 0.5 - inset)
    y = (top * tall - 0.5 + inset, (top + 1) * tall - 0.5 - inset)
    return at * (count // len(map_thw)), x, y


def reference_point(info: AttentionInfo) -> tuple[int, float, float]:
    """Frame, x and y of the reference point in pixels."""
    assert info.reference is not None
    at, row, column = info.reference
    count, height, width, _ = info.frames.shape
    frames, rows, columns = info.grid
    return at * count // frames, (column + 0.5) * width / columns - 0.5, (row + 0.5) * height / rows - 0.5


def cover(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is laid over a picture for a map from -1 to 1: red, green, blue and opacity, each from 0 to 1."""
    stops = np.array([stop for stop, _ in OVERLAY])
    channels = np.array([_rgba(color) for _, color in OVERLAY]).T
    return np.stack([np.interp((values + 1) / 2, stops, channel) for channel in channels], axis=-1)


def _rgba(color: str) -> list[float]:
    red, green, blue, opacity = map(float, color.removeprefix("rgba(").removesuffix(")").split(","))
    return [red / 255, green / 255, blue / 255, opacity]


def retitled(info: AttentionInfo, before: str) -> AttentionInfo:
    """The same pictures with more before each row's title."""
    return replace(info, maps={f"{before}{title}": values for title, values in info.maps.items()})


def native(map_thw: ArrayLike) -> NDArray[np.float64]:
    """A map without the repeated rows and columns that enlarged it: a coarse scale's cells are counted once.

    Left as it is where rows or columns are not all repeated equally often.
    """
    values = np.asarray(map_thw, dtype=float)
    for axis in (1, 2):
        changes = np.any(np.diff(values, axis=axis) != 0, axis=(0, 3 - axis))
        first = np.flatnonzero(np.append(True, changes))
        size = values.shape[axis]
        if np.array_equal(first, np.arange(len(first)) * (size // len(first))) and size % len(first) == 0:
            values = values.take(first, axis=axis)
    return values


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
    pictures = clip if clip.ndim == 4 else np.repeat(clip[..., None], 3, axis=-1)
    return _smaller(pictures, -(-max(pictures.shape[1:3]) // MOST_PIXELS))


def _smaller(pictures: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Means over squares of `factor` pixels; a last row or column that fills no square is left out."""
    if factor == 1:
        return pictures
    count, height, width = (pictures.shape[0], *(side // factor for side in pictures.shape[1:3]))
    whole = pictures[:, : height * factor, : width * factor]
    means: NDArray[np.float64] = whole.reshape(count, height, factor, width, factor, 3).mean(axis=(2, 4))
    return means.astype(np.uint8)


def _grid(info: AttentionInfo, titles: Sequence[str], theme: Theme) -> go.Figure:
    """One subplot per picture, a title above each row, and the frames' numbers below."""
    rows, columns = len(titles), len(info.frames)
    width = min(CELL_PIXELS, ROW_PIXELS / columns)
    picture = width * info.frames.shape[1] / info.frames.shape[2]
    height = rows * (picture + TITLE_PIXELS)
    gap = TITLE_PIXELS / height
    chart = make_subplots(rows, columns, horizontal_spacing=4 / (columns * (width + 4)), vertical_spacing=gap)
    chart.update_layout(
        template=themes.template(theme),
        width=columns * (width + 4) + 20,
        height=height + 2 * TITLE_PIXELS,
        margin={"l": 10, "r": 10, "t": TITLE_PIXELS + 6, "b": TITLE_PIXELS - 6 + 12},
        showlegend=False,
    )
    above = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"size": 12}}
    for row, title in enumerate(titles, start=1):
        top = chart.get_subplot(row, 1).yaxis.domain[1]
        chart.add_annotation(text=html.escape(title), x=0, y=top, xanchor="left", yanchor="bottom", **above)
    for frame in range(columns):
        middle = sum(chart.get_subplot(rows, frame + 1).xaxis.domain) / 2
        chart.add_annotation(text=f"frame {frame}", x=middle, y=0, xanchor="center", yanchor="top", **above)
    return chart


def _overlay(values: NDArray[np.float64], shape: Sequence[int], frame: int) -> dict[str, Any]:
    """The map of one frame, its cells stretched over the picture."""
    part = values[frame * len(values) // shape[0]]
    return {
        "z": part,
        "x": _centres(shape[2], part.shape[1]),
        "y": _centres(shape[1], part.shape[0]),
        "zmin": -1.0,
        "zmax": 1.0,
        "colorscale": OVERLAY,
        "showscale": False,
        "hovertemplate": "%{z:.2f} of the strongest<extra></extra>",
    }


def _centres(pixels: int, cells: int) -> NDArray[np.float64]:
    """Where a map's cells lie on a picture; the two edges where there is one cell, which has no neighbour to tell."""
    if cells == 1:
        return np.array([-0.5, pixels - 0.5])
    return (np.arange(cells) + 0.5) * pixels / cells - 0.5


def _draw_region(
    chart: go.Figure,
    info: AttentionInfo,
    values: NDArray[np.float64],
    region: Region,
    *,
    place: int,
    row: int,
) -> None:
    frame, x, y = outline(info, values, region)
    corners = {"x": [x[0], x[1], x[1], x[0], x[0]], "y": [y[0], y[0], y[1], y[1], y[0]], "mode": "lines"}
    said = f"{place}. most related: {region[3]:.1%} of the attention<extra></extra>"
    for color, width in (("rgba(0,0,0,0.8)", 3.5), ("#ffffff", 1.5)):
        chart.add_scatter(**corners, line={"color": color, "width": width}, hovertemplate=said, row=row, col=frame + 1)


def _draw_reference(chart: go.Figure, info: AttentionInfo, rows: int) -> None:
    if info.reference is None:
        return
    frame, x, y = reference_point(info)
    shared = {"x": [x], "y": [y], "mode": "markers", "hovertemplate": "reference<extra></extra>"}
    for at in range(1, rows + 1):
        for color, size, line in (("#ffffff", 17, 6), ("#0072b2", 14, 3)):
            cross = {"symbol": "cross-thin", "size": size, "line": {"width": line, "color": color}}
            chart.add_scatter(**shared, marker=cross, row=at, col=frame + 1)
