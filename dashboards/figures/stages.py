"""Where a model's multiply-accumulates go: backbone and blocks, stage by stage."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboards import frames
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.text import quantity

BACKBONE = ("#cdd2da", "#b7bec9")  # stages in turn; opaque, so that their names read on both themes


@dataclass(frozen=True)
class Part:
    """One stage of one arm: `block_macs` of it in inserted blocks, `product_macs` of those in attention products."""

    stage: str
    backbone_macs: int
    block_macs: int
    product_macs: int


@dataclass(frozen=True)
class StagesInfo:
    """Stages in network order per arm label; arms without a profile are named in `unknown`."""

    arms: tuple[tuple[str, str, tuple[Part, ...]], ...]  # label, block, stages
    unknown: tuple[str, ...]


def info(arms: pd.DataFrame) -> StagesInfo:
    """The bars from `Sweep.arms`."""
    known, unknown = [], []
    for row in frames.records(arms):
        profile = row["profile"]
        if isinstance(profile, Mapping) and profile.get("per_stage"):
            known.append((row["label"], row["block"], _parts(profile)))
        else:
            unknown.append(row["label"])
    return StagesInfo(tuple(known), tuple(unknown))


def draw(info: StagesInfo, theme: Theme = "light") -> go.Figure:
    """Stacked bars: the backbone faint, blocks in their colour, attention products hatched."""
    if not info.arms:
        return themes.message("No arm has a profile: plan the sweep without --no-profile.", theme)
    chart = themes.figure(theme, height=130 + 30 * len(info.arms))
    stages = list(dict.fromkeys(part.stage for _, _, parts in info.arms for part in parts))
    for number, stage in enumerate(stages):
        for kind in ("backbone", "block", "products"):
            _draw_kind(chart, info, stage, kind, number)
    chart.update_xaxes(title_text="Executed MACs per clip", tickformat="~s")
    chart.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return chart.update_layout(barmode="stack", showlegend=False)


def _draw_kind(chart: go.Figure, info: StagesInfo, stage: str, kind: str, number: int) -> None:
    labels, widths, colors, texts = [], [], [], []
    for label, block, parts in info.arms:
        part = next((each for each in parts if each.stage == stage), None)
        macs = _macs(part, kind) if part else 0
        if macs:
            labels.append(html.escape(label))
            widths.append(macs)
            colors.append(BACKBONE[number % 2] if kind == "backbone" else themes.style(block).color)
            texts.append(f"{stage}, {kind}: {quantity(macs, 'MACs')}")
    if labels:
        chart.add_bar(
            x=widths,
            y=labels,
            orientation="h",
            marker={
                "color": colors,
                "pattern": {"shape": "/" if kind == "products" else ""},
                "line": {"width": 0},
            },
            customdata=texts,
            hovertemplate="<b>%{y}</b><br>%{customdata}<extra></extra>",
            text=[stage] * len(labels) if kind == "backbone" else None,
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": themes.INK["light"], "size": 11},
        )


def _macs(part: Part, kind: str) -> int:
    if kind == "backbone":
        return part.backbone_macs
    return part.product_macs if kind == "products" else part.block_macs - part.product_macs


def _parts(profile: Mapping[str, Any]) -> tuple[Part, ...]:
    found = []
    for stage in profile["per_stage"]:
        blocks = [block for block in profile.get("per_block") or () if block["stage"] == stage["stage"]]
        macs = sum(block["executed_macs"] for block in blocks)
        products = sum(block["product_macs"] for block in blocks)
        found.append(Part(stage["stage"], stage["executed_macs"] - macs, macs, products))
    return tuple(found)
