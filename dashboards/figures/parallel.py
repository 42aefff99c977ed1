"""Parallel coordinates: every arm as a line through all axes, its cost and its result, in its block's colour.

Drawn as plain lines: Plotly's own parallel coordinates need WebGL and a page that may evaluate strings.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import text
from dashboards.analysis.axes import plain
from dashboards.analysis.same_data import best_first
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Cost, Metric

MOST_LINES = 150  # with more nothing can be followed; the best are kept
MOST_TICKS = 14


@dataclass(frozen=True)
class Coordinate:
    """One vertical axis.

    Attributes:
        title: its name.
        values: `[arms]` heights from 0 to 1.
        said: `[arms]` the values in words.
    """

    title: str
    values: tuple[float, ...]
    said: tuple[str, ...]

    @property
    def ticks(self) -> dict[str, float]:
        """What stands beside the axis: every level, or the ends where there are many."""
        found = dict(sorted(zip(self.said, self.values, strict=True), key=lambda pair: pair[1]))
        ends = list(found.items())
        return found if len(found) <= MOST_TICKS else dict([ends[0], ends[-1]])


@dataclass(frozen=True)
class ParallelInfo:
    """Arms with a result, `best_first`, and the axes they run through; `left_out` are the last of them."""

    labels: tuple[str, ...]
    blocks: tuple[str, ...]
    coordinates: tuple[Coordinate, ...]
    left_out: int


def info(design: pd.DataFrame, table: pd.DataFrame, metric: Metric, cost: Cost) -> ParallelInfo:
    """The chart's numbers.

    Args:
        design: `analysis.axes.design` of all arms; axes that do not vary are left out.
        table: `Sweep.table`.
        metric: last axis.
        cost: last but one axis.
    """
    ranked = best_first(table[np.isfinite(table["mean"])], higher_is_better=metric.higher_is_better)
    shown = ranked.iloc[:MOST_LINES]
    part = design.loc[shown.index].astype(object)
    part = part.where(part.notna(), text.MISSING)
    found = [_levels(str(name), part[name]) for name in part if part[name].nunique() > 1]
    costs = shown[cost.name].astype(float)
    if len(shown) and np.isfinite(costs).all():
        unit = "" if cost.unit in cost.title else cost.unit
        found.append(_numbers(cost.title, costs, [text.quantity(each, unit) for each in costs]))
    said = [metric.number(each) for each in shown["mean"]]
    found.append(_numbers(metric.axis, shown["mean"].astype(float), said))
    labels, blocks = tuple(map(str, shown["label"])), tuple(map(str, shown["block"]))
    return ParallelInfo(labels, blocks, tuple(found), len(ranked) - len(shown))


def draw(info: ParallelInfo, theme: Theme = "light") -> go.Figure:
    """The chart; a click on a block in the legend hides its arms."""
    if not info.labels:
        return themes.message("No arm has a result yet.", theme)
    chart = themes.figure(theme, height=440)
    chart.add_traces([_trace(info, block) for block in dict.fromkeys(info.blocks)])
    for at, axis in enumerate(info.coordinates):
        chart.add_vline(x=at, line={"color": themes.FAINT, "width": 1}, layer="below")
        for said, height in axis.ticks.items():
            beside = {"xanchor": "right", "xshift": -5, "yshift": 7}
            chart.add_annotation(text=html.escape(said), x=at, y=height, showarrow=False, font={"size": 10}, **beside)
    titles = [html.escape(axis.title) for axis in info.coordinates]
    chart.update_xaxes(
        tickvals=list(range(len(titles))), ticktext=titles, showgrid=False, zeroline=False, tickangle=-25
    )
    chart.update_yaxes(visible=False, range=[-0.06, 1.1])
    return chart


def _levels(name: str, values: pd.Series) -> Coordinate:
    levels = list(dict.fromkeys(sorted(map(str, values), key=_order)))
    top = max(len(levels) - 1, 1)
    said = tuple(map(str, values))
    return Coordinate(plain(name), tuple(levels.index(each) / top for each in said), said)


def _order(level: str) -> tuple[int, float, str]:
    """What an arm does not have first, then numbers by size, then words."""
    if level == text.MISSING:
        return 0, 0.0, level
    try:
        return 1, float(level), level
    except ValueError:
        return 2, 0.0, level


def _numbers(title: str, values: pd.Series, said: list[str]) -> Coordinate:
    least, most = float(values.min()), float(values.max())
    return Coordinate(title, tuple(((values - least) / ((most - least) or 1.0)).tolist()), tuple(said))


def _trace(info: ParallelInfo, block: str) -> dict[str, object]:
    """All arms of a block in one trace, with gaps between them."""
    x: list[float | None] = []
    y: list[float | None] = []
    hover: list[str] = []
    labels: list[str | None] = []
    for arm in (at for at, each in enumerate(info.blocks) if each == block):
        for at, axis in enumerate(info.coordinates):
            x.append(at)
            y.append(axis.values[arm])
            labels.append(info.labels[arm])
            hover.append(
                f"<b>{html.escape(info.labels[arm])}</b><br>{html.escape(axis.title)}: {html.escape(axis.said[arm])}"
            )
        x.append(None)
        y.append(None)
        hover.append("")
        labels.append(None)
    style = themes.style(block)
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "mode": "lines+markers",
        "line": {"color": style.color, "width": 1.5},
        "marker": {"color": style.color, "symbol": style.symbol, "size": 7},
        "opacity": 0.75,
        "name": block,
        "text": hover,
        "customdata": labels,
        "hovertemplate": "%{text}<extra></extra>",
    }
