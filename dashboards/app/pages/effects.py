"""Which of a block's settings matter: main effects, interactions, and the arms side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from dash import html
from dash.development.base_component import Component

from dashboards import frames, metrics, sections, text
from dashboards.analysis import axes, significance
from dashboards.app import arms, parts
from dashboards.app.store import Held
from dashboards.app.view import View

TITLE = "Effects"
AXIS_PIXELS = 78  # what one of the parallel axes needs for its names
MOST_BARS = 60  # arms side by side; more cannot be read


def render(view: View) -> list[Component | None]:
    """The page, about one block."""
    held = view.sweep()
    head = [html.H1("What does each setting do?")]
    families = held.families()
    if not families:
        same = " on the same data" if held.data.nunique() > 1 else ""
        said = f"No block of this sweep has two arms{same} that differ in a setting, so there is nothing to take apart."
        return [*head, parts.empty("No effect to show", said)]
    block = view.among("block", list(families), next(iter(families)))
    design = families[block]
    table = held.table(view.metric)
    controls = [_controls(view, held, families, block, design), *parts.several(sections.data_sets(held))]
    if not table.loc[design.index, "n"].any():
        return [*head, *controls, parts.empty("No result yet", f"No trial of {block} has ended with a result.")]
    main, pairs = held.keep(lambda: held.effects(block, view.metric), "effects", block, view.metric)
    content: list[Component | None] = [_main(main, held.metric(view.metric)), _arms(view, held, block, design)]
    content.append(arms.chosen(view, held, table))
    if len(design.columns) > 1:
        content += [_pair(view, held, block, design), _interactions(pairs)]
    return [*head, *controls, *content, _all(view, held)]


def _all(view: View, held: Held) -> Component:
    figure = held.keep(lambda: held.parallel(view.metric, theme=view.theme), "parallel", view.metric, view.theme)
    least = AXIS_PIXELS * len(figure.layout.xaxis.tickvals or ())
    drawn = parts.graph(figure, "parallel", "Parallel coordinates; the numbers are in the answer's table", least=least)
    lead = (
        "Each line is an arm of the sweep, the best 150 at most, in its block's colour; at a dash its block does "
        "not have this setting. Click a point for the arm's trials."
    )
    return parts.card(drawn, title="All settings at once", lead=lead)


def _controls(view: View, held: Held, families: dict[str, pd.DataFrame], block: str, design: pd.DataFrame) -> Component:
    blocks = {name: f"{name}, {text.count(len(part), 'arm')}" for name, part in families.items()}
    found = [
        parts.choice(view, "block", "Block", blocks, next(iter(families))),
        parts.choice(view, "metric", "Judge by", held.judged_by(view.metric), "top1_percent"),
    ]
    names = {str(axis): axes.plain(str(axis)) for axis in design.columns}
    if len(names) > 1:
        first, second = list(names)[:2]
        found += [
            parts.choice(view, "first", "Rows", names, first),
            parts.choice(view, "second", "Columns", names, second),
        ]
    return parts.toolbar(*found)


def _main(main: pd.DataFrame, metric: metrics.Metric) -> Component:
    rows = []
    for axis, levels in main.groupby("axis", sort=False):
        for at, row in enumerate(frames.records(levels)):
            rows.append(html.Tr([*_axis_cells(str(axis), row, first=at == 0), *_level_cells(row, metric)]))
    head = ["Setting", "Effect", parts.th("Share of variance", number=True), parts.th("p", number=True), "Value"]
    head += [
        parts.th(metric.heading("Mean"), number=True),
        parts.th("95 % CI", number=True),
        parts.th("Trials", number=True),
    ]
    lead = (
        "Means are what a value would give if the other settings' values were equally common (least squares, seeds as "
        "blocks); shares are of the variance among these arms. p is of an F test, not corrected over settings."
    )
    return parts.card(parts.table(head, rows, "Main effects"), title="One setting at a time", lead=lead)


def _axis_cells(axis: str, row: dict[str, Any], *, first: bool) -> list[Component]:
    if not first:
        return [parts.td(), parts.td(), parts.td(), parts.td()]
    known = np.isfinite(row["p"])
    said = "not known" if not known else "shown" if row["p"] < significance.ALPHA else "not shown"
    alone = "" if row["adjusted"] else ", looked at alone"
    share = f"{100 * row['share']:.0f} %" if known else text.MISSING
    return [
        parts.td(html.B(axes.plain(axis))),
        parts.td(f"{said}{alone}"),
        parts.td(share, number=True),
        parts.td(text.p_value(row["p"]), number=True),
    ]


def _level_cells(row: dict[str, Any], metric: metrics.Metric) -> list[Component]:
    return [
        parts.td(str(row["level"])),
        parts.td(metric.number(row["mean"]), number=True),
        parts.td(metric.interval(row["low"], row["high"]), number=True),
        parts.td(int(row["n"]), number=True),
    ]


def _arms(view: View, held: Held, block: str, design: pd.DataFrame) -> Component:
    title = "Its arms side by side"
    if len(design) > MOST_BARS:
        said = f"{len(design)} arms cannot be read side by side; the answer page's table has them all."
        return parts.card(parts.notice("Too many.", said), title=title)
    drawn = parts.graph(held.ablation(block, view.metric, view.theme), "ablation", f"Arms of {block}", keep=block)
    return parts.card(
        drawn,
        title=title,
        lead="Dots are seeds, bars 95 % intervals; the band is the control's. Click an arm for its trials.",
    )


def _pair(view: View, held: Held, block: str, design: pd.DataFrame) -> Component:
    names = [str(axis) for axis in design.columns]
    first = view.among("first", names, names[0])
    second = view.among("second", names, names[1])
    if first == second:
        return parts.card(
            parts.notice("Same setting twice.", "Choose two different ones."), title="Two settings together"
        )
    keep = f"{block} {first} {second}"
    grid = parts.graph(
        held.heatmap(block, first, second, view.metric, view.theme), "cells", "Means per combination", keep=keep
    )
    lines = parts.graph(
        held.interaction(block, first, second, view.metric, view.theme), "lines", "Interaction", keep=keep
    )
    lead = "Each cell is the mean over seeds and all other settings. Parallel lines: the two settings do not interact."
    return parts.card(html.Div([grid, lines], className="grid"), title="Two settings together", lead=lead)


def _interactions(pairs: pd.DataFrame) -> Component:
    rows = []
    for row in frames.records(pairs):
        known = np.isfinite(row["p"])
        cells = [
            parts.td(f"{axes.plain(row['first'])} with {axes.plain(row['second'])}"),
            parts.td(row["balance"]),
            parts.td(f"{100 * row['share']:.0f} %" if known else text.MISSING, number=True),
            parts.td(text.p_value(row["p_holm"]), number=True),
        ]
        rows.append(html.Tr(cells))
    head = [
        "Settings",
        "Balance of the design",
        parts.th("Share of variance", number=True),
        parts.th("p (Holm)", number=True),
    ]
    return parts.card(parts.table(head, rows, "Interactions"), title="Do they interact?")
