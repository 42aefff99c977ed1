"""One block's arms side by side: seeds, means, intervals, and the control's band."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Metric

WIDE = 0.5  # intervals reach beyond the seeds by this times their range at most, and are cut there
FAR = 1.0  # the control is left off the axis if it lies further out than the arms' own range, times this


@dataclass(frozen=True)
class Row:
    """One arm; intervals are NaN with one seed."""

    arm_id: str
    name: str
    block: str
    mean: float
    low: float
    high: float
    seeds: tuple[float, ...]
    verdict: str
    difference: float


@dataclass(frozen=True)
class AblationInfo:
    """Rows from first to last arm, and the control's mean and interval (None without a control)."""

    metric: Metric
    rows: tuple[Row, ...]
    control: Row | None

    @property
    def span(self) -> tuple[float, float]:
        """Smallest and largest value among the rows' seeds."""
        seen = [value for row in self.rows for value in row.seeds]
        return (min(seen), max(seen)) if seen else (float("nan"), float("nan"))

    @property
    def control_is_far(self) -> bool:
        """Would showing the control squeeze the arms?"""
        if self.control is None or not np.isfinite(self.control.mean) or not self.rows:
            return False
        least, most = self.span
        reach = FAR * max(most - least, 1e-9)
        return not least - reach <= self.control.mean <= most + reach


def info(table: pd.DataFrame, values: pd.DataFrame, metric: Metric, names: pd.Series | None = None) -> AblationInfo:
    """The chart's numbers.

    Args:
        table: rows of `Sweep.table` to compare; the control's row is taken as the band.
        values: `[arms, seeds]` of `metric`.
        metric: the horizontal axis.
        names: `[arms]` what to call each row; its label by default.
    """
    rows = [_row(arm, row, values, names) for arm, row in frames.rows(table) if row["n"] > 0]
    controls = set(table.index[table["is_control"]])
    control = [row for row in rows if row.arm_id in controls]
    return AblationInfo(metric, tuple(row for row in rows if row not in control), control[0] if control else None)


def draw(info: AblationInfo, theme: Theme = "light") -> go.Figure:
    """The chart."""
    if not info.rows:
        return themes.message("No arm of this block has a result yet.", theme)
    chart = themes.figure(theme, height=110 + 34 * len(info.rows))
    if info.control is not None:
        _draw_control(chart, info, info.control)
    for row in info.rows:
        _draw_row(chart, row, info.metric)
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    chart.update_xaxes(title_text=info.metric.axis, range=horizontal_range(info))
    return chart.update_layout(showlegend=False, margin={"t": 36})


def horizontal_range(info: AblationInfo) -> list[float]:
    """Every seed, the control unless it is far, and intervals as far as they do not squeeze the rest."""
    least, most = info.span
    reach = WIDE * (most - least) or 1.0
    ends = [end for row in info.rows for end in (row.low, row.high) if np.isfinite(end)]
    edges = [least, most, *np.clip(ends, least - reach, most + reach)]
    if info.control is not None and not info.control_is_far:
        edges += _band(info.control)
    room = 0.05 * (max(edges) - min(edges) or 1.0)
    return info.metric.within([min(edges) - room, max(edges) + room])


def _row(arm: str, row: dict[str, Any], values: pd.DataFrame, names: pd.Series | None) -> Row:
    return Row(
        arm_id=arm,
        name=row["label"] if names is None or arm not in names.index else names[arm],
        block=row["block"],
        mean=float(row["mean"]),
        low=float(row["low"]),
        high=float(row["high"]),
        seeds=frames.seeds_of(values, arm),
        verdict=row["verdict"],
        difference=float(row["difference"]),
    )


def _band(control: Row) -> list[float]:
    return [control.low, control.high] if np.isfinite(control.low) else [control.mean, control.mean]


def _draw_control(chart: go.Figure, info: AblationInfo, control: Row) -> None:
    said = f"control {html.escape(control.name)}: {info.metric.said(control.mean)}"
    if info.control_is_far:
        left = control.mean < info.span[0]
        arrow = f"◀ {said}" if left else f"{said} ▶"
        x, anchor = (0, "left") if left else (1, "right")
        place = {"x": x, "xref": "paper", "xanchor": anchor}
    else:
        low, high = _band(control)
        chart.add_vrect(x0=low, x1=high, fillcolor=themes.BAND, line_width=0, layer="below")
        chart.add_vline(x=control.mean, line={"dash": "dash", "color": themes.FAINT, "width": 1})
        arrow, place = said, {"x": control.mean, "xref": "x", "xanchor": "center"}
    font = {"size": 11, "color": themes.FAINT}
    chart.add_annotation(text=arrow, y=1, yref="paper", yanchor="bottom", showarrow=False, font=font, **place)


def _draw_row(chart: go.Figure, row: Row, metric: Metric) -> None:
    style, name = themes.style(row.block), html.escape(row.name)
    chart.add_scatter(
        x=row.seeds,
        y=[name] * len(row.seeds),
        mode="markers",
        marker={"color": style.color, "size": 7, "opacity": 0.4},
        hovertemplate=f"one seed: {metric.hovering('x')}<extra></extra>",
    )
    certain = f"95 % CI {metric.interval(row.low, row.high)}" if np.isfinite(row.low) else "interval unknown (one seed)"
    change = f"{metric.change(row.difference)}: {row.verdict}"
    chart.add_scatter(
        x=[row.mean],
        y=[name],
        mode="markers",
        marker={"color": style.color, "symbol": style.symbol, "size": 12},
        error_x={
            "type": "data",
            "array": [row.high - row.mean if np.isfinite(row.high) else 0],
            "color": style.color,
            "thickness": 2,
            "width": 5,
        },
        customdata=[row.arm_id],
        hovertemplate=f"<b>{name}</b><br>{metric.exactly(row.mean)}, {certain}<br>{change}<extra></extra>",
    )
