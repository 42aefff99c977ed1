"""Axes against each other: a heat map and an interaction plot for two, parallel coordinates for all."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards.analysis.axes import plain
from dashboards.analysis.effects import cell_means
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Cost, Metric

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


@dataclass(frozen=True)
class CellsInfo:
    """Means over every combination of two axes; NaN where nothing was run.

    Attributes:
        metric: what was measured.
        first: rows' axis.
        second: columns' axis.
        rows: levels of `first`.
        columns: levels of `second`.
        means: `[rows, columns]`.
        trials: `[rows, columns]` number of values behind each mean.
    """

    metric: Metric
    first: str
    second: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    trials: tuple[tuple[int, ...], ...]


def cells(design: pd.DataFrame, values: pd.DataFrame, first: str, second: str, metric: Metric) -> CellsInfo:
    """The numbers of `heatmap` and `interaction`.

    Args:
        design: `[arms, axes]`.
        values: `[arms, seeds]` of `metric`.
        first: axis of the rows.
        second: axis of the columns.
        metric: what was measured.
    """
    means = cell_means(design, values, first, second)
    counted = values.loc[design.index].notna().sum(axis=1)
    counts = design.assign(n=counted).pivot_table(index=first, columns=second, values="n", aggfunc="sum", sort=False)
    counts = counts.reindex(index=means.index, columns=means.columns).fillna(0).astype(int)
    return CellsInfo(
        metric=metric,
        first=plain(first),
        second=plain(second),
        rows=tuple(map(str, means.index)),
        columns=tuple(map(str, means.columns)),
        means=tuple(map(tuple, means.to_numpy(float).tolist())),
        trials=tuple(map(tuple, counts.to_numpy().tolist())),
    )


def heatmap(info: CellsInfo, theme: Theme = "light") -> go.Figure:
    """Two axes as a grid, each cell with its mean and n; cells that were not run stay empty."""
    if not np.isfinite(np.array(info.means, dtype=float)).any():
        return themes.message("No combination of these axes has a result yet.", theme)
    chart = themes.figure(theme, height=140 + 46 * len(info.rows))
    texts = [
        [f"{mean:.1f}<br>n = {n}" if np.isfinite(mean) else "not run" for mean, n in zip(*pair, strict=True)]
        for pair in zip(info.means, info.trials, strict=True)
    ]
    chart.add_heatmap(
        z=info.means,
        x=[html.escape(level) for level in info.columns],
        y=[html.escape(level) for level in info.rows],
        text=texts,
        texttemplate="%{text}",
        colorscale="Cividis",
        reversescale=not info.metric.higher_is_better,
        colorbar={"title": {"text": info.metric.unit}},
        hovertemplate=f"{html.escape(info.first)} %{{y}}, {html.escape(info.second)} %{{x}}: %{{text}}<extra></extra>",
        hoverongaps=False,
        xgap=2,
        ygap=2,
    )
    chart.update_xaxes(title_text=html.escape(info.second), type="category", showgrid=False)
    chart.update_yaxes(title_text=html.escape(info.first), type="category", autorange="reversed", showgrid=False)
    return chart


def interaction(info: CellsInfo, theme: Theme = "light") -> go.Figure:
    """One line per level of the rows' axis over the columns' axis: parallel lines are no interaction."""
    if not np.isfinite(np.array(info.means, dtype=float)).any():
        return themes.message("No combination of these axes has a result yet.", theme)
    chart = themes.figure(theme, height=380)
    colors = [style.color for name, style in themes.STYLES.items() if name != "none"]
    symbols = [style.symbol for name, style in themes.STYLES.items() if name != "none"]
    for at, (level, means) in enumerate(zip(info.rows, info.means, strict=True)):
        chart.add_scatter(
            x=[html.escape(each) for each in info.columns],
            y=means,
            mode="lines+markers",
            name=f"{html.escape(info.first)} = {html.escape(level)}",
            line={"color": colors[at % len(colors)], "dash": DASHES[at % len(DASHES)]},
            marker={"symbol": symbols[at % len(symbols)], "size": 9},
            connectgaps=False,
        )
    chart.update_xaxes(title_text=html.escape(info.second), type="category")
    chart.update_yaxes(title_text=f"{info.metric.title} ({info.metric.unit})")
    return chart


@dataclass(frozen=True)
class Coordinate:
    """One vertical axis: a level per arm as a number, with its name where it is a category."""

    title: str
    values: tuple[float, ...]
    ticks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ParallelInfo:
    """Every arm with a result as a line through all axes."""

    metric: Metric
    coordinates: tuple[Coordinate, ...]
    means: tuple[float, ...]


def parallel_info(design: pd.DataFrame, table: pd.DataFrame, metric: Metric, cost: Cost) -> ParallelInfo:
    """The numbers of `parallel`.

    Args:
        design: `analysis.axes.design` of all arms; axes that do not vary are left out.
        table: `Sweep.table`.
        metric: last axis and colour.
        cost: last but one axis.
    """
    shown = table[np.isfinite(table["mean"])]
    part = design.loc[shown.index].astype(object)
    part = part.where(part.notna(), "–")
    axes = [str(name) for name in part if part[name].nunique() > 1]
    found = []
    for name in axes:
        levels = list(dict.fromkeys(part[name]))
        found.append(Coordinate(plain(name), tuple(float(levels.index(each)) for each in part[name]), tuple(levels)))
    if np.isfinite(shown[cost.name]).all() and len(shown):
        found.append(Coordinate(cost.title, tuple(shown[cost.name].astype(float))))
    found.append(Coordinate(f"{metric.title} ({metric.unit})", tuple(shown["mean"].astype(float))))
    return ParallelInfo(metric, tuple(found), tuple(shown["mean"].astype(float)))


def parallel(info: ParallelInfo, theme: Theme = "light") -> go.Figure:
    """The chart: drag along an axis to filter."""
    if not info.means:
        return themes.message("No arm has a result yet.", theme)
    chart = themes.figure(theme, height=440)
    chart.add_parcoords(
        line={"color": info.means, "colorscale": "Cividis", "reversescale": not info.metric.higher_is_better},
        dimensions=[_dimension(each) for each in info.coordinates],
        labelangle=-20,
        labelside="bottom",
    )
    return chart.update_layout(margin={"l": 90, "r": 60, "t": 30, "b": 110})


def _dimension(coordinate: Coordinate) -> dict[str, object]:
    found: dict[str, object] = {"label": coordinate.title, "values": coordinate.values}
    if coordinate.ticks:
        found |= {"tickvals": list(range(len(coordinate.ticks))), "ticktext": list(coordinate.ticks)}
    else:
        found["tickformat"] = "~s"
    return found
