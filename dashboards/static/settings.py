"""Settings for papers: two against each other, and all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from dashboards.figures import effects, parallel
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.static.common import LINES, MARKERS, SMALL, empty, legend


def draw_heatmap(axes: Axes, info: effects.CellsInfo, theme: Theme) -> None:
    """A cell per combination with its mean and n."""
    means = np.array(info.means, dtype=float)
    if not np.isfinite(means).any():
        return empty(axes, "No combination of these axes has a result yet.", theme)
    shades = "cividis" if info.metric.higher_is_better else "cividis_r"
    image = axes.imshow(means, cmap=shades, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        known = np.isfinite(mean)
        said = f"{info.metric.number(mean)}\nn = {info.trials[row][column]}" if known else "not run"
        dark = known and sum(image.cmap(image.norm(mean))[:3]) < 1.5
        ink = "white" if dark else "black" if known else themes.INK[theme]
        axes.text(column, row, said, ha="center", va="center", fontsize=SMALL, color=ink)
    axes.set_xticks(range(len(info.columns)), info.columns)
    axes.set_yticks(range(len(info.rows)), info.rows)
    axes.grid(visible=False)
    axes.set_xlabel(info.second)
    axes.set_ylabel(info.first)


def draw_interaction(axes: Axes, info: effects.CellsInfo, theme: Theme) -> None:
    """A line per level of the rows' axis, in tones of the block's colour."""
    if not np.isfinite(np.array(info.means, dtype=float)).any():
        return empty(axes, "No combination of these axes has a result yet.", theme)
    shades = themes.shades(info.block, len(info.rows), theme)
    for at, (level, means) in enumerate(zip(info.rows, info.means, strict=True)):
        axes.plot(
            range(len(info.columns)),
            means,
            color=shades[at],
            linestyle=LINES[effects.DASHES[at % len(effects.DASHES)]],
            marker=MARKERS[effects.MARKS[at % len(effects.MARKS)]],
            markersize=4,
            label=f"{info.first} = {level}",
        )
    axes.set_xticks(range(len(info.columns)), info.columns)
    axes.set_xlabel(info.second)
    axes.set_ylabel(info.metric.axis)
    legend(axes, theme, loc="best")


def draw_parallel(axes: Axes, info: parallel.ParallelInfo, theme: Theme) -> None:
    """Every arm as a line through all axes, in its block's colour."""
    if not info.labels:
        return empty(axes, "No arm has a result yet.", theme)
    places = range(len(info.coordinates))
    for at, block in enumerate(info.blocks):
        style = themes.style(block)
        axes.plot(
            places,
            [axis.values[at] for axis in info.coordinates],
            color=style.color,
            marker=MARKERS[style.symbol],
            markersize=3,
            linewidth=0.8,
            alpha=0.75,
            label=block if info.blocks.index(block) == at else None,
        )
    for at, axis in enumerate(info.coordinates):
        axes.axvline(at, color=themes.FAINT, linewidth=0.6, zorder=1)
        beside: dict[str, Any] = {"ha": "left", "xytext": (3, 2)} if at == 0 else {"ha": "right", "xytext": (-3, 2)}
        for said, height in axis.ticks.items():
            axes.annotate(
                said, (at, height), textcoords="offset points", fontsize=SMALL - 1, color=themes.INK[theme], **beside
            )
    axes.set_xticks(places, [axis.title for axis in info.coordinates], rotation=20, ha="right", fontsize=SMALL)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    legend(axes, theme, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
