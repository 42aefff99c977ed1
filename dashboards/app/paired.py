"""Two arms seed by seed: numbers and a chart of the differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.analysis.significance import judge
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.metrics import Metric


@dataclass(frozen=True)
class PairInfo:
    """First minus second arm.

    Attributes:
        metric: what was measured; differences are in its `difference_unit`.
        blocks: of the first and second arm.
        seeds: (seed, first, second) where at least one has a value; NaN where missing.
        difference: mean over pairs, or of means where no seed is shared; NaN if either has no value.
        low: lower end of the 95 % interval, NaN with fewer than two pairs.
        high: upper end.
        p: two-sided, not corrected: this is one comparison, chosen by whoever looks.
        pairs: number of seeds that both have.
        method: "paired t", "Welch t" or "".
    """

    metric: Metric
    blocks: tuple[str, str]
    seeds: tuple[tuple[int, float, float], ...]
    difference: float
    low: float
    high: float
    p: float
    pairs: int
    method: str


def info(values: pd.DataFrame, first: str, second: str, metric: Metric, blocks: tuple[str, str]) -> PairInfo:
    """Compare two arms of `[arms, seeds]`."""
    both = values.loc[[first, second]]
    row = frames.row(judge(both, second, higher_is_better=metric.higher_is_better), first)
    one, two = both.to_numpy(float)
    seeds = [
        (int(seed), float(a), float(b))
        for seed, a, b in zip(both.columns, one, two, strict=True)
        if np.isfinite(a) or np.isfinite(b)
    ]
    pairs = int((np.isfinite(one) & np.isfinite(two)).sum())
    found = {name: float(row[name]) for name in ("difference", "low", "high", "p")}
    return PairInfo(metric=metric, blocks=blocks, seeds=tuple(seeds), pairs=pairs, method=row["method"], **found)


def draw(info: PairInfo, theme: Theme = "light") -> go.Figure:
    """A bar per shared seed, and the mean with its interval."""
    shared = [(seed, a - b) for seed, a, b in info.seeds if np.isfinite(a) and np.isfinite(b)]
    if not shared:
        return themes.message("These arms share no seed with a result.", theme)
    chart = themes.figure(theme, height=150 + 34 * len(shared))
    colors = [themes.style(info.blocks[0 if gain >= 0 else 1]).color for _, gain in shared]
    names = [f"seed {seed}" for seed, _ in shared]
    chart.add_bar(
        x=[gain for _, gain in shared],
        y=names,
        orientation="h",
        marker={"color": colors, "opacity": 0.75},
        hovertemplate=f"%{{y}}: %{{x:+.2f}} {info.metric.difference_unit}<extra></extra>",
    )
    if np.isfinite(info.low):
        chart.add_vrect(x0=info.low, x1=info.high, fillcolor=themes.BAND, line_width=0, layer="below")
    chart.add_vline(x=info.difference, line={"dash": "dash", "color": themes.FAINT, "width": 1.5})
    chart.add_vline(x=0, line={"color": themes.INK[theme], "width": 1})
    chart.update_xaxes(title_text=info.metric.heading(f"{info.metric.title}, difference", difference=True))
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return chart.update_layout(showlegend=False)
