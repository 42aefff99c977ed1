"""Published against executed cost: as planes with the accuracy, side by side, and as a slope chart of the places."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboards import frames
from dashboards.analysis import audit
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme

LABEL = 30  # characters of a model's name beside its point
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
    """Models of one paper on one data set, all of them networks or all of them increments."""

    title: str
    slopes: tuple[Slope, ...]


def info(changes: pd.DataFrame, like: Mapping[str, Any]) -> SlopeInfo:
    """The lines of one group of `analysis.audit.rank_changes`.

    Published counts follow the paper's own rule and never share an axis with executed ones: each side is relative to
    its own cheapest model.

    Args:
        changes: see above.
        like: paper, dataset and increment of the group, as a row of `analysis.audit.agreement` has them.
    """
    part = changes[(changes["published"] > 0) & (changes["executed"] > 0)]
    for column in audit.LIKE:
        part = part[part[column] == like[column]]
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
    return SlopeInfo(_kind(f"{like['paper']}, {like['dataset']}", like["increment"]), tuple(slopes))


def _kind(title: str, increment: bool) -> str:
    return f"{title}: what the block adds" if increment else title


def draw(info: SlopeInfo, theme: Theme = "light") -> go.Figure:
    """The chart; dearer than published is vermillion and solid, cheaper blue and dashed."""
    if not info.slopes:
        return themes.message(f"No model of {info.title} has both a published and an executed cost.", theme)
    chart = themes.figure(theme, height=max(320, 24 * len(info.slopes)))
    for slope in info.slopes:
        places = _said(slope.change)
        chart.add_scatter(
            x=["published rule", "executed MACs"],
            y=[slope.published_relative, slope.executed_relative],
            mode="lines+markers",
            line={"color": color(slope.change), "dash": dash(slope.change), "width": 2},
            marker={"color": color(slope.change), "size": 8},
            name=html.escape(slope.row_id),
            customdata=[slope.published, slope.executed],
            hovertemplate=f"{html.escape(slope.row_id)}<br>%{{x}}: %{{customdata:.4g}} (%{{y:.3f}} × the cheapest)"
            f"<br>{places}<extra></extra>",
        )
    chart.update_yaxes(title_text="Cost, relative to the cheapest model", type="log", tickformat=".2~f")
    chart.update_xaxes(range=[-0.15, 1.15])
    return chart.update_layout(showlegend=False)


@dataclass(frozen=True)
class Point:
    """One model of a table."""

    model: str
    verdict: str
    top1_percent: float
    published: float
    executed: float
    change: float
    published_best: bool
    executed_best: bool


POINT = tuple(each.name for each in fields(Point))


@dataclass(frozen=True)
class Plane:
    """One table and data set: its models, cheapest first as published."""

    title: str
    points: tuple[Point, ...]

    @property
    def moved(self) -> int:
        """Models whose place in the order of cost changes."""
        return sum(bool(point.change) for point in self.points)


def planes(points: pd.DataFrame, paper: str) -> tuple[Plane, ...]:
    """The tables of one paper from `analysis.audit.planes`, in print order."""
    found = []
    for (_, table, dataset, increment), group in points[points["paper"] == paper].groupby(audit.TABLE, sort=False):
        rows = frames.records(group.sort_values("published", kind="stable"))
        title = _kind(f"Table {str(table).removeprefix('Table')}, {dataset}", bool(increment))
        found.append(Plane(title, tuple(Point(**{name: row[name] for name in POINT}) for row in rows)))
    return tuple(found)


SIDES: tuple[tuple[Literal["published", "executed"], str], ...] = (
    ("published", "GFLOPs as published"),
    ("executed", "executed GMACs, attention included"),
)


def draw_planes(found: tuple[Plane, ...], theme: Theme = "light") -> go.Figure:
    """Accuracy over the published cost on the left and over the executed cost on the right, a row per table.

    Both axes of a row have one scale, so that what moves to the right is what the published rule left out. Lines join
    the models that nothing beats at their cost; a model that becomes dearer in the order is vermillion, cheaper blue.
    Open markers are models whose published cost was not reproduced.
    """
    if not found:
        return themes.message("No table of this paper prints a cost beside an accuracy.", theme)
    titles = [f"{plane.title}: {side}" for plane in found for side in ("published", f"executed, {moved(plane)}")]
    height = 300 * len(found) + 40
    chart = make_subplots(
        len(found),
        2,
        shared_yaxes=True,
        subplot_titles=[html.escape(title) for title in titles],
        horizontal_spacing=0.04,
        vertical_spacing=70 / height,
    )
    chart.update_layout(themes.figure(theme, height=height).layout, showlegend=False)
    for row, plane in enumerate(found, start=1):
        for column, (side, axis) in enumerate(SIDES, start=1):
            for trace in _traces(plane, side):
                chart.add_trace(trace, row, column)
            chart.update_xaxes(title_text=axis, row=row, col=column, range=[0, 1.08 * _dearest(plane)])
        chart.update_yaxes(title_text="Top-1 as printed (%)", row=row, col=1)
    return chart.update_annotations(font_size=13)


def _traces(plane: Plane, side: Literal["published", "executed"]) -> list[go.Scatter]:
    best = sorted(
        (getattr(point, side), point.top1_percent) for point in plane.points if getattr(point, f"{side}_best")
    )
    frontier = go.Scatter(
        x=[cost for cost, _ in best],
        y=[top1 for _, top1 in best],
        mode="lines",
        line={"color": themes.FAINT, "width": 1, "dash": "dot", "shape": "hv"},
        hoverinfo="skip",
    )
    points = go.Scatter(
        x=[getattr(point, side) for point in plane.points],
        y=[point.top1_percent for point in plane.points],
        mode="markers+text",
        text=[html.escape(short(point.model)) if point.change else "" for point in plane.points],
        textposition=[_beside(getattr(point, side) / _dearest(plane)) for point in plane.points],
        textfont={"size": 11},
        cliponaxis=False,
        marker={
            "color": [color(point.change) for point in plane.points],
            "symbol": [_symbol(point) for point in plane.points],
            "size": 10,
        },
        hovertext=[html.escape(point.model) for point in plane.points],
        customdata=[
            [point.published, point.executed, _said(point.change), _ours(point.verdict)] for point in plane.points
        ],
        hovertemplate="%{hovertext}<br>%{y:.2f} %<br>published %{customdata[0]:.4g} GFLOPs"
        "<br>executed %{customdata[1]:.4g} GMACs%{customdata[3]}<br>%{customdata[2]}<extra></extra>",
    )
    return [frontier, points]


def _dearest(plane: Plane) -> float:
    return max(max(point.published, point.executed) for point in plane.points)


def short(model: str) -> str:
    """A name that fits beside its point."""
    return model if len(model) <= LABEL else f"{model[: LABEL - 1]}…"


def moved(plane: Plane) -> str:
    """How many models of a table change places."""
    return f"{plane.moved} of {len(plane.points)} change places"


def dash(change: float) -> str:
    """The line of a model that changes places by so much: solid became dearer, dashed cheaper."""
    return "dot" if not change else "solid" if change > 0 else "dash"


def color(change: float) -> str:
    """Of a model that changes places by so much: vermillion became dearer, blue cheaper."""
    return SAME if not change else DEARER if change > 0 else CHEAPER


def _symbol(point: Point) -> str:
    shape = "circle" if not point.change else "triangle-right" if point.change > 0 else "triangle-left"
    return f"{shape}-open" if _ours(point.verdict) else shape


def _ours(verdict: str) -> str:
    return " of our closest network" if verdict == "not reproduced" else ""


def _beside(share: float) -> str:
    return "middle left" if share > 0.4 else "middle right"


def _said(change: float) -> str:
    return "same place" if not change else f"{abs(change):g} places {_way(change)}"


def _way(change: float) -> str:
    return "dearer" if change > 0 else "cheaper"
