"""What failed and what it cost: trials per state and device time per arm."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.text import count, duration

USEFUL, LOST = "#a9b3c2", "#6b7686"  # greys: colours belong to blocks


class Spent(NamedTuple):
    """Device time of one arm."""

    label: str
    useful_seconds: float
    lost_seconds: float
    attempts: int
    retries: int


@dataclass(frozen=True)
class FailuresInfo:
    """Arms that spent device time, most lost first, and trials per state."""

    arms: tuple[Spent, ...]
    states: Mapping[str, int]


def info(accounting: pd.DataFrame, labels: pd.Series, states: Mapping[str, int]) -> FailuresInfo:
    """The bars.

    Args:
        accounting: `Sweep.cost_accounting`.
        labels: `[arms]`.
        states: trials per state.
    """
    spent = accounting[accounting["attempts"] > 0].sort_values(["lost_seconds", "useful_seconds"], ascending=False)
    rows = [
        Spent(str(labels[arm]), row["useful_seconds"], row["lost_seconds"], int(row["attempts"]), int(row["retries"]))
        for arm, row in frames.rows(spent)
    ]
    return FailuresInfo(tuple(rows), dict(states))


def draw(info: FailuresInfo, theme: Theme = "light") -> go.Figure:
    """Stacked bars: time that gave results, and (hatched) time that did not."""
    if not info.arms:
        return themes.message("No attempt has ended yet.", theme)
    chart = themes.figure(theme, height=130 + 24 * len(info.arms))
    _bars(chart, info, "gave a result", [arm.useful_seconds for arm in info.arms], USEFUL, "")
    _bars(chart, info, "gave none", [arm.lost_seconds for arm in info.arms], LOST, "/")
    chart.update_xaxes(title_text="Device seconds")
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return chart.update_layout(barmode="stack")


def _bars(chart: go.Figure, info: FailuresInfo, name: str, seconds: list[float], color: str, hatch: str) -> None:
    tries = [f"{count(arm.attempts, 'attempt')}, {arm.retries} of them again" for arm in info.arms]
    chart.add_bar(
        x=seconds,
        y=[html.escape(arm.label) for arm in info.arms],
        orientation="h",
        name=name,
        marker={"color": color, "pattern": {"shape": hatch}},
        customdata=[f"{duration(each)} {name}; {tried}" for each, tried in zip(seconds, tries, strict=True)],
        hovertemplate="<b>%{y}</b><br>%{customdata}<extra></extra>",
    )
