"""One sweep: the answer, what accuracy costs, every arm, and how they learn."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import frames, metrics, sections, text
from dashboards.analysis import learning
from dashboards.analysis.frontier import NEAR, ON
from dashboards.app import arms, parts
from dashboards.app.store import Held
from dashboards.app.view import View
from dashboards.figures import curves as draw_curves
from dashboards.figures import frontier as draw_frontier

TITLE = "Answer"
MOST_POINTS = 100  # a chart with more is a cloud, and slow
MOST_WITH_SEEDS = 60  # with more arms, single seeds are left to the table
FRONTIER_LEAD = (
    "Further {up} is more accurate, further left is cheaper. The dotted line joins the arms that nothing beats at "
    "their cost, with its 95 % band. Small dots are seeds, bars 95 % intervals of the mean, faded arms are dominated: "
    "another is cheaper and better. Click an arm for its trials."
)
VERDICTS = ("better", "worse", "undecided", "control")


def render(view: View) -> list[Component | None]:
    """The page."""
    held = view.sweep()
    held.metric(view.metric)
    head = [html.H1(held.record.question), answer_card(view, held), html.Div(_notices(view, held))]
    if held.arms.empty:
        return [*head, _rejected_only(held)]
    table = held.table(view.metric, view.cost)
    shown = _filtered(view, held, table)
    return [
        *head,
        _controls(view, held, table),
        *_frontier(view, held, shown),
        arms.chosen(view, held, table),
        arms.table_card(view, held, table, shown),
        arms.splits_card(view, held),
        _curves(view, held, table),
    ]


def answer_card(view: View, held: Held, heading: str = "") -> Component:
    """The answer in one sentence, how sure it is, and the numbers behind it."""
    if held.arms.empty:
        return parts.empty("Nothing was run", "Every configuration of this sweep was rejected.")
    found = held.keep(lambda: held.answer(view.metric), "answer", view.metric)
    mark = {"certain": "●", "undecided": "◐"}.get(found.level, "○")
    children: list[Any] = [html.Span(f"{mark} {found.certainty}", className="badge")]
    if heading:
        children.append(dcc.Link(f"{heading} →", href=view.link("/sweep"), className="onward"))
    children.append(html.P(text.unbroken(found.sentence), className="sentence"))
    if found.level == "empty":
        children.append(html.P(_why_empty(held), className="lead"))
    metric = held.metric(view.metric)
    tiles = held.keep(lambda: sections.tiles(held.table(metric.name), found, metric, held), "tiles", metric.name)
    if tiles:
        children.append(parts.tiles(tiles))
    return html.Section(children, className=f"card answer {found.level}", **{"aria-label": "Answer"})


def _why_empty(held: Held) -> list[Any]:
    states = held.states()
    spelled = ", ".join(f"{number} {state}" for state, number in states.items())
    if states.get("planned", 0) + states.get("running", 0):
        return [f"{spelled}. This page fills itself as trials end."]
    if len(held.arms) == 1:
        return ["The sweep has no other arm: a comparison needs one that differs from the control."]
    if states.get("diverged") and len(states) == 1:
        return [
            "The loss became NaN or infinite; the failures page says at which step. Diverged trials are a result and "
            "are not run again: try a lower learning rate, a longer warm-up or full precision as a new sweep."
        ]
    what = "All other arms" if states.get("finished") else "All trials"
    again = html.Code("longrange resume --retry-failed")
    return [f"{what} ended without one ({spelled}): the failures page says why; ", again, " tries again."]


def _notices(view: View, held: Held) -> list[Component]:
    found = []
    progress = sections.progress(held)
    if progress:
        found.append(parts.notice("Partial.", progress, " ", html.Code("longrange resume"), " continues it."))
    found += parts.several(sections.data_sets(held))
    stopped = sections.stopped(held)
    if stopped:
        found.append(parts.notice("Stopped early.", stopped))
    failed = sum(number for state, number in held.states().items() if state in ("failed", "infeasible"))
    if failed:
        why = dcc.Link("see why", href=view.link("/failures"))
        found.append(parts.notice("Incomplete.", f"{text.count(failed, 'trial')} ended without a result: ", why, "."))
    found += parts.noted(held.keep(lambda: sections.notes(held), "notes"))
    if held.caveat:
        found.append(parts.notice("What this cannot tell.", held.caveat))
    return found


def _rejected_only(held: Held) -> Component:
    rows = [
        html.Tr([parts.td(row["label"], css="arm"), parts.td(row["reason"])]) for row in frames.records(held.rejections)
    ]
    return parts.card(parts.table(["Configuration", "Why"], rows, "Rejected"), title="Rejected before anything ran")


def _controls(view: View, held: Held, table: pd.DataFrame) -> Component:
    costs = {name: cost.title for name, cost in metrics.COSTS.items() if table[name].notna().any()}
    costs |= {f"{metrics.RULE_PREFIX}{rule}": f"GFLOPs, counting rule {rule}" for rule in held.rules}
    costs.setdefault(view.cost, metrics.find_cost(view.cost).title)
    return parts.toolbar(
        parts.choice(view, "metric", "Judge by", held.judged_by(view.metric), "top1_percent"),
        parts.choice(view, "cost", "Cost", costs, "executed_macs"),
        parts.choice(view, "zoom", "View", {"all": "all arms", "best": "zoom to the best"}, "all"),
        parts.choices(view, "block", "Blocks", list(dict.fromkeys(table["block"]))),
        parts.choices(view, "verdict", "Verdicts", VERDICTS),
        parts.search(view, "find", "Find", "label or setting"),
    )


def _filtered(view: View, held: Held, table: pd.DataFrame) -> pd.DataFrame:
    kept = np.ones(len(table), dtype=bool)
    if blocks := view.many("block"):
        kept &= table["block"].isin(blocks)
    if verdicts := view.many("verdict"):
        kept &= table["verdict"].isin(verdicts)
    if words := view.one("find").casefold().split():
        said = held.keep(lambda: _said(held.arms), "said")
        kept &= [all(word in each for word in words) for each in said]
    return table[kept]


def _said(arms: pd.DataFrame) -> list[str]:
    """What a search looks through, per arm."""
    settings = arms["settings"].map(text.settings_line)
    return [f"{label} {line}".casefold() for label, line in zip(arms["label"], settings, strict=True)]


def _frontier(view: View, held: Held, shown: pd.DataFrame) -> list[Component | None]:
    """What is left out of the chart, in a slot of its own so that the chart stays when it changes, and the chart."""
    full = held.keep(lambda: held.frontier_info(view.metric, view.cost), "frontier", view.metric, view.cost)
    kept = set(shown.index)
    points = [point for point in full.points if point.arm_id in kept]
    info = _drawable(full, points)
    left = len(points) - len(info.points)
    up = "up" if full.metric.higher_is_better else "down"
    figure = draw_frontier.draw(info, view.theme)
    zoom = draw_frontier.zoom(info)
    if zoom and view.one("zoom") == "best":
        figure.update_xaxes(range=zoom[0])
        figure.update_yaxes(range=zoom[1])
    keep = f"{view.metric} {view.cost} {view.one('zoom')}"
    cut = f"{text.count(left, 'arm')} far from the frontier left out: filter to see them."
    drawn = parts.graph(figure, "frontier", "Accuracy over cost; the numbers are in the table", keep=keep)
    card = parts.card(drawn, title="What accuracy costs", lead=FRONTIER_LEAD.format(up=up) + sections.only(held))
    return [parts.notice("Not all drawn.", cut) if left else None, card]


def _drawable(full: draw_frontier.FrontierInfo, points: list[draw_frontier.Point]) -> draw_frontier.FrontierInfo:
    """As much as a chart can show: arms on the frontier, within noise of it, then the best; the band's steps only."""
    if len(points) > MOST_POINTS:
        rank, sign = {ON: 0, NEAR: 1}, -1 if full.metric.higher_is_better else 1
        points = sorted(points, key=lambda point: (rank.get(point.standing, 2), sign * point.mean))[:MOST_POINTS]
    if len(points) > MOST_WITH_SEEDS:
        points = [dataclasses.replace(point, seeds=()) for point in points]
    steps = [
        step
        for before, step in zip([None, *full.band], full.band, strict=False)
        if not before or before[1:] != step[1:]
    ]
    return dataclasses.replace(full, points=tuple(points), band=tuple(steps))


