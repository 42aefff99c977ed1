"""Two axes against each other: a heat map and an interaction plot."""

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
from dashboards.metrics import Metric

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "star", "cross", "pentagon")


@dataclass(frozen=True)
class CellsInfo:
    """Means over every combination of two axes; NaN where nothing was run.

    Attributes:
        metric: what was measured.
        block: whose axes.
        first: rows' axis.
        second: columns' axis.
        rows: levels of `first`.
        columns: levels of `second`.
        means: `[rows, columns]`.
        trials: `[rows, columns]` number of values behind each mean.
    """

    metric: Metric
    block: str
    first: str
    second: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    trials: tuple[tuple[int, ...], ...]


def cells(design: pd.DataFrame, values: pd.DataFrame, metric: Metric, block: str, axes: tuple[str, str]) -> CellsInfo:
    """The numbers of `heatmap` and `interaction`.

    Args:
        design: `[arms, axes]`.
        values: `[arms, seeds]` of `metric`.
        metric: what was measured.
        block: whose arms the design is of.
        axes: of the rows, and of the columns.
    """
    first, second = axes
    means = cell_means(design, values, first, second)
    counted = values.loc[design.index].notna().sum(axis=1)
    counts = design.assign(n=counted).pivot_table(index=first, columns=second, values="n", aggfunc="sum", sort=False)
    counts = counts.reindex(index=means.index, columns=means.columns).fillna(0).astype(int)
    return CellsInfo(
        metric=metric,
        block=block,
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
    rows = zip(info.means, info.trials, strict=True)
    texts = [[_cell(info.metric, *cell) for cell in zip(*pair, strict=True)] for pair in rows]
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


def _cell(metric: Metric, mean: float, trials: int) -> str:
    return f"{metric.number(mean)}<br>n = {trials}" if np.isfinite(mean) else "not run"


def interaction(info: CellsInfo, theme: Theme = "light") -> go.Figure:
    """One line per level of the rows' axis over the columns' axis: parallel lines are no interaction."""
    if not np.isfinite(np.array(info.means, dtype=float)).any():
        return themes.message("No combination of these axes has a result yet.", theme)
    chart = themes.figure(theme, height=380)
    shades, over = themes.shades(info.block, len(info.rows), theme), html.escape(info.second)
    for at, (level, means) in enumerate(zip(info.rows, info.means, strict=True)):
        chart.add_scatter(
            x=[html.escape(each) for each in info.columns],
            y=means,
            mode="lines+markers",
            name=f"{html.escape(info.first)} = {html.escape(level)}",
            line={"color": shades[at], "dash": DASHES[at % len(DASHES)]},
            marker={"symbol": MARKS[at % len(MARKS)], "size": 9},
            connectgaps=False,
            hovertemplate=f"%{{fullData.name}}, {over} = %{{x}}: {info.metric.hovering('y')}<extra></extra>",
        )
    chart.update_xaxes(title_text=over, type="category")
    chart.update_yaxes(title_text=info.metric.axis)
    return chart
