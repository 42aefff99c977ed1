"""Figures for papers as files: the numbers, colours and markers of `dashboards.figures`, drawn by matplotlib.

Plotly's own export starts a browser (12 s with kaleido 1.5 and the system's Chromium, and none without one); these
files need none. Fonts are embedded in PDF and outlined in SVG; blocks differ by marker and line, so grey prints read.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from dashboards.analysis.frontier import ON
from dashboards.errors import UnknownChoice
from dashboards.figures import ablation, curves, effects, frontier
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.numbers import DEFAULT_COST, DEFAULT_METRIC
from dashboards.text import number
from orchestrator.errors import LongrangeError

if TYPE_CHECKING:
    from dashboards.sweep import Sweep

WIDTHS = {"column": 3.4, "page": 7.0}  # inches: one and two columns of common proceedings
FORMATS = (".pdf", ".svg", ".png")
BACKGROUND = {"light": "#ffffff", "dark": "#1b2129"}
BAND_ALPHA = 0.16
SETTINGS: Any = {
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "longrange",  # the same figure gives the same file
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "savefig.dpi": 400,
}
_HOURGLASS = Outline([(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)])
_BOWTIE = Outline([(-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -1)])
MARKERS: Mapping[str, Any] = {
    "x": "x",
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "diamond-tall": "d",
    "triangle-up": "^",
    "star": "*",
    "cross": "P",
    "pentagon": "p",
    "hexagon": "h",
    "triangle-down": "v",
    "hourglass": _HOURGLASS,
    "star-square": "8",
    "bowtie": _BOWTIE,
    "star-diamond": (4, 1, 0),
}
LINES: Mapping[str, Any] = {
    "solid": "-",
    "dash": (0, (5, 2)),
    "dot": (0, (1, 1.5)),
    "dashdot": (0, (5, 2, 1, 2)),
    "longdash": (0, (9, 3)),
    "longdashdot": (0, (9, 3, 1, 3)),
}
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
        cost: the frontier's horizontal axis.
        block: whose arms, for `ablation`, `heatmap` and `interaction`; may be left out where only one has several.
        axes: two axes of that block, for `heatmap` and `interaction`; may be left out where there are two.
        focus: arms (arm_id or label) of `curves`; empty for all.
        theme: light or dark.
        width: `column` or `page`.
        zoom: show the better part of the frontier only, where the rest would squeeze it.

    Raises:
        UnknownChoice: a kind, format, width, metric, cost, block, axis or arm that does not exist.
        LongrangeError: the file cannot be written.
    """
    for what, given, known in (("figure", kind, KINDS), ("width", width, WIDTHS), ("theme", theme, BACKGROUND)):
        if given not in known:
            raise UnknownChoice(what, given, list(known))
    target = Path(path)
    if target.suffix.lower() not in FORMATS:
        raise UnknownChoice("format", target.suffix or target.name, FORMATS)
    if kind == "frontier":
        info: Any = sweep.frontier_info(metric, cost)
    elif kind == "curves":
        info = sweep.curves_info(metric, [sweep.arm_id(arm) for arm in focus] or None, only=True)
    else:
        chosen = block or _only("block with several arms", list(sweep.families()))
        pair = _two(axes or list(map(str, sweep.design(chosen).columns))) if kind != "ablation" else ()
        info = sweep.cells_info(chosen, *pair, metric) if pair else sweep.ablation_info(chosen, metric)
    chart = draw(kind, info, theme=theme, width=width)
    ranges = frontier.zoom(info) if zoom and kind == "frontier" else None
    if ranges is not None:
        _zoom(chart.axes[0], info, ranges)
    return write(chart, target)


def draw(kind: str, info: Any, *, theme: Theme = "light", width: str = "column") -> Figure:
    """A figure from its numbers: `FrontierInfo`, `AblationInfo`, `CurvesInfo` or `CellsInfo`."""
    drawer, height = KINDS[kind]
    with matplotlib.rc_context(SETTINGS):
        chart = Figure(figsize=(WIDTHS[width], height(info)), layout="constrained", facecolor=BACKGROUND[theme])
        axes = chart.add_subplot(facecolor="none")
        _dress(axes, theme)
        drawer(axes, info, theme)
    return chart


