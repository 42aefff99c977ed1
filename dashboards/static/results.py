"""Results for papers: accuracy over cost, arms side by side, learning curves, gains per class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, Formatter, LogLocator, MaxNLocator, NullFormatter, ScalarFormatter

from dashboards.analysis.frontier import ON
from dashboards.figures import ablation, curves, frontier, per_class
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.static.common import BAND_ALPHA, LINES, MARKERS, SMALL, empty, legend, rows

CHARACTER_POINTS = 0.6 * SMALL  # a letter's width
STEPS = (1.0, 2.0, 5.0)  # where a logarithmic axis has ticks in each decade


def draw_frontier(axes: Axes, info: frontier.FrontierInfo, theme: Theme) -> None:
    """Points with their seeds and intervals, the frontier and its band."""
    if not info.points:
        return empty(axes, frontier.nothing(info), theme)
    end = max(point.cost for point in info.points)
    for edges, opacity in ((info.band, BAND_ALPHA + 0.04),) if info.band else ():
        cost, low, high = (np.array([*axis, axis[-1]]) for axis in zip(*edges, strict=True))
        cost[-1] = end
        axes.fill_between(cost, low, high, step="post", color=themes.FAINT, alpha=opacity, linewidth=0)
    steps = [*info.steps, (end, info.steps[-1][1])] if info.steps else []
    axes.step(*zip(*steps, strict=True), where="post", color=themes.FAINT, linestyle=":", label="frontier", zorder=1)
    for block in dict.fromkeys(point.block for point in info.points):
        _points(axes, block, [point for point in info.points if point.block == block])
    _name(axes, info, theme)
    _cost_axis(axes, info)
    axes.set_ylim(*frontier.vertical_range(info))
    axes.set_ylabel(info.metric.axis)
    legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def zoom(axes: Axes, info: frontier.FrontierInfo) -> None:
    """Show the better part only, where the rest would squeeze it."""
    ranges = frontier.zoom(info)
    if ranges is None:
        return
    cost, value = ranges
    axes.set_xlim(*(10**end for end in cost) if info.logarithmic else cost)
    axes.set_ylim(*value)
    for note in axes.texts:
        note.set_clip_on(True)


def _name(axes: Axes, info: frontier.FrontierInfo, theme: Theme) -> None:
    across = 72 * axes.bbox.width / axes.figure.dpi
    for point, rightwards in frontier.labelled(info, fits=int(across / CHARACTER_POINTS)):
        axes.annotate(
            point.label,
            (point.cost, point.mean),
            xytext=(3 if rightwards else -3, 4),
            textcoords="offset points",
            ha="left" if rightwards else "right",
            fontsize=SMALL,
            color=themes.INK[theme],
        )


def _cost_axis(axes: Axes, info: frontier.FrontierInfo) -> None:
    plain: Formatter = EngFormatter(sep="") if info.cost.prefixed else ScalarFormatter()
    if info.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=STEPS))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(plain)
    axes.set_xlabel(frontier.axis_title(info))


def _points(axes: Axes, block: str, points: Sequence[frontier.Point]) -> None:
    style = themes.style(block)
    for point in points:
        opacity = frontier.OPACITY.get(point.standing, frontier.DOMINATED_OPACITY)
        bars = np.nan_to_num([[point.mean - point.low], [point.high - point.mean]])
        shared: dict[str, Any] = {"color": style.color, "alpha": opacity, "linestyle": "none"}
        axes.plot([point.cost] * len(point.seeds), point.seeds, marker=".", markersize=1.8, zorder=2, **shared)
        axes.errorbar(
            point.cost,
            point.mean,
            yerr=bars,
            marker=MARKERS[style.symbol],
            markersize=5,
            markeredgecolor="black" if point.standing == ON and style.symbol != "x" else style.color,
            markeredgewidth=0.6 if style.symbol != "x" else 1.4,
            elinewidth=0.7,
            zorder=3,
            **shared,
        )
    axes.plot([], [], marker=MARKERS[style.symbol], markersize=5, color=style.color, linestyle="none", label=block)


def draw_ablation(axes: Axes, info: ablation.AblationInfo, theme: Theme) -> None:
    """A row per arm, with the control's band."""
    if not info.rows:
        return empty(axes, "No arm of this block has a result yet.", theme)
    if info.control is not None:
        _control(axes, info, info.control, theme)
    for at, row in enumerate(info.rows):
        style = themes.style(row.block)
        axes.plot(row.seeds, [at] * len(row.seeds), ".", color=style.color, markersize=3, alpha=0.5)
        half = np.nan_to_num([[row.mean - row.low], [row.high - row.mean]])
        axes.errorbar(
            row.mean, at, xerr=half, marker=MARKERS[style.symbol], color=style.color, markersize=5, elinewidth=1.1
        )
    rows(axes, [row.name for row in info.rows])
    axes.set_xlim(*ablation.horizontal_range(info))
    axes.set_xlabel(info.metric.axis)


def _control(axes: Axes, info: ablation.AblationInfo, control: ablation.Row, theme: Theme) -> None:
    said = f"control {control.name}: {info.metric.said(control.mean)}"
    place: dict[str, Any] = {"fontsize": SMALL, "color": themes.INK[theme], "va": "bottom"}
    if info.control_is_far:
        left = control.mean < info.span[0]
        text, x = (f"◀ {said}", 0.0) if left else (f"{said} ▶", 1.0)
        axes.text(x, 1.01, text, transform=axes.transAxes, ha="left" if left else "right", **place)
        return
    if np.isfinite(control.low):
        axes.axvspan(control.low, control.high, color=themes.FAINT, alpha=BAND_ALPHA, linewidth=0)
    axes.axvline(control.mean, color=themes.FAINT, linestyle="--", linewidth=0.8)
    axes.text(control.mean, 1.01, said, transform=axes.get_xaxis_transform(), ha="center", **place)


def draw_curves(axes: Axes, info: curves.CurvesInfo, theme: Theme) -> None:
    """Mean per epoch with its band."""
    if not info.curves:
        return empty(axes, "No epoch has been recorded yet.", theme)
    for curve in info.curves:
        style, x = themes.style(curve.block), np.array(curve.epochs) + 1
        axes.fill_between(x, curve.low, curve.high, color=style.color, alpha=BAND_ALPHA, linewidth=0)
        axes.plot(
            x,
            curve.mean,
            color=style.color,
            linestyle=LINES[curve.dash],
            marker=MARKERS[style.symbol],
            markersize=3.2,
            markevery=max(1, len(x) // 10),
            label=curve.label,
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if (ends := curves.vertical_range(info)) is not None:
        axes.set_ylim(*ends)
    axes.set_xlabel("Epoch")
    axes.set_ylabel(info.metric.axis)
    legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def draw_classes(axes: Axes, info: per_class.PerClassInfo, theme: Theme) -> None:
    """A bar per class, in the colour of the arm that is better at it."""
    if not info.bars:
        return empty(axes, "No clips were evaluated by both arms with the same seed.", theme)
    for at, (_, difference, low, high, _) in enumerate(info.bars):
        color = themes.style(info.blocks[0 if difference >= 0 else 1]).color
        bars = [[difference - low], [high - difference]]
        axes.barh(at, difference, color=color, height=0.7)
        axes.errorbar(difference, at, xerr=bars, ecolor=themes.INK[theme], elinewidth=0.6, capsize=1.5, capthick=0.6)
    axes.axvline(0, color=themes.INK[theme], linewidth=0.8)
    rows(axes, [name for name, *_ in info.bars])
    axes.set_xlabel(per_class.axis_title(info), wrap=True)
