"""Where blocks look, for papers: a clip's frames under their maps (RNL, Fig. 1, 4, 5; PNL, Fig. 5, 6; BAT, Fig. 4)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dashboards import attention as maps
from dashboards.figures import attention as pictures
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.static.common import SETTINGS, SMALL, WIDTHS, target, write

if TYPE_CHECKING:
    from dashboards.attention import Network

EDGE, TITLE, GAP = 0.06, 0.19, 0.03  # inches: around the figure, above a row, between pictures
CLIP = "the clip"
LARGEST = 1.75  # inches, of a picture's width


def save(
    networks: Sequence[Network], path: str | os.PathLike[str], *, theme: Theme = "light", width: str = "page"
) -> list[Path]:
    """Write a figure per clip and reference point, and one per block of several groups or scales.

    Args:
        networks: all shown the same clips and positions.
        path: the first file, by its suffix .pdf, .svg or .png; the others are numbered from 2.
        theme: light or dark.
        width: `column` or `page`.

    Returns:
        The files.

    Raises:
        UnknownChoice: another suffix.
        UserError: the networks were shown different clips or positions.
        LongrangeError: a file cannot be written.
    """
    first = target(path)
    maps.check(networks)
    files = []
    for number, chart in enumerate(_figures(networks, theme, width), start=1):
        named = first if number == 1 else first.with_name(f"{first.stem}-{number}{first.suffix}")
        files.append(write(chart, named))
    return files


def _figures(networks: Sequence[Network], theme: Theme, width: str) -> Iterator[Figure]:
    seen = networks[0].seen
    for clip, position in product(range(len(seen.clips)), range(len(seen.positions))):
        said = {maps.titled(each, place): _guessed(each, clip) for each in networks for place in each.seen.maps}
        blind = [f"{each.label}: {_guessed(each, clip)}" for each in networks if not each.seen.maps]
        said[CLIP] = "; ".join([f"{seen.clips[clip]}, its class is {seen.classes[int(seen.labels[clip])]}", *blind])
        yield draw(maps.overview(networks, clip, position), theme, width, said=said, plain=True)
        for network, place in maps.detailed(networks):
            found = maps.by_group(network, place, clip, position)
            named = maps.titled(network, place)
            yield draw(pictures.retitled(found, f"{named}, "), theme, width, said={}, regions=maps.regions_of(network))


def _guessed(network: Network, clip: int) -> str:
    """The best guesses of a network, the right one marked."""
    guesses = maps.predicted(network, clip)["guesses"]
    return ", ".join(f"{'✓ ' if each['right'] else ''}{each['name']} ({each['percent']} %)" for each in guesses)


def draw(
    info: pictures.AttentionInfo,
    theme: Theme = "light",
    width: str = "page",
    *,
    said: Mapping[str, str],
    plain: bool = False,
    regions: int = 0,
) -> Figure:
    """Frames from left to right, a row per map, the reference point as a cross.

    Args:
        info: the pictures.
        theme: light or dark.
        width: `column` or `page`.
        said: what stands beside a row's title, e.g. what the network took the clip for.
        plain: begin with a row of frames without a map.
        regions: frame so many of each map's most related cells.
    """
    rows: list[tuple[str, NDArray[np.float64] | None]] = [*([(CLIP, None)] if plain else []), *info.maps.items()]
    grid = _Grid(len(rows), info.frames.shape, width)
    with matplotlib.rc_context(SETTINGS):
        chart = Figure(figsize=(WIDTHS[width], grid.height), facecolor=themes.GROUND[theme])
        for row, (title, values) in enumerate(rows):
            _write_title(chart, grid, row, title, said.get(title, ""), theme)
            cells = [grid.axes(chart, row, column) for column in range(grid.columns)]
            _draw_row(cells, info, values)
            if values is not None:
                _frame(cells, info, values, regions)
        for column in range(grid.columns):
            grid.number(chart, column, theme)
    return chart


class _Grid:
    """Places of pictures, in shares of the figure."""

    def __init__(self, rows: int, shape: Sequence[int], width: str) -> None:
        self.columns, tall, wide = shape[0], shape[1], shape[2]
        self._width = WIDTHS[width]
        self.picture = min(LARGEST, (self._width - 2 * EDGE + GAP) / self.columns - GAP)
        self._tall = self.picture * tall / wide
        self.height = 2 * EDGE + rows * (self._tall + TITLE) + TITLE

    def top(self, row: int) -> float:
        """Inches from the bottom to the top of a row's pictures."""
        return self.height - EDGE - row * (self._tall + TITLE) - TITLE

    def axes(self, chart: Figure, row: int, column: int) -> Axes:
        """Axes without ticks for one picture."""
        left, bottom = EDGE + column * (self.picture + GAP), self.top(row) - self._tall
        place = (left / self._width, bottom / self.height, self.picture / self._width, self._tall / self.height)
        made: Axes = chart.add_axes(place)
        made.set_axis_off()
        return made

    def number(self, chart: Figure, column: int, theme: Theme) -> None:
        """The frame's number below its column."""
        middle = EDGE + column * (self.picture + GAP) + self.picture / 2
        chart.text(
            middle / self._width,
            (EDGE + TITLE - 0.03) / self.height,
            f"frame {column}",
            ha="center",
            va="top",
            fontsize=SMALL,
            color=themes.INK[theme],
        )


def _write_title(chart: Figure, grid: _Grid, row: int, title: str, said: str, theme: Theme) -> None:
    text = f"{title}   {said}" if said else title
    x, y = EDGE / chart.get_figwidth(), (grid.top(row) + 0.04) / grid.height
    chart.text(x, y, text, va="bottom", color=themes.INK[theme], parse_math=False)


def _draw_row(cells: Sequence[Axes], info: pictures.AttentionInfo, values: NDArray[np.float64] | None) -> None:
    count, height, width, _ = info.frames.shape
    extent = (-0.5, width - 0.5, height - 0.5, -0.5)
    for frame, axes in enumerate(cells):
        axes.imshow(info.frames[frame], extent=extent, interpolation="nearest")
        if values is not None:
            cover = pictures.cover(values[frame * len(values) // count])
            axes.imshow(cover, extent=extent, interpolation="nearest")
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(height - 0.5, -0.5)
    if info.reference is not None:
        frame, x, y = pictures.reference_point(info)
        for color, size, line in (("white", 9, 3.0), ("#0072b2", 7.5, 1.5)):
            cells[frame].plot(x, y, marker="+", markersize=size, markeredgewidth=line, color=color)


def _frame(cells: Sequence[Axes], info: pictures.AttentionInfo, values: NDArray[np.float64], regions: int) -> None:
    """Outline the cells that the reference point is most related to."""
    for region in pictures.top_regions(values, regions):
        frame, (left, right), (top, bottom) = pictures.outline(info, values, region)
        for color, line in (("black", 1.8), ("white", 0.8)):
            cells[frame].add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=line)
            )
