"""The table of arms, and one arm in detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import frames, metrics, sections, text
from dashboards.analysis.answer import CERTAIN
from dashboards.analysis.same_data import best_first
from dashboards.app import parts
from dashboards.app.store import Held
from dashboards.app.view import View
from dashboards.figures import strip

LEAD = (
    "Dots are seeds, the diamond is their mean, the bar its 95 % interval, the dashed line the control; hollow dots "
    "lie off the scale. A verdict needs p < 0.05 after Holm's correction over all arms, also those filtered out; "
    "intervals are 95 % confidence intervals, each by itself."
)


def table_card(view: View, held: Held, table: pd.DataFrame, shown: pd.DataFrame) -> Component:
    """Every arm that the filters leave, a page at a time."""
    if shown.empty:
        clear = dcc.Link("Show all arms", href=view.here(block=None, verdict=None, find=None, page=None))
        return parts.card(html.P(clear), title="No arm fits these filters")
    metric = held.metric(view.metric)
    ranked = _ranked(view, shown, metric)
    rows = list(map(str, parts.paged(view, list(ranked.index))))
    strips = held.keep(lambda: sections.strips(table, held.scores(view.metric).values), "strips", view.metric)
    scale = held.keep(lambda: strip.bounds(list(strips.values())), "scale", view.metric)
    said = _texts(view, held, table, rows)
    body = [_row(view, arm, said[arm], parts.strip_image(strips[arm], scale)) for arm in rows]
    sort = html.Div(
        [html.Span("Order: "), *(_order(view, name, title) for name, title in ORDERS.items())], className="orders"
    )
    title = "Every arm" if len(shown) == len(table) else f"{len(shown)} of {len(table)} arms"
    inside = [sort, parts.table(_head(metric, scale), body, "Table of arms"), parts.pager(view, len(ranked), "arms")]
    return parts.card(*inside, title=title, lead=LEAD)


def splits_card(view: View, held: Held) -> Component | None:
    """Means over the splits, as papers print them; None where no sweep over splits is."""
    found = held.keep(lambda: sections.over_splits(held, view.metric), "splits", view.metric)
    if found is None:
        return None
    (table, strips), metric = found, held.metric(view.metric)
    scale = strip.bounds(list(strips.values()))
    ranked = best_first(table, higher_is_better=metric.higher_is_better)
    body = []
    for row in sections.said(ranked[: parts.PAGE_ROWS], table, sections.NOBODY, metric):
        name = html.Span([parts.swatch(table.loc[row["arm_id"], "block"]), row["label"]])
        marks = [parts.tag("control")] if row["control"] else []
        body.append(html.Tr(_cells(name, marks, row, parts.strip_image(strips[row["arm_id"]], scale))))
    more = [f"The best {len(body)} of {len(table)}; all: ", html.Code("longrange table --over-splits")]
    rest = html.P(more, className="small") if len(body) < len(table) else None
    title = "Means over the splits"
    return parts.card(parts.table(_head(metric, scale), body, title), rest, title=title, lead=sections.OVER_SPLITS)


def _head(metric: metrics.Metric, scale: tuple[float, float]) -> list[Any]:
    ends = html.Span([html.Span(metric.number(end)) for end in scale], className="ends")
    difference = [metric.heading("Difference", difference=True), html.Br(), "[95 % CI]"]
    return [
        "Arm",
        parts.th(f"{metric.title}, per seed", ends, css="strip"),
        parts.th(metric.heading("Mean"), number=True),
        parts.th("n", number=True),
        parts.th(*difference, number=True),
        "Verdict",
        *(parts.th(title, number=True) for title in ("p (Holm)", "Executed MACs", "Params")),
    ]


ORDERS = {"": "best first", "cost": "cheapest first", "label": "by name", "plan": "as planned"}


def _order(view: View, name: str, title: str) -> Component:
    current = view.one("sort") == name
    return dcc.Link(
        title, href=view.here(sort=name or None, page=None), className="order current" if current else "order"
    )


def _ranked(view: View, shown: pd.DataFrame, metric: metrics.Metric) -> pd.DataFrame:
    order = view.among("sort", list(ORDERS))
    by = {"": "mean", "cost": "executed_macs", "label": "label"}.get(order)
    if by is None:
        return shown
    if by == "mean":
        return best_first(shown, higher_is_better=metric.higher_is_better)
    return shown.sort_values(by, na_position="last", kind="stable")


def _texts(view: View, held: Held, table: pd.DataFrame, rows: list[str]) -> dict[str, dict[str, Any]]:
    """What the report says about each row, by arm."""
    found = held.keep(lambda: held.answer(view.metric), "answer", view.metric)
    certain = found.level == CERTAIN
    said = sections.said(table.loc[rows], table, found, held.metric(view.metric))
    return {row["arm_id"]: row | {"certain": certain} for row in said}


def _row(view: View, arm: str, row: dict[str, Any], seeds: Component) -> Component:
    certain = row["best"] and not row["control"] and row["certain"]
    css = " ".join(
        name for name, on in (("control", row["control"]), ("best", certain), ("chosen", view.one("arm") == arm)) if on
    )
    marks = [parts.tag("control")] if row["control"] else [parts.tag("best")] if certain else []
    if row["leading"]:
        marks = [parts.tag("may be best", sections.MAY_BE_BEST)]
    name = html.Button(
        row["label"],
        className="link swatched",
        title=row["settings"],
        style={"borderLeftColor": row["color"]},
        **{"data-choose": arm},
    )
    return html.Tr(_cells(name, marks, row, seeds), className=css or None)


def _cells(name: Component, marks: Sequence[Component], row: dict[str, Any], seeds: Component) -> list[Component]:
    """What `sections.said` says about a row, below the titles of `_head`."""
    troubles = [html.Small(trouble, className="trouble") for trouble in row["troubles"]]
    why = [html.Small(row["reason"])] if row["verdict"] == "undecided" else []
    span = [html.Small(row["span"])] if row["span"] != text.MISSING else []
    return [
        parts.td(name, *marks, *troubles, css="arm"),
        parts.td(seeds),
        parts.td(f"{row['mean']} ", html.Small(row["half"]), number=True),
        parts.td(int(row["n"]), number=True),
        parts.td(f"{row['difference']} ", *span, number=True),
        parts.td(parts.judged(row["verdict"]), *why, css=f"judged verdict {row['verdict']}", title=row["reason"]),
        parts.td(row["p"], number=True),
        parts.td(f"{row['macs']} ", html.Small(row["ratio"]), number=True),
        parts.td(row["params"], number=True),
    ]


def chosen(view: View, held: Held, table: pd.DataFrame) -> Component | None:
    """The arm that the address chooses, in detail.

    Raises:
        UnknownChoice: there is no such arm.
    """
    if not view.one("arm"):
        return None
    arm = held.arm_id(view.one("arm"))
    return details(view, held, arm, frames.row(table, arm))


def details(view: View, held: Held, arm: str, row: dict[str, Any]) -> Component:
    """The chosen arm: what it is, and its trials."""
    close = html.Button("Close", className="close", **{"data-choose": ""})
    head = html.Div([html.H2([parts.swatch(row["block"]), row["label"]]), close], className="row")
    metric = held.metric(view.metric)
    trials = held.trials[held.trials["arm_id"] == arm].sort_values("seed")
    values = held.scores(view.metric).values.loc[arm]
    rows = [
        html.Tr(
            [
                parts.td(dcc.Link(f"seed {each['seed']}", href=view.link("/trial", trial=trial))),
                parts.td(parts.state(each["state"])),
                parts.td(text.number(float(values.get(each["seed"], np.nan)), metric.digits + 1), number=True),
                parts.td(text.duration(_seconds(each)), number=True),
            ]
        )
        for trial, each in frames.rows(trials)
    ]
    table = parts.table(
        ["Trial", "State", parts.th(metric.axis, number=True), parts.th("Took", number=True)],
        rows,
        "Trials of this arm",
    )
    said = {"settings": text.settings_line(row["settings"]) or "those of the base", "verdict": row["verdict"]}
    if row["reason"]:
        said["because"] = row["reason"]
    said["frontier"] = row["standing"]
    control = held.compared_with[arm]
    links = []
    if control not in (None, arm):
        against = view.link("/compare", a=arm, b=control, metric=view.one("metric") or None)
        links = [dcc.Link("Compare with the control →", href=against, className="onward")]
    inside = html.Div([html.Div([parts.facts(said), *links]), table], className="sides")
    return html.Section([head, inside], className="card chosen", **{"aria-label": "The chosen arm"})


def _seconds(trial: dict[str, Any]) -> float:
    begun, ended = trial.get("started_at"), trial.get("ended_at")
    return float(ended) - float(begun) if begun is not None and ended is not None else float("nan")
