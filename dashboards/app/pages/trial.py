"""One trial: what it gave, how it learned, every attempt, what it ran on, and how to run it again."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import yaml
from dash import dcc, html
from dash.development.base_component import Component

from dashboards import frames, metrics, text
from dashboards.app import parts
from dashboards.app.view import View
from dashboards.figures import curves as draw_curves
from dashboards.figures.curves import Curve, CurvesInfo
from dashboards.metrics import Metric
from dashboards.sections import environments

TITLE = "Trial"
HIDDEN = "***"  # what the ledger has instead of a login
FIRST_TILES = ("top1_percent", "top5_percent", "train_loss", "train_seconds")


def render(view: View) -> list[Component]:
    """The page."""
    reader, trial_id = view.store.reader, view.one("trial")
    if not trial_id:
        return [html.H1("Which trial?"), parts.empty("No trial in this address", "Choose an arm on the answer page.")]
    trial = reader.trial(trial_id)
    sweep = view.one("sweep") or next(iter(reader.sweeps_of(trial_id)), "")
    held = view.store.sweep(sweep)
    label = frames.row(held.arms, trial["arm_id"])["label"] if trial["arm_id"] in held.arms.index else trial["arm_id"]
    attempts = reader.trial_attempts(trial_id)
    siblings = frames.records(reader.siblings(trial["arm_id"], held.record.id))
    back = view.link("/sweep", arm=trial["arm_id"])
    head = html.Div(
        [html.H1([label, html.Span(f" seed {trial['seed']}", className="faint")]), parts.state(trial["state"])],
        className="row",
    )
    return [
        html.P([dcc.Link(f"← {sweep}", href=back), " · ", *_siblings(view, siblings, trial_id)], className="crumbs"),
        head,
        *_trouble(trial, attempts),
        *parts.noted(trial["notes"] or []),
        _results(reader.trial_results(trial_id), trial, attempts),
        _curves(view, trial, siblings),
        _attempts(attempts),
        _epochs(view, trial_id),
        _again(view, trial, sweep),
        _links(view, trial_id),
        _environment(view, attempts),
        _spec(trial),
    ]


def _siblings(view: View, siblings: list[dict[str, Any]], trial_id: str) -> list[Any]:
    found: list[Any] = []
    for each in siblings:
        name = f"seed {each['seed']}"
        here = each["trial_id"] == trial_id
        found += [html.B(name) if here else dcc.Link(name, href=view.here(trial=each["trial_id"])), " "]
    return found


def _trouble(trial: dict[str, Any], attempts: list[dict[str, Any]]) -> list[Component]:
    told = [attempt for attempt in attempts if attempt["message"]]
    if trial["state"] in ("failed", "infeasible", "diverged", "cancelled"):
        why = f"{told[-1]['cause'] or 'no cause'}: {told[-1]['message']}" if told else "No message was recorded."
        counted = " It counts at chance level." if trial["state"] == "diverged" else " It has no value and lowers n."
        return [parts.notice(f"This trial {_ended(trial['state'])}.", why, counted, css="bad")]
    if trial["state"] == "planned":
        return [
            parts.notice(
                "Not run yet.",
                "It waits for its turn; ",
                html.Code("longrange resume"),
                " continues a run that stopped.",
            )
        ]
    return []


def _ended(state: str) -> str:
    return {"failed": "failed", "diverged": "diverged", "cancelled": "was cancelled"}.get(
        state, "did not fit the machine"
    )


def _results(results: dict[str, float], trial: dict[str, Any], attempts: list[dict[str, Any]]) -> Component:
    if not results:
        waits = trial["state"] in ("planned", "running")
        return parts.empty("No result yet", "It is recorded when the trial ends.") if waits else html.Div()
    shown = [name for name in FIRST_TILES if name in results]
    found = [(_value(name, results[name]), _metric(name).title, "") for name in shown]
    found.append((str(len(attempts)), "attempt" if len(attempts) == 1 else "attempts", f"trial {trial['trial_id']}"))
    rest = {_metric(name).title: _value(name, value) for name, value in sorted(results.items()) if name not in shown}
    return parts.card(
        parts.tiles(found),
        *([html.Details([html.Summary("Everything it measured"), parts.facts(rest)])] if rest else []),
    )


def _metric(name: str) -> Metric:
    if name in metrics.METRICS:
        return metrics.METRICS[name]
    title = {"train_seconds": "Training time", "train_loss": "Training loss"}.get(name, name)
    return Metric(name, title, unit="%" if name.endswith("_percent") else "")


def _value(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "NaN"
    if name.endswith("_percent"):
        return f"{text.number(value, 2)} %"
    return text.duration(value) if name.endswith("_seconds") else f"{value:.5g}"


def _curves(view: View, trial: dict[str, Any], siblings: list[dict[str, Any]]) -> Component:
    reader = view.store.reader
    names = reader.recorded_per_epoch([trial["trial_id"]])
    if not names:
        waits = trial["state"] in ("planned", "running")
        said = "Curves are drawn from the first finished epoch on." if waits else "It ended before its first epoch did."
        return parts.empty("No learning curve", said)
    name = view.among("curve", names, metrics.TOP1.name if metrics.TOP1.name in names else names[0])
    rows = reader.epochs_of([each["trial_id"] for each in siblings], name)
    curves = []
    for each in sorted(siblings, key=lambda each: each["trial_id"] != trial["trial_id"]):
        part = rows[rows["trial_id"] == each["trial_id"]]
        here = each["trial_id"] == trial["trial_id"]
        none = (float("nan"),) * len(part)
        label, dash = f"seed {each['seed']}" + (", this trial" if here else ""), "solid" if here else "dot"
        block = trial["block"] if here else "none"
        curves.append(
            Curve(label, block, dash, tuple(part["epoch"].astype(int)), tuple(part["value"]), none, none, len(part) > 0)
        )
    info = CurvesInfo(_metric(name), tuple(curve for curve in curves if curve.epochs))
    drawn = parts.graph(draw_curves.draw(info, view.theme), "curves", "Learning curves", keep=name)
    shown = {each: _metric(each).title for each in names}
    controls = parts.toolbar(parts.choice(view, "curve", "Curve", shown, name)) if len(names) > 1 else html.Div()
    return parts.card(controls, drawn, title="How it learned", lead="This trial, with the arm's other seeds dotted.")


def _attempts(attempts: list[dict[str, Any]]) -> Component:
    if not attempts:
        return parts.empty("No attempt yet", "Nothing has begun to run this trial.")
    rows = []
    for each in attempts:
        took = each["ended_at"] - each["started_at"] if each["ended_at"] is not None else float("nan")
        resumed = f", from epoch {int(each['first_epoch']) + 1}" if each["first_epoch"] else ""
        cells = [
            parts.td(int(each["number"]), number=True),
            parts.td(_when(each["started_at"])),
            parts.td(text.duration(took) if took == took else "running", number=True),
            parts.td((each["outcome"] or "open") + resumed),
            parts.td(" on ".join(each[name] for name in ("device", "host") if each[name])),
            parts.td(*_told(each)),
        ]
        rows.append(html.Tr(cells))
    head = [parts.th("#", number=True), "Begun", parts.th("Took", number=True), "Ended as", "Where", "Message"]
    return parts.card(parts.table(head, rows, "Attempts"), title="Attempts")


def _epochs(view: View, trial_id: str) -> Component:
    """Every epoch in numbers: what a log of the training would say."""
    rows = view.store.reader.trial_epochs(trial_id)
    if rows.empty:
        return html.Div()
    wide = rows.pivot(index="epoch", columns="name", values="value").astype(float)
    seconds = rows.groupby("epoch")["seconds"].max()
    body = [
        html.Tr(
            [
                parts.td(int(epoch) + 1, number=True),
                *(parts.td(_value(name, value), number=True) for name, value in row.items()),
                parts.td(text.duration(float(seconds[epoch])), number=True),
            ]
        )
        for epoch, row in zip(wide.index, frames.records(wide), strict=True)
    ]
    names = [parts.th(_metric(str(name)).title, number=True) for name in wide]
    head = [parts.th("Epoch", number=True), *names, parts.th("Took", number=True)]
    table = parts.table(head, body, "Every epoch")
    return parts.card(html.Details([html.Summary("Every epoch in numbers"), table]), title="Log")


def _told(attempt: dict[str, Any]) -> list[Any]:
    if not attempt["message"]:
        return []
    said = f"{attempt['cause']}: {attempt['message']}" if attempt["cause"] else attempt["message"]
    if not attempt["traceback"]:
        return [said]
    return [said, html.Details([html.Summary("Traceback"), html.Pre(attempt["traceback"], tabIndex="0")])]


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _again(view: View, trial: dict[str, Any], sweep: str) -> Component:
    folder = view.store.folder
    content = [html.P("The same arm with the same seed (and the control), in a folder of its own:", className="small")]
    content.append(parts.code(rerun(view.store.settings().get("sweep") or sweep, trial)))
    if folder and (folder / "run.json").is_file():
        if trial["state"] in ("failed", "infeasible", "cancelled"):
            content += [
                html.P("Once more in this run:", className="small"),
                parts.code(f"longrange resume {shlex.quote(str(folder))} --retry-failed"),
            ]
        content += [html.P("All that is known, in the terminal:", className="small")]
        content.append(parts.code(f"longrange show {shlex.quote(str(folder))} {trial['trial_id']}"))
    return parts.card(*content, title="Run it again")


def rerun(sweep: str, trial: dict[str, Any]) -> str:
    """The command that runs one trial's arm and seed again."""
    spec, seed = trial["spec"], trial["seed"]
    only = [f"{path}={json.dumps(spec[path])}" for path in ("block", "insertion") if spec.get(path)]
    wanted = [part for each in only for part in ("--only", each)]
    command = [
        "longrange",
        "run",
        sweep,
        *wanted,
        "--set",
        f"seeds=[{seed}]",
        "--out",
        f"runs/again-{trial['trial_id']}",
    ]
    return shlex.join(command)


