"""A row's seeds, mean and interval as a small inline SVG, so that a table shows them without scripts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dashboards.figures.theme import style

WIDTH, HEIGHT, MARGIN = 180, 26, 7
OUTER_FENCE = 3.0  # times the interquartile range


@dataclass(frozen=True)
class StripInfo:
    """One row: `low`, `high` are NaN with one seed; `reference` is the control's mean or NaN."""

    block: str
    seeds: tuple[float, ...]
    mean: float
    low: float
    high: float
    reference: float


def bounds(rows: Sequence[StripInfo]) -> tuple[float, float]:
    """The common scale of all rows: every seed, but those of arms that lie far out (Tukey's outer fences).

    A control 40 points below would squeeze all other arms into one line; what is off the scale is drawn hollow at
    its edge.
    """
    means = [row.mean for row in rows if math.isfinite(row.mean)]
    if not means:
        return 0.0, 1.0
    first, third = np.quantile(means, [0.25, 0.75])
    reach = OUTER_FENCE * (third - first)
    near = [row for row in rows if first - reach <= row.mean <= third + reach]
    seen = sorted(seed for row in near for seed in row.seeds if first - reach <= seed <= third + reach)
    seen = seen or sorted(seed for row in near for seed in row.seeds)  # one arm has seeds yet: no spread of means
    least, most = float(seen[0]), float(seen[-1])
    return (least, most) if most > least else (least - 1, most + 1)


def draw(info: StripInfo, scale: tuple[float, float]) -> str:
    """SVG text. The interval is cut where it leaves the scale, and says so by an open end."""
    color, middle = style(info.block).color, HEIGHT / 2
    parts = []
    if scale[0] <= info.reference <= scale[1]:
        x = _x(info.reference, scale)
        parts.append(f'<line x1="{x}" x2="{x}" y1="2" y2="{HEIGHT - 2}" class="reference"/>')
    if math.isfinite(info.low) and math.isfinite(info.high):
        low, high = _x(info.low, scale), _x(info.high, scale)
        parts.append(f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="{color}" stroke-width="2"/>')
        ends = [x for x, value in ((low, info.low), (high, info.high)) if scale[0] <= value <= scale[1]]
        parts += [f'<line x1="{x}" x2="{x}" y1="{middle - 4}" y2="{middle + 4}" stroke="{color}"/>' for x in ends]
    for seed in info.seeds:
        inside = scale[0] <= seed <= scale[1]
        fill = f'class="seed" fill="{color}"' if inside else f'fill="none" stroke="{color}"'
        parts.append(f'<circle cx="{_x(seed, scale)}" cy="{middle}" r="2.6" {fill}/>')
    if scale[0] <= info.mean <= scale[1]:
        x = _x(info.mean, scale)
        parts.append(f'<path d="M{x} {middle - 6}l4.5 6-4.5 6-4.5-6z" fill="{color}" class="mean"/>')
    said = ", ".join(f"{seed:.1f}" for seed in info.seeds)
    label = f"seeds: {said}" if said else "no result"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _x(value: float, scale: tuple[float, float]) -> str:
    share = min(1.0, max(0.0, (value - scale[0]) / (scale[1] - scale[0])))
    return f"{MARGIN + share * (WIDTH - 2 * MARGIN):.1f}"
