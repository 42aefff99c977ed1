"""Which classes gain and lose most, with intervals (PNL, Fig. 4)."""

from __future__ import annotations

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
    """Bars from most gained to most lost: name, difference, low, high in points, clips."""

    first: str
    second: str
    bars: tuple[tuple[str, float, float, float, int], ...]
    left_out: int


def info(gains: pd.DataFrame, first: str, second: str, names: Sequence[str] = ()) -> PerClassInfo:
    """The bars.

    Args:
        gains: `Sweep.per_class`.
        first: label of the arm.
        second: label of the arm it is compared with.
        names: class names by index; the index itself where there is none.
    """
    half = MOST_CLASSES // 2
    kept = gains if len(gains) <= MOST_CLASSES else pd.concat([gains.head(half), gains.tail(half)])
    bars = []
    for label, row in frames.rows(kept):
        name = names[int(label)] if int(label) < len(names) else f"class {label}"
        bars.append((name, row["difference"], row["low"], row["high"], row["clips"]))
    return PerClassInfo(first, second, tuple(bars), len(gains) - len(kept))


def draw(info: PerClassInfo, theme: Theme = "light") -> go.Figure:
    """The chart."""
    if not info.bars:
        return themes.message("These arms were not evaluated on the same clips with the same seed.", theme)
    chart = themes.figure(theme, height=140 + 20 * len(info.bars))
    names, difference, low, high, clips = (list(column) for column in zip(*info.bars, strict=True))
    chart.add_bar(
        x=difference,
        y=names,
        orientation="h",
        marker={"color": [themes.VERDICT_COLORS["better" if value >= 0 else "worse"] for value in difference]},
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
    left_out = f" ({info.left_out} classes between them left out)" if info.left_out else ""
    chart.update_xaxes(title_text=f"Top-1 of {info.first} minus {info.second}, points{left_out}", zeroline=True)
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return chart
