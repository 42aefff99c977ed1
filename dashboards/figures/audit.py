"""Published against executed cost as a slope chart: crossing lines are models that change places."""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme

DEARER, CHEAPER, SAME = "#d55e00", "#0072b2", "#8490a3"


@dataclass(frozen=True)
class Slope:
    """One model: cost relative to the paper's cheapest on each side, and places moved."""

    row_id: str
    published: float
    executed: float
    published_relative: float
    executed_relative: float
    change: float


@dataclass(frozen=True)
class SlopeInfo:
    """One paper's models."""

    paper: str
    slopes: tuple[Slope, ...]


def info(changes: pd.DataFrame, paper: str) -> SlopeInfo:
    """The lines of one paper from `analysis.audit.rank_changes`.

    Published counts follow the paper's own rule and never share an axis with executed ones: each side is relative to
    its own cheapest model.
    """
    part = changes[(changes["paper"] == paper) & (changes["published"] > 0) & (changes["executed"] > 0)]
    least = part[["published", "executed"]].min()
    slopes = [
        Slope(
            row_id=row["row_id"],
            published=row["published"],
            executed=row["executed"],
            published_relative=row["published"] / least["published"],
            executed_relative=row["executed"] / least["executed"],
            change=row["change"],
        )
        for row in frames.records(part)
    ]
    return SlopeInfo(paper, tuple(slopes))


def draw(info: SlopeInfo, theme: Theme = "light") -> go.Figure:
    """The chart; dearer than published is vermillion and solid, cheaper blue and dashed."""
    if not info.slopes:
        return themes.message(f"No model of {info.paper} has both a published and an executed cost.", theme)
    chart = themes.figure(theme, height=max(320, 24 * len(info.slopes)))
    for slope in info.slopes:
        color = SAME if not slope.change else DEARER if slope.change > 0 else CHEAPER
        dash = "dot" if not slope.change else "solid" if slope.change > 0 else "dash"
        places = "same place" if not slope.change else f"{abs(slope.change):g} places {_way(slope.change)}"
        chart.add_scatter(
            x=["published rule", "executed MACs"],
            y=[slope.published_relative, slope.executed_relative],
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={"color": color, "size": 8},
            name=html.escape(slope.row_id),
            customdata=[slope.published, slope.executed],
            hovertemplate=f"{html.escape(slope.row_id)}<br>%{{x}}: %{{customdata:.4g}} (%{{y:.3f}} × the cheapest)"
            f"<br>{places}<extra></extra>",
        )
    chart.update_yaxes(title_text="Cost, relative to the cheapest model", type="log", tickformat=".2~f")
    chart.update_xaxes(range=[-0.15, 1.15])
    return chart.update_layout(showlegend=False)


def _way(change: float) -> str:
    return "dearer" if change > 0 else "cheaper"
