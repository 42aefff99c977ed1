"""Figures for papers as files: the numbers, colours and markers of `dashboards.figures`, drawn by matplotlib.

Plotly's own export starts a browser (12 s with kaleido 1.5 and the system's Chromium, and none without one); these
files need none. Fonts are embedded in PDF and outlined in SVG; blocks differ by marker and line, so grey prints read.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dashboards.errors import NoResults, UnknownChoice
from dashboards.figures.theme import GROUND, Theme
from dashboards.numbers import DEFAULT_COST, DEFAULT_METRIC
from dashboards.static import attention, common, published, results, settings, stages
from dashboards.static.common import FORMATS, MARKERS, SETTINGS, WIDTHS, target, write
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from dashboards.sweep import Sweep

__all__ = ["FORMATS", "KINDS", "MARKERS", "WIDTHS", "attention", "draw", "published", "save", "target", "write"]

Draw = Callable[[Axes, Any, Theme], None]


def save(
    sweep: Sweep,
    kind: str,
    path: str | os.PathLike[str],
    *,
    metric: str = DEFAULT_METRIC,
    cost: str = DEFAULT_COST,
    block: str = "",
    axes: Sequence[str] = (),
    focus: Sequence[str] = (),
    theme: Theme = "light",
    width: str = "column",
    zoom: bool = False,
) -> Path:
    """Write one figure of a sweep, whole or not at all; returns the path.

    Args:
        sweep: what to draw.
        kind: one of `KINDS`.
        path: the file; its suffix is the format.
        metric: the quality shown.
        cost: the other axis of `frontier`, and the last but one of `parallel`.
        block: whose arms, for `ablation`, `heatmap` and `interaction`; may be left out where only one has several.
        axes: two axes of that block, for `heatmap` and `interaction`; may be left out where there are two.
        focus: arms (arm_id or label) of `curves` and `stages`, empty for all; the two of `classes`, by default the best
            and the control.
        theme: light or dark.
        width: `column` or `page`.
        zoom: show the better part of the frontier only, where the rest would squeeze it.

    Raises:
        UnknownChoice: a kind, format, width, metric, cost, block, axis or arm that does not exist.
        UserError: a block, two axes or two arms are needed and not given.
        NoResults: `classes` without two arms to compare.
        LongrangeError: the file cannot be written.
    """
    for what, given, known in (("figure", kind, KINDS), ("width", width, WIDTHS), ("theme", theme, GROUND)):
        if given not in known:
            raise UnknownChoice(what, given, list(known))
    file = target(path)
    if kind in ("ablation", "heatmap", "interaction"):
        info = _of_block(sweep, kind, block, axes, metric)
    else:
        info = _of_sweep(sweep, kind, metric, cost, [sweep.arm_id(arm) for arm in focus])
    chart = draw(kind, info, theme=theme, width=width)
    if zoom and kind == "frontier":
        results.zoom(chart.axes[0], info)
    return write(chart, file)


def draw(kind: str, info: Any, *, theme: Theme = "light", width: str = "column") -> Figure:
    """A figure from its numbers: the `...Info` of `dashboards.figures` that belongs to the kind."""
    drawer, height = KINDS[kind]
    with matplotlib.rc_context(SETTINGS):
        chart = common.blank(theme, width, height(info))
        axes = chart.add_subplot(facecolor="none")
        common.dress(axes, theme)
        drawer(axes, info, theme)
    return chart


def _of_block(sweep: Sweep, kind: str, block: str, axes: Sequence[str], metric: str) -> Any:
    chosen = block or _only(list(sweep.families()), " on the same data" if sweep.data.nunique() > 1 else "")
    if kind == "ablation":
        return sweep.ablation_info(chosen, metric)
    known = list(map(str, sweep.design(chosen).columns))
    return sweep.cells_info(chosen, *_two("axes", axes or (known if len(known) == 2 else ()), known), metric)


def _of_sweep(sweep: Sweep, kind: str, metric: str, cost: str, focus: Sequence[str]) -> Any:
    if kind == "frontier":
        return sweep.frontier_info(metric, cost)
    if kind == "parallel":
        return sweep.parallel_info(metric, cost)
    if kind == "curves":
        return sweep.curves_info(metric, focus or None, only=True)
    if kind == "stages":
        return sweep.stages_info(focus)
    return sweep.class_gains_info(*_two_arms(sweep, metric, focus))


def _two_arms(sweep: Sweep, metric: str, given: Sequence[str]) -> tuple[str, str]:
    """Those given, or the best and the control."""
    if given:
        return _two("arms", given, list(sweep.arms["label"]))
    best, control = sweep.answer(metric).best, sweep.control
    if best is None or control is None or best == control:
        raise NoResults(f"sweep {sweep.name!r} has no arm that leads a control: say which two arms to compare")
    return best, control


def _only(blocks: Sequence[str], same: str) -> str:
    if not blocks:
        raise NoResults(f"no block of this sweep has two arms{same} that differ in a setting")
    if len(blocks) > 1:
        raise UserError(f"several blocks of this sweep have several arms: say which block, one of {', '.join(blocks)}")
    return blocks[0]


def _two(what: str, given: Sequence[str], known: Sequence[str]) -> tuple[str, str]:
    if len(given) != 2:
        raise UserError(f"this figure needs two {what}, given {len(given)}; choose from: {', '.join(known)}")
    return given[0], given[1]


def _wide(lines: int) -> float:
    """Height in inches of a plot with a legend of so many lines below it."""
    return 2.5 + 0.13 * lines


# Kind -> how it is drawn, and its height in inches.
KINDS: Mapping[str, tuple[Draw, Callable[[Any], float]]] = {
    "frontier": (results.draw_frontier, lambda info: _wide(-(-len({point.block for point in info.points}) // 4))),
    "ablation": (results.draw_ablation, lambda info: 0.75 + 0.2 * len(info.rows)),
    "curves": (results.draw_curves, lambda info: _wide(-(-len(info.curves) // 2))),
    "heatmap": (settings.draw_heatmap, lambda info: 0.7 + 0.38 * len(info.rows)),
    "interaction": (settings.draw_interaction, lambda _: 2.5),
    "parallel": (settings.draw_parallel, lambda _: 2.8),
    "stages": (stages.draw_stages, lambda info: 0.95 + 0.18 * len(info.arms)),
    "classes": (results.draw_classes, lambda info: 0.75 + 0.15 * len(info.bars)),
}
