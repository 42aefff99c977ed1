"""Accuracy over cost: every arm with its seeds and interval, the frontier, and how sure it is."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.analysis.frontier import NEAR, ON, UNKNOWN
from dashboards.figures import labels
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Cost, Metric
from dashboards.text import configuration, count, quantity

LOG_ABOVE = 5.0  # ratio of the dearest to the cheapest arm from which the cost axis is logarithmic
MOST_LABELS = 7
LABEL_WIDTH = 110  # characters across a chart of usual width
HOVER_WIDTH, INDENT = 84, "\u2003"  # characters; an em space, which HTML keeps
OPACITY = {ON: 1.0, NEAR: 0.85, UNKNOWN: 0.7}
DOMINATED_OPACITY = 0.55
OUTLINE = {"light": "rgba(0,0,0,0.55)", "dark": "rgba(255,255,255,0.7)"}  # of arms on the frontier


@dataclass(frozen=True)
class Point:
    """One arm on the chart. `low` and `high` are NaN with one seed; `said` are lines of safe HTML."""

    arm_id: str
    label: str
    block: str
    cost: float
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    standing: str
    said: tuple[str, ...]
    spec: Mapping[str, Any]

    @property
    def hover(self) -> str:
        """What is said of it, and its whole configuration, as safe HTML; made when drawn, as few of many arms are."""
        whole = [line for part in configuration(self.spec) for line in _wrapped(part)]
        return "<br>".join([*self.said, "", *map(html.escape, whole)])


@dataclass(frozen=True)
class FrontierInfo:
    """Everything the chart shows.

    Attributes:
        metric: the vertical axis.
        cost: the horizontal axis.
        points: arms with a cost and a value.
        steps: (cost, mean) of the arms on the frontier, cheap to dear.
        band: (cost, low, high) of the frontier, 95 % over resampled seeds; empty if undefined.
        left_out: arms without a value or a cost.
    """

    metric: Metric
    cost: Cost
    points: tuple[Point, ...]
    steps: tuple[tuple[float, float], ...]
    band: tuple[tuple[float, float, float], ...]
    left_out: int

    @property
    def logarithmic(self) -> bool:
        """Is the cost axis logarithmic?"""
        costs = [point.cost for point in self.points]
        return bool(costs) and min(costs) > 0 and max(costs) / min(costs) > LOG_ABOVE


def info(
    table: pd.DataFrame, values: pd.DataFrame, metric: Metric, cost: Cost, band: pd.DataFrame, specs: pd.Series
) -> FrontierInfo:
    """The numbers of the chart.

    Args:
        table: `Sweep.table` of `metric` and `cost`.
        values: `[arms, seeds]` of `metric`.
        metric: the vertical axis.
        cost: the horizontal axis.
        band: `analysis.frontier.band`: cost, low, high.
        specs: `[arms]` full configurations.
    """
    shown = table[np.isfinite(table["mean"]) & np.isfinite(table[cost.name])]
    readable, size = cost.readable(float(shown[cost.name].max()))
    points = [
        Point(
            arm_id=arm,
            label=row["label"],
            block=row["block"],
            cost=float(row[cost.name]) / size,
            mean=float(row["mean"]),
            low=float(row["low"]),
            high=float(row["high"]),
            seeds=frames.seeds_of(values, arm),
            standing=row["standing"],
            said=_said(row, metric, cost),
            spec=specs[arm],
        )
        for arm, row in frames.rows(shown)
    ]
    on = sorted((point for point in points if point.standing == ON), key=lambda point: point.cost)
    edges = band[["cost", "low", "high"]].dropna()
    return FrontierInfo(
        metric=metric,
        cost=readable,
        points=tuple(points),
        steps=tuple((point.cost, point.mean) for point in on),
        band=tuple(map(tuple, edges.assign(cost=edges["cost"] / size).to_numpy().tolist())),
        left_out=len(table) - len(shown),
    )


def draw(info: FrontierInfo, theme: Theme = "light") -> go.Figure:
    """The chart. Clicking a point gives its arm_id in `customdata`."""
    if not info.points:
        return themes.message(nothing(info), theme)
    chart = themes.figure(theme, height=480)
    _draw_band(chart, info)
    blocks = dict.fromkeys(point.block for point in info.points)
    traces = [_traces(block, [point for point in info.points if point.block == block], theme) for block in blocks]
    chart.add_traces([trace for pair in traces for trace in pair])  # at once: each call checks every property again
    for point, rightwards in labelled(info):
        chart.add_annotation(
            x=np.log10(point.cost) if info.logarithmic else point.cost,
            y=point.mean,
            text=html.escape(point.label),
            showarrow=False,
            xanchor="left" if rightwards else "right",
            yanchor="bottom",
            yshift=6,
            font={"size": 11},
        )
    chart.update_xaxes(title_text=axis_title(info), type="log" if info.logarithmic else "linear")
    if info.cost.prefixed:
        chart.update_xaxes(tickformat="~s")
    chart.update_xaxes(range=horizontal_range(info), dtick="D2" if info.logarithmic else None)
    chart.update_yaxes(title_text=info.metric.axis, range=vertical_range(info))
    return chart


def labelled(info: FrontierInfo, fits: int = LABEL_WIDTH) -> list[tuple[Point, bool]]:
    """Arms on the frontier whose names fit, best first, and whether each name stands to the right of its point.

    Args:
        info: the chart's numbers.
        fits: how many characters of a name go across the plot.
    """
    costs = np.array([point.cost for point in info.points])
    costs = np.log10(costs) if info.logarithmic else costs
    low, high = vertical_range(info)
    x = (costs - costs.min()) / (np.ptp(costs) or 1.0)
    places = [
        labels.Place(float(at), (point.mean - low) / (high - low), point.label)
        for at, point in zip(x, info.points, strict=True)
    ]
    sign = -1 if info.metric.higher_is_better else 1
    on = [at for at, point in enumerate(info.points) if point.standing == ON]
    on.sort(key=lambda at: sign * info.points[at].mean)
    return [(info.points[each.at], each.rightwards) for each in labels.arrange(places, on, fits, MOST_LABELS)]


def _said(row: dict[str, Any], metric: Metric, cost: Cost) -> tuple[str, ...]:
    span = metric.interval(row["low"], row["high"])
    certain = f"95 % interval {span}" if row["n"] > 1 else "one seed: interval unknown"
    lines = [
        f"<b>{html.escape(row['label'])}</b>",
        f"{metric.title}: <b>{metric.exactly(row['mean'])}</b>, {certain}, {count(int(row['n']), 'seed')}",
        f"{cost.title}: {quantity(row[cost.name], cost.unit)}",
    ]
    chance = f" (on it in {100 * row['probability']:.0f} % of resamples)" if np.isfinite(row["probability"]) else ""
    lines.append(f"{row['standing']}{chance}")
    if row["at_chance"]:
        lines.append(f"{count(int(row['at_chance']), 'diverged trial')} counted at chance level")
    return tuple(lines)


def _wrapped(text: str) -> Sequence[str]:
    return textwrap.wrap(text, HOVER_WIDTH, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)


def _draw_band(chart: go.Figure, info: FrontierInfo) -> None:
    end = max(point.cost for point in info.points)
    if info.band:
        cost, low, high = (list(axis) for axis in zip(*info.band, strict=True))
        cost, low, high = [*cost, end], [*low, low[-1]], [*high, high[-1]]
        shape = {"shape": "hv", "width": 0}
        shared: dict[str, Any] = {"mode": "lines", "line": shape, "hoverinfo": "skip", "showlegend": False}
        chart.add_scatter(x=cost, y=low, **shared)
        chart.add_scatter(x=cost, y=high, fill="tonexty", fillcolor=themes.BAND, **shared)
    if info.steps:
        cost, mean = (list(axis) for axis in zip(*info.steps, strict=True))
        chart.add_scatter(
            x=[*cost, end],
            y=[*mean, mean[-1]],
            mode="lines",
            line={"shape": "hv", "dash": "dot", "width": 1.5, "color": themes.FAINT},
            name="frontier, 95 % band" if info.band else "frontier",
            hoverinfo="skip",
        )


def _traces(block: str, points: Sequence[Point], theme: Theme) -> list[dict[str, Any]]:
    """One block's seeds, if any are shown, and its means."""
    style = themes.style(block)
    dots = [(point.cost, value) for point in points for value in point.seeds]
    seeds = {
        "type": "scatter",
        "x": [cost for cost, _ in dots],
        "y": [value for _, value in dots],
        "mode": "markers",
        "marker": {"color": style.color, "size": 4, "opacity": 0.45},
        "legendgroup": block,
        "showlegend": False,
        "hoverinfo": "skip",
    }
    means = {
        "type": "scatter",
        "x": [point.cost for point in points],
        "y": [point.mean for point in points],
        "mode": "markers",
        "marker": {
            "color": style.color,
            "symbol": style.symbol,
            "size": 12,
            "opacity": [OPACITY.get(point.standing, DOMINATED_OPACITY) for point in points],
            "line": {"width": [1.5 if point.standing == ON else 0 for point in points], "color": OUTLINE[theme]},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [max(point.high - point.mean, 0) if np.isfinite(point.high) else 0 for point in points],
            "arrayminus": [max(point.mean - point.low, 0) if np.isfinite(point.low) else 0 for point in points],
            "color": style.color,
            "thickness": 1.2,
            "width": 3,
        },
        "name": block,
        "legendgroup": block,
        "customdata": [point.arm_id for point in points],
        "text": [point.hover for point in points],
        "hovertemplate": "%{text}<extra></extra>",
    }
    return [seeds, means] if dots else [means]


