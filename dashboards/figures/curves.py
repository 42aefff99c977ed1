"""Learning curves: mean over seeds per epoch with its 95 % band."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Metric

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")  # arms of one block share its colour


@dataclass(frozen=True)
class Curve:
    """One arm: `[epochs]` each; `low` and `high` are NaN where fewer than two seeds reached the epoch."""

    label: str
    block: str
    dash: str
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    shown: bool


@dataclass(frozen=True)
class CurvesInfo:
    """All curves of a metric; those not in focus wait in the legend."""

    metric: Metric
    curves: tuple[Curve, ...]


def info(epochs: pd.DataFrame, arms: pd.DataFrame, metric: Metric, focus: Sequence[str] | None = None) -> CurvesInfo:
    """The curves, in the plan's order.

    Args:
        epochs: `Sweep.curves_table`.
        arms: `Sweep.arms`.
        metric: what was measured per epoch.
        focus: arm_ids drawn at once; None is all.
    """
    found, used = [], dict.fromkeys(arms["block"], 0)
    groups = {str(arm): part for arm, part in epochs.groupby("arm_id")}
    for arm, row in frames.rows(arms):
        if arm not in groups:
            continue
        part = groups[arm].sort_values("epoch")
        mean, low, high = (tuple(part[name].astype(float)) for name in ("mean", "low", "high"))
        dash = DASHES[used[row["block"]] % len(DASHES)]
        used[row["block"]] += 1
        shown = focus is None or arm in focus
        found.append(Curve(row["label"], row["block"], dash, tuple(part["epoch"].astype(int)), mean, low, high, shown))
    return CurvesInfo(metric, tuple(found))


def draw(info: CurvesInfo, theme: Theme = "light") -> go.Figure:
    """The chart; epochs are counted from 1."""
    if not info.curves:
        return themes.message("No epoch has been recorded yet.", theme)
    chart = themes.figure(theme, height=430)
    for curve in info.curves:
        color = themes.style(curve.block).color
        x = [epoch + 1 for epoch in curve.epochs]
        group = {"legendgroup": curve.label, "visible": True if curve.shown else "legendonly"}
        if np.isfinite(curve.low).all():
            red, green, blue = hex_to_rgb(color)
            chart.add_scatter(
                x=[*x, *x[::-1]],
                y=[*curve.high, *curve.low[::-1]],
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},0.13)",
                mode="none",
                hoverinfo="skip",
                showlegend=False,
                **group,
            )
        chart.add_scatter(
            x=x,
            y=curve.mean,
            name=html.escape(curve.label),
            mode="lines+markers",
            line={"color": color, "dash": curve.dash, "width": 2},
            marker={"symbol": themes.style(curve.block).symbol, "size": 7},
            hovertemplate=f"{html.escape(curve.label)}<br>epoch %{{x}}: {info.metric.hovering('y')}<extra></extra>",
            **group,
        )
    chart.update_xaxes(title_text="Epoch", dtick=1 if max(len(curve.epochs) for curve in info.curves) <= 20 else None)
    chart.update_yaxes(title_text=info.metric.axis, range=vertical_range(info))
    return chart.update_layout(legend={"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"})


def vertical_range(info: CurvesInfo) -> list[float] | None:
    """From the means and half the curves' bands: a band from 20 to 130 % would squeeze all others into a line.

    None where no curve that is shown has a value.
    """
    shown = [curve for curve in info.curves if curve.shown] or info.curves
    means = np.array([value for curve in shown for value in curve.mean], dtype=float)
    halves = np.array([high - mean for curve in shown for high, mean in zip(curve.high, curve.mean, strict=True)])
    if not np.isfinite(means).any():
        return None
    halves = halves[np.isfinite(halves)]
    room = max(0.06 * (np.nanmax(means) - np.nanmin(means)), float(np.median(halves)) if len(halves) else 0.0)
    room = room or 1.0
    return info.metric.within([np.nanmin(means) - room, np.nanmax(means) + room])