def _links(view: View, trial_id: str) -> Component:
    copies = view.store.reader.mirrored(trial_id)
    if not copies:
        return html.Div()
    content: list[Any] = []
    for copy in copies:
        store, path = copy["store"], f"#/runs/{copy['run_id']}"
        if store.startswith(("http://", "https://")):
            content.append(html.P(html.A("Open the MLflow run", href=f"{store.rstrip('/')}/{path}", rel="noreferrer")))
            continue
        content.append(
            html.P(
                [
                    "Start MLflow on this store, then open ",
                    html.A("the run", href=f"http://127.0.0.1:5000/{path}", rel="noreferrer"),
                    ":",
                ],
                className="small",
            )
        )
        content.append(parts.code(shlex.join(["mlflow", "ui", "--backend-store-uri", store])))
        if HIDDEN in store:
            content.append(html.P(f"{HIDDEN} stands for what was left out as secret.", className="small"))
    return parts.card(*content, title="In MLflow")


def _environment(view: View, attempts: list[dict[str, Any]]) -> Component:
    known = [each["environment_id"] for each in attempts if each["environment_id"]]
    found = view.store.reader.environment(known[-1]) if known else {}
    if not found:
        return html.Div()
    shown = environments(pd.DataFrame([{"attempts": 1, "facts": found}]))[0]["facts"]
    return parts.card(
        html.Details([html.Summary(f"Environment {known[-1]}"), parts.facts(shown)]), title="What it ran on"
    )


def _spec(trial: dict[str, Any]) -> Component:
    said = yaml.safe_dump(trial["spec"], sort_keys=False, allow_unicode=True)
    prints = {"code": trial["code_fingerprint"] or text.MISSING, "data": trial["data_fingerprint"] or text.MISSING}
    inside = [parts.facts({f"{name} fingerprint": value for name, value in prints.items()}), parts.code(said)]
    return parts.card(html.Details([html.Summary("Every setting"), *inside]), title="Full configuration")