def _curves(view: View, held: Held, table: pd.DataFrame) -> Component:
    metric = held.metric(view.metric)
    here = table.loc[held.comparable]
    ranked = here.dropna(subset="mean").sort_values("mean", ascending=not metric.higher_is_better, kind="stable")
    first = [*table.index[table["is_control"]], *ranked.drop_duplicates("block").index]
    chosen = [held.arm_id(view.one("arm"))] if view.one("arm") else []
    focus = list(dict.fromkeys([*chosen, *first]))[: sections.MOST_CURVES]

    def drawn() -> go.Figure:
        info = draw_curves.info(_epochs(held, focus, metric.name), held.arms.loc[focus], metric)
        return draw_curves.draw(info, view.theme)

    figure = held.keep(drawn, "curves", view.metric, tuple(focus), view.theme)
    return parts.card(
        parts.graph(figure, "curves", "Learning curves", keep=view.metric),
        title="How they learn",
        lead=f"The control and the best arm of each block: mean over seeds, 95 % band.{sections.only(held)}",
    )


def _epochs(held: Held, focus: list[str], metric: str) -> pd.DataFrame:
    """Per arm and epoch: n, mean, sd and band, of a few arms only."""
    trials = held.trials.loc[held.trials["arm_id"].isin(focus), "arm_id"]
    rows = held.reader.epochs_of(list(trials.index), metric)
    rows = rows.dropna(subset="value").assign(arm_id=lambda frame: frame["trial_id"].map(trials))
    grouped = rows.groupby(["arm_id", "epoch"])["value"].agg(n="count", mean="mean", sd="std").reset_index()
    return learning.curves(grouped)
