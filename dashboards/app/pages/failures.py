"""What did not work, why, and what it cost."""

from __future__ import annotations

import math
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import frames, sections, text
from dashboards.analysis import failures
from dashboards.app import parts
from dashboards.app.store import Held
from dashboards.app.view import View
from dashboards.figures import failures as draw_failures

TITLE = "Failures"
MOST_BARS = 30


def render(view: View) -> list[Component]:
    """The page."""
    held = view.sweep()
    rows = held.keep(held.failures, "failures")
    spent = held.keep(lambda: sections.seconds(held), "seconds")
    head = html.H1("What did not work, and what did it cost?")
    big = [
        (
            str(len(rows)),
            "trials without a usable result",
            ", ".join(f"{n} {state}" for state, n in held.states().items()),
        ),
        (spent["lost"], "device time without a result", f"{spent['useful']} gave one"),
        (spent["retries"].split()[0], "attempts were tried again", spent["attempts"]),
        (str(len(held.rejections)), "configurations rejected", "before anything ran"),
    ]
    content = [parts.card(parts.tiles(big))]
    if rows.empty:
        content.append(parts.empty("Nothing failed", "Every trial that ended has a result."))
    else:
        content += [_causes(view, held), _trials(view, held)]
    return [head, *content, _time(view, held), *_rejections(held)]


def _causes(view: View, held: Held) -> Component:
    found = held.keep(lambda: failures.causes(held.attempts, held.trials), "causes")
    rows = [
        html.Tr(
            [
                parts.td(dcc.Link(row["cause"], href=view.here(cause=row["cause"], page=None)), css="arm"),
                parts.td(row["outcome"] if isinstance(row["outcome"], str) else "open"),
                parts.td(int(row["attempts"]), number=True),
                parts.td(int(row["trials"]), number=True),
                parts.td(text.duration(float(row["seconds"])), number=True),
                parts.td(html.Small(row["example"])),
            ]
        )
        for row in frames.records(found)
    ]
    head = ["Cause", "Ended as", parts.th("Attempts", number=True), parts.th("Trials", number=True)]
    head += [parts.th("Device time", number=True), "Example"]
    return parts.card(parts.table(head, rows, "Causes"), title="Why attempts failed")


def _trials(view: View, held: Held) -> Component:
    rows = held.keep(held.failures, "failures")
    cause = view.one("cause")
    if cause:
        rows = rows[rows["cause"] == cause]
    labels = held.arms["label"]
    shown = parts.paged(view, list(frames.rows(rows)))
    body = [_trial(view, trial, str(labels[row["arm_id"]]), row) for trial, row in shown]
    head = ["Trial", parts.th("Seed", number=True), "State", parts.th("Attempts", number=True), "Cause", "Message"]
    lead: list[Any] = ["Diverged trials stay in the statistics at chance level; all others have no value and lower n. "]
    if cause:
        lead += [f"Only cause {cause}: ", dcc.Link("show all", href=view.here(cause=None, page=None))]
    table = (
        parts.table(head, body, "Trials without a usable result") if body else html.P(f"No trial has cause {cause}.")
    )
    return parts.card(table, parts.pager(view, len(rows), "trials"), title="Trials without a usable result", lead=lead)


def _trial(view: View, trial: str, label: str, row: dict[str, Any]) -> Component:
    attempts = row["attempts"]
    return html.Tr(
        [
            parts.td(dcc.Link(label, href=view.link("/trial", trial=trial)), css="arm"),
            parts.td(int(row["seed"]), number=True),
            parts.td(parts.state(row["state"])),
            parts.td(int(attempts) if attempts is not None and not math.isnan(attempts) else 0, number=True),
            parts.td(_text(row["cause"])),
            parts.td(html.Small(_text(row["message"]))),
        ]
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else text.MISSING


def _time(view: View, held: Held) -> Component:
    accounting = held.keep(held.cost_accounting, "accounting")
    dearest = accounting.sort_values(["lost_seconds", "useful_seconds"], ascending=False).head(MOST_BARS)
    info = draw_failures.info(dearest, held.arms["label"], held.states())
    drawn = parts.graph(draw_failures.draw(info, view.theme), "time", "Device time per arm")
    lead = (
        "Most lost first." if len(accounting) <= MOST_BARS else f"The {MOST_BARS} arms that lost most, then spent most."
    )
    return parts.card(drawn, title="Where device time went", lead=lead)


def _rejections(held: Held) -> list[Component]:
    if held.rejections.empty:
        return []
    rows = [
        html.Tr([parts.td(row["label"], css="arm"), parts.td(row["reason"])]) for row in frames.records(held.rejections)
    ]
    return [parts.card(parts.table(["Configuration", "Why"], rows, "Rejected"), title="Rejected before anything ran")]
