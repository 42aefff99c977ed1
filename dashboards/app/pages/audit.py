"""The papers' numbers against ours."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from dash import html
from dash.development.base_component import Component

from dashboards import frames, published, text
from dashboards.analysis import audit
from dashboards.app import parts
from dashboards.app.store import AUDIT_FILE
from dashboards.app.view import View
from dashboards.figures import audit as draw_audit

TITLE = "Audit"
MOST_HEIGHT = 560
GOOD = ("exact", "close", "explained")


def render(view: View) -> list[Component]:
    """Counts per paper, places that change, and every row."""
    head = [html.H1("Do the papers' numbers hold?")]
    found = view.store.audit()
    if not found:
        return [*head, _absent(view)]
    models = [str(row.get("model") or "") for row in found]
    table = audit.frame(found).assign(model=models, given=[_given(row) for row in found])
    papers = sorted(map(str, table["paper"].dropna().unique()))
    paper = view.among("paper", papers)
    part = table[table["paper"] == paper] if paper else table
    verdicts = sorted(map(str, table["verdict"].dropna().unique()))
    kinds = {str(name): str(name) for name in dict.fromkeys(table["metric"].dropna())}
    controls = parts.toolbar(
        parts.choice(view, "paper", "Paper", {name: name for name in papers}),
        parts.choice(view, "kind", "Number", kinds),
        parts.choice(view, "verdict", "Verdict", {name: name for name in verdicts}),
        parts.search(view, "find", "Find", "model or reason"),
    )
    return [*head, _summary(table), controls, _rows(view, part), *_planes(view, found, papers), *_places(view, part)]


def _absent(view: View) -> Component:
    folder = view.store.folder
    if folder is None:
        said = "The ledger is in a database server: there is no run folder for audit.json. See it in the terminal:"
        return parts.empty("No audit here", said, parts.code("longrange audit"))
    said = (
        "The papers' numbers can be checked against what their networks count here. Write the audit beside the ledger:"
    )
    command = shlex.join(["longrange", "audit", "--json", "-o", str(folder / AUDIT_FILE)])
    return parts.empty("No audit yet", said, parts.code(command))


def _summary(table: pd.DataFrame) -> Component:
    counted = audit.summary(table)
    rows = [
        html.Tr(
            [
                parts.td(paper, css="arm"),
                *(parts.td(int(number) or text.MISSING, number=True) for number in row.values()),
            ]
        )
        for paper, row in frames.rows(counted)
    ]
    head = ["Paper", *(parts.th(str(name), number=True) for name in counted.columns)]
    checked = table[~table["verdict"].astype(str).str.startswith("accuracy")]
    good = int(checked["verdict"].isin(GOOD).sum())
    share = f"{100 * good / len(checked):.0f} %" if len(checked) else text.MISSING
    big = [
        (share, "of the cost figures are accounted for", f"{good} of {len(checked)}: exact, close or explained"),
        (str(len(table)), "printed numbers", f"in {table['paper'].nunique()} papers"),
    ]
    return parts.card(
        parts.tiles(big), parts.table(head, rows, "Verdicts per paper"), title="How much is accounted for"
    )


def _planes(view: View, rows: Sequence[Mapping[str, Any]], papers: Sequence[str]) -> list[Component]:
    points = audit.planes(rows)
    charts = []
    for paper in papers:
        tables = draw_audit.planes(points, paper)
        if tables and view.one("paper") in (None, "", paper):
            drawn = parts.graph(
                draw_audit.draw_planes(tables, view.theme), f"planes-{paper}", f"Accuracy over cost, {paper}"
            )
            charts.append(html.Div([html.H3(paper), drawn]))
    if not charts:
        return []
    lead = (
        "Every table with a cost and an accuracy, as printed and with everything that runs counted. Lines join the "
        "models that nothing in their table beats; triangles change places, open markers were not reproduced."
    )
    return [parts.card(html.Div(charts), title="Accuracy over cost, as printed and as executed", lead=lead)]


def _places(view: View, part: pd.DataFrame) -> list[Component]:
    changes = audit.rank_changes(part)
    charts = []
    for number, row in enumerate(frames.records(audit.agreement(changes))):
        if row["n"] < 2:
            continue
        info = draw_audit.info(changes, row)
        figure = draw_audit.draw(info, view.theme)
        figure.update_layout(height=min(figure.layout.height, MOST_HEIGHT))
        drawn = parts.graph(figure, f"slopes-{number}", f"Published against executed, {info.title}")
        charts.append(html.Div([html.H3(info.title), html.P(published.said(row), className="small"), drawn]))
    if not charts:
        return []
    lead = (
        "Models of one paper and data set, ordered by the cost their paper prints and by what is really executed: "
        "crossing lines change places. Where a paper prints what a block adds, those are compared with each other."
    )
    return [parts.card(html.Div(charts, className="grid"), title="Who is cheaper, really?", lead=lead)]


def _rows(view: View, part: pd.DataFrame) -> Component:
    kept = part
    for name, column in (("kind", "metric"), ("verdict", "verdict")):
        if view.one(name):
            kept = kept[kept[column] == view.one(name)]
    if words := view.one("find").casefold().split():
        said = (kept["row_id"].astype(str) + " " + kept["model"] + " " + kept["reason"].astype(str)).str.casefold()
        kept = kept[[all(word in each for word in words) for each in said]]
    if kept.empty:
        return parts.empty("No row fits these filters", "Clear a filter to see more.")
    rows = [_row(row) for row in parts.paged(view, frames.records(kept))]
    head = ["Paper", "Model", "Number", parts.th("Published", number=True), parts.th("Reproduced", number=True)]
    head += [parts.th("Executed", number=True), "Verdict", "Why"]
    return parts.card(
        parts.table(head, rows, "Every number"), parts.pager(view, len(kept), "numbers"), title="Every number"
    )


def _row(row: dict[str, Any]) -> Component:
    css = "better" if row["verdict"] in GOOD else "undecided" if str(row["verdict"]).startswith("accuracy") else "worse"
    return html.Tr(
        [
            parts.td(row["paper"]),
            parts.td(row["model"] or row["row_id"], title=str(row["row_id"])),
            parts.td(row["metric"]),
            parts.td(row["given"], number=True),
            parts.td(_number(row["reproduced"]), number=True),
            parts.td(_number(row["executed"]), number=True),
            parts.td(html.Span(row["verdict"], className=f"verdict {css}")),
            parts.td(html.Small(row["reason"] or ""), css="why"),
        ]
    )


def _given(row: dict[str, Any]) -> str:
    """The published number as printed: its digits say how exact it is."""
    return text.MISSING if row.get("published") is None else str(row["published"])


def _number(value: float) -> str:
    return f"{value:.4g}" if np.isfinite(value) else text.MISSING