def write(chart: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the same figure gives the same bytes."""
    kind = path.suffix.lower().removeprefix(".")
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
            aside = Path(folder) / path.name
            with matplotlib.rc_context(SETTINGS):
                chart.savefig(aside, format=kind, metadata=undated)
            aside.replace(path)
    except OSError as error:
        raise LongrangeError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _dress(axes: Axes, theme: Theme) -> None:
    ink = themes.INK[theme]
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(themes.FAINT)
    axes.tick_params(colors=ink, width=0.6, length=2.5)
    axes.grid(color=themes.GRID[theme], linewidth=0.5)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)


def _legend(axes: Axes, theme: Theme, **where: Any) -> None:
    axes.legend(fontsize=6, labelcolor=themes.INK[theme], handlelength=2.6, **where)


def _empty(axes: Axes, said: str, theme: Theme) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes, color=themes.INK[theme])


def _frontier(axes: Axes, info: frontier.FrontierInfo, theme: Theme) -> None:
    if not info.points:
        return _empty(axes, "No arm has both a result and a cost yet.", theme)
    end = max(point.cost for point in info.points)
    for edges, opacity in ((info.band, BAND_ALPHA + 0.04),) if info.band else ():
        cost, low, high = (np.array([*axis, axis[-1]]) for axis in zip(*edges, strict=True))
        cost[-1] = end
        axes.fill_between(cost, low, high, step="post", color=themes.FAINT, alpha=opacity, linewidth=0)
    steps = [*info.steps, (end, info.steps[-1][1])] if info.steps else []
    axes.step(*zip(*steps, strict=True), where="post", color=themes.FAINT, linestyle=":", label="frontier", zorder=1)
    for block in dict.fromkeys(point.block for point in info.points):
        _points(axes, block, [point for point in info.points if point.block == block])
    middle = float(np.median([point.cost for point in info.points]))
    for point in frontier.labelled(info):
        left = point.cost <= middle
        axes.annotate(
            point.label,
            (point.cost, point.mean),
            xytext=(3 if left else -3, 4),
            textcoords="offset points",
            ha="left" if left else "right",
            fontsize=6,
            color=themes.INK[theme],
        )
    if info.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylim(*frontier.vertical_range(info))
    unit = f" ({info.cost.unit})" if info.cost.unit and info.cost.unit not in info.cost.title else ""
    axes.set_xlabel(f"{info.cost.title}{unit}")
    axes.set_ylabel(f"{info.metric.title} ({info.metric.unit})")
    _legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=4)


def _zoom(axes: Axes, info: frontier.FrontierInfo, ranges: tuple[list[float], list[float]]) -> None:
    cost, value = ranges
    axes.set_xlim(*(10**end for end in cost) if info.logarithmic else cost)
    axes.set_ylim(*value)
    for note in axes.texts:
        note.set_clip_on(True)


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


def _ablation(axes: Axes, info: ablation.AblationInfo, theme: Theme) -> None:
    if not info.rows:
        return _empty(axes, "No arm of this block has a result yet.", theme)
    if info.control is not None:
        _control(axes, info, info.control, theme)
    for at, row in enumerate(info.rows):
        style = themes.style(row.block)
        axes.plot(row.seeds, [at] * len(row.seeds), ".", color=style.color, markersize=3, alpha=0.5)
        half = np.nan_to_num([[row.mean - row.low], [row.high - row.mean]])
        axes.errorbar(
            row.mean, at, xerr=half, marker=MARKERS[style.symbol], color=style.color, markersize=5, elinewidth=1.1
        )
    axes.set_yticks(range(len(info.rows)), [row.name for row in info.rows])
    axes.set_ylim(len(info.rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{info.metric.title} ({info.metric.unit})")


def _control(axes: Axes, info: ablation.AblationInfo, control: ablation.Row, theme: Theme) -> None:
    said = f"control {control.name}: {number(control.mean)} {info.metric.unit}"
    place: dict[str, Any] = {"fontsize": 6, "color": themes.INK[theme], "va": "bottom"}
    if info.control_is_far:
        left = control.mean < info.span[0]
        text, x = (f"◀ {said}", 0.0) if left else (f"{said} ▶", 1.0)
        axes.text(x, 1.01, text, transform=axes.transAxes, ha="left" if left else "right", **place)
        return
    if np.isfinite(control.low):
        axes.axvspan(control.low, control.high, color=themes.FAINT, alpha=BAND_ALPHA, linewidth=0)
    axes.axvline(control.mean, color=themes.FAINT, linestyle="--", linewidth=0.8)
    axes.text(control.mean, 1.01, said, transform=axes.get_xaxis_transform(), ha="center", **place)


def _curves(axes: Axes, info: curves.CurvesInfo, theme: Theme) -> None:
    if not info.curves:
        return _empty(axes, "No epoch has been recorded yet.", theme)
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
    axes.set_xlabel("Epoch")
    axes.set_ylabel(f"{info.metric.title} ({info.metric.unit})")
    _legend(axes, theme, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _heatmap(axes: Axes, info: effects.CellsInfo, theme: Theme) -> None:
    means = np.array(info.means, dtype=float)
    if not np.isfinite(means).any():
        return _empty(axes, "No combination of these axes has a result yet.", theme)
    shades = "cividis" if info.metric.higher_is_better else "cividis_r"
    image = axes.imshow(means, cmap=shades, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        known = np.isfinite(mean)
        said = f"{mean:.1f}\nn = {info.trials[row][column]}" if known else "not run"
        dark = known and sum(image.cmap(image.norm(mean))[:3]) < 1.5
        ink = "white" if dark else "black" if known else themes.INK[theme]
        axes.text(column, row, said, ha="center", va="center", fontsize=6, color=ink)
    axes.set_xticks(range(len(info.columns)), info.columns)
    axes.set_yticks(range(len(info.rows)), info.rows)
    axes.grid(visible=False)
    axes.set_xlabel(info.second)
    axes.set_ylabel(info.first)


def _interaction(axes: Axes, info: effects.CellsInfo, theme: Theme) -> None:
    if not np.isfinite(np.array(info.means, dtype=float)).any():
        return _empty(axes, "No combination of these axes has a result yet.", theme)
    styles = [style for name, style in themes.STYLES.items() if name != "none"]
    for at, (level, means) in enumerate(zip(info.rows, info.means, strict=True)):
        style, dash = styles[at % len(styles)], effects.DASHES[at % len(effects.DASHES)]
        axes.plot(
            range(len(info.columns)),
            means,
            color=style.color,
            linestyle=LINES[dash],
            marker=MARKERS[style.symbol],
            markersize=4,
            label=f"{info.first} = {level}",
        )
    axes.set_xticks(range(len(info.columns)), info.columns)
    axes.set_xlabel(info.second)
    axes.set_ylabel(f"{info.metric.title} ({info.metric.unit})")
    _legend(axes, theme, loc="best")


def _only(kind: str, found: Sequence[str]) -> str:
    if len(found) != 1:
        raise UnknownChoice(kind, "(not given)", found)
    return found[0]


def _two(found: Sequence[str]) -> tuple[str, str]:
    if len(found) != 2:
        raise UnknownChoice("pair of axes", "(not given)" if len(found) > 2 else ", ".join(found), found)
    return found[0], found[1]


def _wide(lines: int) -> float:
    """Height in inches of a plot with a legend of so many lines below it."""
    return 2.5 + 0.13 * lines


# Kind -> how it is drawn, and its height in inches.
KINDS: Mapping[str, tuple[Draw, Callable[[Any], float]]] = {
    "frontier": (_frontier, lambda info: _wide(-(-len({point.block for point in info.points}) // 4))),
    "ablation": (_ablation, lambda info: 0.75 + 0.2 * len(info.rows)),
    "curves": (_curves, lambda info: _wide(-(-len(info.curves) // 2))),
    "heatmap": (_heatmap, lambda info: 0.7 + 0.38 * len(info.rows)),
    "interaction": (_interaction, lambda _: 2.5),
}

assert set(MARKERS) >= {style.symbol for style in (*themes.STYLES.values(), *themes.SPARE)}