def vertical_range(info: FrontierInfo) -> list[float]:
    """From the means: stray seeds and the intervals they cause would squeeze all other arms."""
    seen = [point.mean for point in info.points]
    room = 0.08 * (max(seen) - min(seen) or 1.0)
    return [min(seen) - room, max(seen) + room]


def horizontal_range(info: FrontierInfo) -> list[float]:
    """From the costs alone: left to itself, Plotly makes room for the names, half the chart in a narrow window."""
    seen = [np.log10(point.cost) if info.logarithmic else point.cost for point in info.points]
    room = 0.05 * (max(seen) - min(seen) or abs(max(seen)) or 1.0)
    return [float(min(seen) - room), float(max(seen) + room)]


def zoom(info: FrontierInfo) -> tuple[list[float], list[float]] | None:
    """Axis ranges (cost, value) that show the better half of the arms, if that helps; None if it does not."""
    if len(info.points) < 4:
        return None
    sign = 1 if info.metric.higher_is_better else -1
    best = sorted(info.points, key=lambda point: -sign * point.mean)
    dearest = np.quantile([point.cost for point in best], 0.9)
    kept = [point for point in best[: -(-len(best) * 3 // 4)] if point.cost <= dearest]
    ranges = []
    for seen in ([point.cost for point in kept], [value for point in kept for value in (*point.seeds, point.mean)]):
        room = 0.06 * (max(seen) - min(seen) or 1.0)
        ranges.append([min(seen) - room, max(seen) + room])
    if info.logarithmic:
        ranges[0] = [float(np.log10(max(end, 1e-9))) for end in ranges[0]]
    full = vertical_range(info)
    return (ranges[0], ranges[1]) if np.ptp(ranges[1]) < 0.5 * np.ptp(full) else None


def nothing(info: FrontierInfo) -> str:
    """What is said where there is nothing to draw."""
    return f"No arm has both a result and a value for “{info.cost.title}”."


def axis_title(info: FrontierInfo) -> str:
    """What the horizontal axis is, with its unit."""
    unit = f" ({info.cost.unit})" if info.cost.unit and info.cost.unit not in info.cost.title else ""
    return f"{info.cost.title}{unit}" + (", logarithmic" if info.logarithmic else "")
