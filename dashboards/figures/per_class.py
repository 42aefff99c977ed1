"""Which classes gain and lose most, with intervals (PNL, Fig. 4)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme

MOST_CLASSES = 30  # half of them from each end


@dataclass(frozen=True)
class PerClassInfo:
    """Bars from most gained to most lost: name, difference, low, high in points, clips.

    Attributes:
        first: label of the arm.
        second: label of the arm it is compared with.
        blocks: of both.
        bars: a class each.
        left_out: classes between the most gained and the most lost.
    """

    first: str
    second: str
    blocks: tuple[str, str]
    bars: tuple[tuple[str, float, float, float, int], ...]
    left_out: int


def info(
    gains: pd.DataFrame, labels: tuple[str, str], blocks: tuple[str, str], names: Sequence[str] = ()
) -> PerClassInfo:
    """The bars.

    Args:
        gains: `Sweep.per_class`.
        labels: of the arm, and of the one it is compared with.
        blocks: of both.
        names: class names by index, instead of those in `gains`.
    """
    half = MOST_CLASSES // 2
    kept = gains if len(gains) <= MOST_CLASSES else pd.concat([gains.head(half), gains.tail(half)])
    bars = []
    for label, row in frames.rows(kept):
        name = names[int(label)] if int(label) < len(names) else row["name"]
        bars.append((name, row["difference"], row["low"], row["high"], row["clips"]))
    return PerClassInfo(*labels, blocks, tuple(bars), len(gains) - len(kept))


def axis_title(info: PerClassInfo) -> str:
    """What a bar's length is."""
    left_out = f" ({info.left_out} classes between them left out)" if info.left_out else ""
    return f"Top-1 of {info.first} minus {info.second}, points{left_out}"


def draw(info: PerClassInfo, theme: Theme = "light") -> go.Figure:
    """The chart."""
    if not info.bars:
        return themes.message("These arms were not evaluated on the same clips with the same seed.", theme)
    chart = themes.figure(theme, height=140 + 20 * len(info.bars))
    names, difference, low, high, clips = (list(column) for column in zip(*info.bars, strict=True))
    chart.add_bar(
        x=difference,
        y=list(map(html.escape, names)),
        orientation="h",
        marker={"color": [themes.style(info.blocks[0 if value >= 0 else 1]).color for value in difference]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [end - value for end, value in zip(high, difference, strict=True)],
            "arrayminus": [value - end for end, value in zip(low, difference, strict=True)],
            "color": themes.FAINT,
            "thickness": 1,
            "width": 2,
        },
        customdata=clips,
        hovertemplate="%{y}: %{x:+.1f} points, %{customdata} clips<extra></extra>",
    )
    chart.update_xaxes(title_text=html.escape(axis_title(info)), zeroline=True)
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return chart
