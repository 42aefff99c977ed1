"""The report: one HTML file that holds everything, opens without a network, and starts with the answer."""

from __future__ import annotations

import base64
import gzip
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dashboards import frames, metrics, text
from dashboards.analysis import axes, significance
from dashboards.analysis.answer import Answer
from dashboards.figures import frontier, strip
from dashboards.figures.theme import style, template
from dashboards.sweep import DEFAULT_METRIC, Sweep
from orchestrator.records.schema import State

MOST_CURVES = 10
PROVENANCE_LEFT_OUT = ("packages",)  # long lists; the ledger keeps them


@dataclass(frozen=True)
class Family:
    """One block's section: its figure and what its axes do, in words."""

    block: str
    color: str
    figure: str
    effects: tuple[str, ...]


def write(sweep: Sweep, path: str | os.PathLike[str], *, metric: str = DEFAULT_METRIC) -> Path:
    """Write the report of `sweep` to `path`, whole or not at all; returns the path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = render(sweep, metric=metric)
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(aside, 0o644)
        os.replace(aside, target)
    except BaseException:
        os.unlink(aside)
        raise
    return target


def render(sweep: Sweep, *, metric: str = DEFAULT_METRIC) -> str:
    """The report as HTML text."""
    figures: dict[str, go.Figure] = {}
    table, answer = sweep.table(metric), sweep.answer(metric)
    found = metrics.find_metric(metric)
    strips = _strips(table, sweep.scores(metric).values)
    context = {
        "sweep": sweep,
        "metric": found,
        "answer": answer,
        "progress": _progress(sweep),
        "tiles": _tiles(table, answer, found, sweep),
        "rows": _rows(table, strips, answer, found.higher_is_better),
        "scale": [text.number(end) for end in strip.bounds(list(strips.values()))],
        "families": _families(sweep, metric, figures),
        "failures": _failures(sweep),
        "seconds": _seconds(sweep),
        "rejections": frames.records(sweep.rejections),
        "environments": _environments(sweep.environments),
        "definition": yaml.safe_dump(_definition(sweep), sort_keys=False, allow_unicode=True),
        "written": datetime.fromtimestamp(sweep.record.updated_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "text": text,
    }
    if table["n"].any():
        figures["frontier"] = sweep.frontier(metric)
        context["zoom"] = _zoom(sweep, metric)
        figures["curves"] = _curves(sweep, metric, table, answer)
    return _environment().get_template("report.html").render(**context, figures=_packed(figures), **_assets())


def _tiles(table: pd.DataFrame, answer: Answer, metric: metrics.Metric, sweep: Sweep) -> list[tuple[str, str, str]]:
    """Big number, what it is, how sure."""
    if answer.best is None:
        return []
    best = frames.row(table, answer.best)
    certain = f"95 % {text.interval(best['low'], best['high'])}" if best["n"] > 1 else "one seed: spread unknown"
    tiles = [(f"{text.number(best['mean'])} {metric.unit}", f"{metric.title} of {best['label']}", certain)]
    if np.isfinite(best["difference"]):
        gain = text.signed(best["difference"])
        span = text.interval(best["diff_low"], best["diff_high"], sign=True)
        control = frames.records(table[table["is_control"]])[0]
        sure = f"95 % {span}" if span != text.MISSING else "interval unknown"
        tiles += [(f"{gain} {metric.difference_unit}", f"over {control['label']}", sure), *_cost_tile(best, control)]
    states = sweep.states()
    done = states.get(State.FINISHED, 0) + states.get(State.DIVERGED, 0)
    total = f"{len(table)} arms, {len(sweep.rejections)} rejected"
    return [*tiles, (f"{done} / {sum(states.values())}", "trials with a result", total)]


def _cost_tile(best: dict[str, Any], control: dict[str, Any]) -> list[tuple[str, str, str]]:
    ratio = best["executed_macs"] / control["executed_macs"]
    if not np.isfinite(ratio):
        return []
    macs = f"{text.quantity(best['executed_macs'], 'MACs')} against {text.quantity(control['executed_macs'], 'MACs')}"
    return [(f"{ratio:.2f} ×", "executed MACs per clip", macs)]


def _strips(table: pd.DataFrame, values: pd.DataFrame) -> dict[str, strip.StripInfo]:
    control = table.loc[table["is_control"], "mean"]
    reference = float(control.iloc[0]) if len(control) else float("nan")
    seeds = {
        str(arm): tuple(row[np.isfinite(row)].tolist())
        for arm, row in zip(values.index, values.to_numpy(float), strict=True)
    }
    return {
        arm: strip.StripInfo(row["block"], seeds[arm], row["mean"], row["low"], row["high"], reference)
        for arm, row in frames.rows(table)
    }


def _rows(
    table: pd.DataFrame, strips: dict[str, strip.StripInfo], answer: Answer, higher: bool
) -> list[dict[str, Any]]:
    """Best first; arms without a result last."""
    ranked = table.sort_values("mean", ascending=not higher, na_position="last", kind="stable")
    control = table.loc[table["is_control"], "executed_macs"]
    macs = float(control.iloc[0]) if len(control) else float("nan")
    scale = strip.bounds(list(strips.values()))
    shown = []
    for arm, row in frames.rows(ranked):
        drawn = Markup(strip.draw(strips[arm], scale))  # numbers and a colour only
        standing = {"best": arm == answer.best, "leading": arm in answer.leading, "control": row["is_control"]}
        shown.append({**_row(row, macs), **standing, "strip": drawn})
    return shown


def _row(row: dict[str, Any], macs: float) -> dict[str, Any]:
    half, ratio = row["high"] - row["mean"], row["executed_macs"] / macs
    return {
        "label": row["label"],
        "settings": text.settings_line(row["settings"]),
        "color": style(row["block"]).color,
        "mean": text.number(row["mean"]),
        "half": f"± {text.number(half)}" if np.isfinite(half) else "",
        "n": row["n"],
        "troubles": _troubles(row),
        "difference": text.signed(row["difference"]),
        "span": text.interval(row["diff_low"], row["diff_high"], sign=True),
        "p": text.p_value(row["p_holm"]),
        "verdict": row["verdict"],
        "reason": row["reason"],
        "macs": text.quantity(row["executed_macs"], ""),
        "ratio": f"{ratio:.2f} ×" if np.isfinite(ratio) else "",
        "params": text.quantity(row["params"], ""),
    }


def _troubles(row: dict[str, Any]) -> list[str]:
    found: list[str] = []
    if row["at_chance"]:
        found.append(f"{row['at_chance']} diverged, counted at chance level")
    if row["missing"]:
        found.append(f"{row['missing']} without a result")
    if row["waiting"]:
        found.append(f"{row['waiting']} to come")
    if row["seeds_disagree"]:
        found.append("seeds disagree: read the dots, not the mean")
    return found


def _families(sweep: Sweep, metric: str, figures: dict[str, go.Figure]) -> list[Family]:
    found: list[Family] = []
    for block in sweep.families():
        arms = sweep.arms.index[sweep.arms["block"] == block]
        if not sweep.table(metric).loc[arms, "n"].any():
            continue
        name = f"ablation-{len(found)}"
        figures[name] = sweep.ablation(block, metric)
        found.append(Family(block, style(block).color, name, _effect_lines(sweep, block, metric)))
    return found


def _effect_lines(sweep: Sweep, block: str, metric: str) -> tuple[str, ...]:
    main, pairs = sweep.effects(block, metric)
    better = metrics.find_metric(metric).higher_is_better
    lines = []
    for axis, group in main.groupby("axis", sort=False):
        ranked = frames.records(group.sort_values("mean", ascending=not better, kind="stable"))
        first = ranked[0]
        if np.isfinite(first["p"]):
            effect = f"best at {first['level']}" if first["p"] < significance.ALPHA else "no effect shown"
            alone = "" if first["adjusted"] else ", looked at alone"
            share = f"{100 * first['share']:.0f} % of the variance"
            lines.append(f"{axes.plain(str(axis))}: {effect} ({share}, p {_p(first['p'])}{alone})")
    for row in frames.records(pairs):
        lines.append(
            f"{axes.plain(row['first'])} with {axes.plain(row['second'])}: {row['balance']}{_interaction(row)}"
        )
    return tuple(lines)


def _p(value: float) -> str:
    shown = text.p_value(value)
    return shown if shown.startswith("<") else f"= {shown}"


def _interaction(row: dict[str, Any]) -> str:
    if not np.isfinite(row["p"]):
        return ""
    return f"; interaction {100 * row['share']:.0f} % of the variance, p {_p(row['p_holm'])}"


def _curves(sweep: Sweep, metric: str, table: pd.DataFrame, answer: Answer) -> go.Figure:
    """The best arm, the control, and the best arm of each other block."""
    better = metrics.find_metric(metric).higher_is_better
    ranked = table.dropna(subset="mean").sort_values("mean", ascending=not better, kind="stable")
    first = ranked.drop_duplicates("block").index
    focus = dict.fromkeys([*([answer.best] if answer.best else []), *table.index[table["is_control"]], *first])
    return sweep.curves(metric, list(focus)[:MOST_CURVES], only=True)


def _zoom(sweep: Sweep, metric: str) -> str:
    found = frontier.zoom(sweep.frontier_info(metric))
    return json.dumps({"xaxis.range": found[0], "yaxis.range": found[1]}) if found else ""


def _progress(sweep: Sweep) -> str:
    states = sweep.states()
    waiting = states.get(State.PLANNED, 0) + states.get(State.RUNNING, 0)
    if not waiting:
        return ""
    return f"The sweep is not finished: {text.count(waiting, 'trial')} of {sum(states.values())} to come."


def _failures(sweep: Sweep) -> list[dict[str, Any]]:
    rows = sweep.failures()
    labels = sweep.arms["label"]
    return [{**row, "label": labels[row["arm_id"]]} for row in frames.records(rows)]


def _seconds(sweep: Sweep) -> dict[str, str]:
    total = sweep.cost_accounting().sum()
    return {
        "useful": text.duration(float(total["useful_seconds"])),
        "lost": text.duration(float(total["lost_seconds"])),
        "attempts": text.count(int(total["attempts"]), "attempt"),
        "retries": text.count(int(total["retries"]), "retry").replace("retrys", "retries"),
    }


def _environments(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "attempts": row["attempts"],
            "facts": {key: _fact(value) for key, value in row["facts"].items() if key not in PROVENANCE_LEFT_OUT},
        }
        for row in frames.records(table)
    ]


def _fact(value: Any) -> str:
    return (
        value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).replace("...", "").strip()
    )


def _definition(sweep: Sweep) -> dict[str, Any]:
    return {
        key: value for key, value in sweep.record.definition.items() if key != "caveat" and value not in (None, {}, [])
    }


def _packed(figures: dict[str, go.Figure]) -> dict[str, Markup]:
    """Figures as JSON that cannot end its script element; templates are stored once, beside them."""
    packed = {}
    for name, figure in figures.items():
        figure.update_layout(template=None)
        packed[name] = _script_json(figure.to_json())
    return packed


def _script_json(content: str) -> Markup:
    return Markup(content.replace("<", "\\u003c"))


@cache
def _assets() -> dict[str, Any]:
    folder = files("dashboards") / "templates"
    templates = {
        theme: _script_json(go.Figure(layout={"template": template(theme)}).to_json()) for theme in ("light", "dark")
    }
    return {
        "css": Markup((folder / "report.css").read_text(encoding="utf-8")),
        "js": Markup((folder / "report.js").read_text(encoding="utf-8")),
        "plotly": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        "templates": templates,
    }


def _environment() -> Environment:
    return Environment(loader=PackageLoader("dashboards"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


__all__: Sequence[str] = ("render", "write")
