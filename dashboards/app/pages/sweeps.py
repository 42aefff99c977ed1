"""Which sweeps are there, how far is each, and what runs now?"""

from __future__ import annotations

import math
import time
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from dashboards import frames, text
from dashboards.app import parts
from dashboards.app.pages.sweep import answer_card
from dashboards.app.view import View, link
from orchestrator.records.schema import State

TITLE = "Sweeps"
ORDER = [State.FINISHED, State.DIVERGED, State.FAILED, State.INFEASIBLE, State.CANCELLED, State.RUNNING, State.PLANNED]
MOST_TRIALS_AT_ONCE = 1500  # a sweep with more is judged when it is opened, not here


def render(view: View) -> list[Component | None]:
    """The list, newest first, with the newest sweep's answer on top."""
    sweeps = view.store.sweeps()
    if not len(sweeps):
        return [
            html.H1("Nothing has been asked yet"),
            parts.empty(
                "The ledger holds no sweep",
                "Start one, then come back: this page notices. ",
                html.Code("longrange run quickstart"),
            ),
        ]
    newest = str(sweeps.index[0])
    rows = list(frames.rows(sweeps))
    held = rows[0][1]
    hero: Component | None = None
    if 0 < sum(held[state] for state in State) <= MOST_TRIALS_AT_ONCE:
        here = View(view.store, view.path, {"sweep": (newest,)}, view.theme)
        hero = answer_card(here, here.sweep(), heading=newest)
    cards = [_card(view, name, row) for name, row in rows]
    return [
        html.H1(held["question"] if hero else "Sweeps"),
        hero,
        _running(view),
        html.H2("All sweeps", className="bare"),
        *cards,
    ]


def _card(view: View, name: str, row: dict[str, Any]) -> Component:
    counts = {str(state): int(row[state]) for state in ORDER if row[state]}
    total = sum(counts.values())
    done = total - counts.get(State.PLANNED, 0) - counts.get(State.RUNNING, 0)
    said = (
        ", ".join(f"{number} {state}" for state, number in counts.items())
        or "no trial: every configuration was rejected"
    )
    left = view.store.reader.seconds_left(name) if done < total else math.nan
    eta = f"; about {text.duration(left)} of device time to come" if math.isfinite(left) and left > 0 else ""
    bar = html.Div(
        [html.Div(className=f"part {state}", style={"flexGrow": number}) for state, number in counts.items()],
        className="bar",
        role="img",
        **{"aria-label": said},
    )
    head = html.Div(
        [
            dcc.Link(name, href=link("/sweep", sweep=name), className="name"),
            html.Span(f"{done} / {total} ended", className="faint"),
        ],
        className="row",
    )
    return html.Section([head, html.P(row["question"]), bar, html.Small(said + eta)], className="card sweep")


def _running(view: View) -> Component | None:
    running = view.store.running()
    if running.empty:
        return None
    rows = [
        html.Tr(
            [
                parts.td(
                    dcc.Link(row["label"], href=link("/trial", trial=row["trial_id"], sweep=row["sweep"])), css="arm"
                ),
                parts.td(row["sweep"]),
                parts.td(row["seed"], number=True),
                parts.td(_epochs(row), number=True),
                parts.td(text.duration(max(0.0, time.time() - row["started_at"])), number=True),
                parts.td(row["device"] or text.MISSING),
            ]
        )
        for row in frames.records(running)
    ]
    head = ["Arm", "Sweep", parts.th("Seed", number=True), parts.th("Epochs", number=True)]
    head += [parts.th("For", number=True), "Device"]
    return parts.card(parts.table(head, rows, "Trials that run now"), title="Running now")


def _epochs(row: dict[str, Any]) -> str:
    done = 0 if row["epochs"] is None or math.isnan(row["epochs"]) else int(row["epochs"])
    planned = row["planned"]
    return f"{done} of {planned:g}" if isinstance(planned, int | float) and planned == planned else str(done)
