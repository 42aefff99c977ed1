"""Published against executed cost, for papers: planes with the accuracy, and places in the order of cost."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from dashboards import frames
from dashboards.analysis import audit
from dashboards.errors import NoResults, UnknownChoice
from dashboards.figures import audit as figures
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.static.common import LINES, SETTINGS, SMALL, blank, dress, target, write

KINDS = ("planes", "places")
CLOSED: Mapping[int, str] = {-1: "<", 0: "o", 1: ">"}  # cheaper, same place, dearer


def save(
    rows: Sequence[Mapping[str, Any]],
    paper: str,
    kind: str,
    path: str | os.PathLike[str],
    *,
    theme: Theme = "light",
    width: str = "page",
) -> Path:
    """Write one figure of a paper's numbers, whole or not at all; returns the path.

    Args:
        rows: the audit's rows, as `longrange audit --json` has them.
        paper: hgnl, rnl, pnl or bat.
        kind: `planes`: accuracy over the published and over the executed cost, a row per table; `places`: every model's
            cost on either side, relative to the cheapest, a chart per data set.
        path: the file; its suffix is the format.
        theme: light or dark.
        width: `column` or `page`.

    Raises:
        UnknownChoice: a kind or format that does not exist.
        NoResults: the paper prints nothing that such a figure could show.
        LongrangeError: the file cannot be written.
    """
    file = target(path)
    return write(draw(rows, paper, kind, theme=theme, width=width), file)


def draw(
    rows: Sequence[Mapping[str, Any]], paper: str, kind: str, *, theme: Theme = "light", width: str = "page"
) -> Figure:
    """The figure that `save` writes."""
    if kind not in KINDS:
        raise UnknownChoice("figure", kind, KINDS)
    with matplotlib.rc_context(SETTINGS):
        return (_planes if kind == "planes" else _places)(rows, paper, theme, width)


def _planes(rows: Sequence[Mapping[str, Any]], paper: str, theme: Theme, width: str) -> Figure:
    found = figures.planes(audit.planes(rows), paper)
    if not found:
        raise NoResults(f"no table of {paper} prints a cost beside an accuracy")
    chart = blank(theme, width, 0.2 + 2.1 * len(found))
    grid = chart.subplots(len(found), 2, squeeze=False, sharey="row")
    for plane, pair in zip(found, grid, strict=True):
        for axes, (side, named) in zip(pair, figures.SIDES, strict=True):
            dress(axes, theme)
            _plane(axes, plane, side, theme)
            axes.set_xlabel(named)
        pair[0].set_ylabel("Top-1 as printed (%)")
        pair[0].set_title(plane.title, loc="left", fontsize=7, color=themes.INK[theme])
        pair[1].set_title(figures.moved(plane), loc="left", fontsize=7, color=themes.INK[theme])
    return chart


def _plane(axes: Axes, plane: figures.Plane, side: Literal["published", "executed"], theme: Theme) -> None:
    """One table over one cost; both sides have one scale, so what moves right is what the published rule left out."""
    dearest = max(max(point.published, point.executed) for point in plane.points)
    best = sorted((getattr(each, side), each.top1_percent) for each in plane.points if getattr(each, f"{side}_best"))
    axes.step(*zip(*best, strict=True), where="post", color=themes.FAINT, linestyle=LINES["dot"], linewidth=0.8)
    for point in plane.points:
        cost, color = getattr(point, side), figures.color(point.change)
        filled = point.verdict != "not reproduced"
        marker = CLOSED[_sign(point.change)]
        axes.plot(cost, point.top1_percent, marker, color=color, markersize=4, mfc=color if filled else "none")
        if point.change:
            right = cost > 0.72 * dearest
            axes.annotate(
                figures.short(point.model),
                (cost, point.top1_percent),
                xytext=(-4 if right else 4, 0),
                textcoords="offset points",
                ha="right" if right else "left",
                va="center",
                fontsize=SMALL - 1,
                color=themes.INK[theme],
            )
    axes.set_xlim(0, 1.08 * dearest)


def _places(rows: Sequence[Mapping[str, Any]], paper: str, theme: Theme, width: str) -> Figure:
    changes = audit.rank_changes(audit.frame(rows))
    likes = [like for like in frames.records(audit.agreement(changes)) if like["paper"] == paper and like["n"] > 1]
    if not likes:
        raise NoResults(f"{paper} prints no two costs that can be ranked against each other")
    chart = blank(theme, width, 2.6)
    (grid,) = chart.subplots(1, len(likes), squeeze=False)
    for axes, like in zip(grid, likes, strict=True):
        dress(axes, theme)
        info = figures.info(changes, like)
        for slope in info.slopes:
            ends = (slope.published_relative, slope.executed_relative)
            axes.plot(
                (0, 1),
                ends,
                color=figures.color(slope.change),
                linestyle=LINES[figures.dash(slope.change)],
                marker="o",
                markersize=3,
            )
        axes.set_yscale("log")
        for of in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            of(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
        axes.tick_params(which="minor", colors=themes.INK[theme], width=0.4, length=1.5)
        axes.set_xticks((0, 1), ("published", "executed"))
        axes.set_xlim(-0.2, 1.2)
        axes.set_title(info.title.removeprefix(f"{paper}, ").replace(": ", ":\n"), fontsize=7, color=themes.INK[theme])
    grid[0].set_ylabel("Cost, relative to the cheapest model")
    return chart


def _sign(change: float) -> int:
    return (change > 0) - (change < 0)
