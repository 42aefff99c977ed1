"""What the report says, section by section, as plain values for its template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from dashboards import frames, metrics, text
from dashboards.analysis import axes, significance
from dashboards.analysis.answer import EMPTY, Answer
from dashboards.analysis.same_data import best_first, of_reference
from dashboards.figures import frontier, strip
from dashboards.figures.theme import style
from dashboards.sweep import Sweep
from orchestrator.records.schema import State

MOST_CURVES = 10
MOST_NOTES = 5
MAY_BE_BEST = "not shown to be worse than the best arm (one-sided paired t tests, Holm)"
OVER_SPLITS = (
    "A seed counts once it has finished on every split, with its mean over them: what papers print for data sets with "
    "several splits. Holm's correction is over this table; the intervals are of seeds, not of splits."
)
NOBODY = Answer("", "", EMPTY)  # the answer is about single arms: none of these is marked
ONE_SEED = "one seed: spread unknown"
DERIVED = ("caveat", "estimate", "duplicates")  # kept with a sweep, but not part of its file


@dataclass(frozen=True)
class Family:
    """One block's section: its figure and what its axes do, in words."""

    block: str
    color: str
    figure: str
    effects: tuple[str, ...]


def tiles(table: pd.DataFrame, answer: Answer, metric: metrics.Metric, sweep: Sweep) -> list[tuple[str, str, str]]:
    """Big number, what it is, how sure."""
    if answer.best is None:
        return []
    best = frames.row(table, answer.best)
    seeds = text.count(int(best["n"]), "seed")
    certain = f"95 % CI {metric.interval(best['low'], best['high'])}, {seeds}" if best["n"] > 1 else ONE_SEED
    if metric.cuts(table.loc[[answer.best], ["low", "high"]]):
        certain += ", cut at what is possible"
    tiles = [(metric.said(best["mean"]), f"{metric.title} of {best['label']}", certain)]
    if np.isfinite(best["difference"]):
        span = metric.interval(best["diff_low"], best["diff_high"], sign=True)
        control = frames.records(table[table["is_control"]])[0]
        sure = f"95 % CI {span}" if span != text.MISSING else "interval unknown"
        tiles += [(metric.change(best["difference"]), f"over {control['label']}", sure), *_cost_tile(best, control)]
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


def strips(table: pd.DataFrame, values: pd.DataFrame) -> dict[str, strip.StripInfo]:
    """What each row's dots are drawn from."""
    reference = of_reference(table, "mean")
    seeds = {
        str(arm): tuple(row[np.isfinite(row)].tolist())
        for arm, row in zip(values.index, values.to_numpy(float), strict=True)
    }
    return {
        arm: strip.StripInfo(row["block"], seeds[arm], row["mean"], row["low"], row["high"], float(reference[arm]))
        for arm, row in frames.rows(table)
    }


def rows(
    table: pd.DataFrame, strips: dict[str, strip.StripInfo], answer: Answer, metric: metrics.Metric
) -> list[dict[str, Any]]:
    """Best first, of each data set. Each with its strip, drawn on the scale of all."""
    ranked = best_first(table, higher_is_better=metric.higher_is_better)
    scale = strip.bounds(list(strips.values()))
    return [
        row | {"strip": Markup(strip.draw(strips[row["arm_id"]], scale))}  # numbers and a colour only
        for row in said(ranked, ranked, answer, metric)
    ]


def over_splits(sweep: Sweep, metric: str) -> tuple[pd.DataFrame, dict[str, strip.StripInfo]] | None:
    """The means over splits and what their dots are drawn from; None where no seed has finished on all splits."""
    table, means = sweep.over_splits(metric)
    return (table, strips(table, means)) if table["n"].any() else None


def said(part: pd.DataFrame, table: pd.DataFrame, answer: Answer, metric: metrics.Metric) -> list[dict[str, Any]]:
    """What is said about some rows of `table`, in their order."""
    macs = of_reference(table, "executed_macs")
    shown = []
    for arm, row in frames.rows(part):
        standing = {
            "arm_id": arm,
            "best": arm == answer.best,
            "leading": arm in answer.leading,
            "control": row["is_control"],
        }
        shown.append({**_row(row, float(macs[arm]), metric), **standing})
    return shown


def _row(row: dict[str, Any], macs: float, metric: metrics.Metric) -> dict[str, Any]:
    ratio = row["executed_macs"] / macs
    return {
        "label": row["label"],
        "settings": text.settings_line(row["settings"]),
        "color": style(row["block"]).color,
        "mean": metric.number(row["mean"]),
        "half": metric.spread(row["mean"], row["low"], row["high"]),
        "n": row["n"],
        "troubles": _troubles(row),
        "difference": metric.signed(row["difference"]),
        "span": metric.interval(row["diff_low"], row["diff_high"], sign=True),
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
    if row["stopped"]:
        found.append(f"{row['stopped']} stopped early by the search: not compared")
    if row["waiting"]:
        found.append(f"{row['waiting']} to come")
    if row["seeds_disagree"]:
        found.append("seeds disagree: read the dots, not the mean")
    return found


def families(sweep: Sweep, metric: str, figures: dict[str, go.Figure]) -> list[Family]:
    """A section per block with several arms, on each data set; draws their figures into `figures`."""
    found: list[Family] = []
    for block, design in sweep.families().items():
        if not sweep.table(metric).loc[design.index, "n"].any():
            continue
        name = f"ablation-{len(found)}"
        figures[name] = sweep.ablation(block, metric)
        color = style(str(sweep.arms.loc[design.index[0], "block"])).color
        found.append(Family(block, color, name, _effect_lines(sweep, block, metric)))
    return found


def _effect_lines(sweep: Sweep, block: str, metric: str) -> tuple[str, ...]:
    main, pairs = sweep.effects(block, metric)
    better = sweep.metric(metric).higher_is_better
    lines = []
    for axis, group in main.groupby("axis", sort=False):
        ranked = frames.records(group.sort_values("mean", ascending=not better, kind="stable"))
        first = ranked[0]
        if np.isfinite(first["p"]):
            effect = f"best at {first['level']}" if first["p"] < significance.ALPHA else "no effect shown"
            alone = "" if first["adjusted"] else ", looked at alone"
            share = f"{100 * first['share']:.0f} % of the variance"
            lines.append(f"{axes.plain(str(axis))}: {effect} ({share}, {text.p_said(first['p'])}{alone})")
    for row in frames.records(pairs):
        lines.append(
            f"{axes.plain(row['first'])} with {axes.plain(row['second'])}: {row['balance']}{_interaction(row)}"
        )
    return tuple(lines)


def _interaction(row: dict[str, Any]) -> str:
    if not np.isfinite(row["p"]):
        return ""
    return f"; interaction {100 * row['share']:.0f} % of the variance, {text.p_said(row['p_holm'])}"


def curves(sweep: Sweep, metric: str, table: pd.DataFrame, answer: Answer) -> go.Figure:
    """The best arm, the control, and the best arm of each other block, on the control's data."""
    better = sweep.metric(metric).higher_is_better
    ranked = table.loc[sweep.comparable].dropna(subset="mean").sort_values("mean", ascending=not better, kind="stable")
    first = ranked.drop_duplicates("block").index
    focus = dict.fromkeys([*([answer.best] if answer.best else []), *table.index[table["is_control"]], *first])
    return sweep.curves(metric, list(focus)[:MOST_CURVES], only=True)


def zoom(sweep: Sweep, metric: str, cost: str) -> str:
    """Axis ranges of the frontier's second view, as JSON; empty where one view is enough."""
    found = frontier.zoom(sweep.frontier_info(metric, cost))
    return json.dumps({"xaxis.range": found[0], "yaxis.range": found[1]}) if found else ""


def data_sets(sweep: Sweep) -> str:
    """How a sweep over several data sets is to be read; empty for one."""
    arms = sweep.data.value_counts(sort=False)
    if len(arms) < 2:
        return ""
    held = ", ".join(f"{data} ({text.count(int(number), 'arm')})" for data, number in arms.items())
    return (
        f"{held}. An accuracy on one says nothing about one on another, so arms are compared on their own data only. "
        f"The answer, the frontier and the learning curves are of {sweep.control_data}, the control's data; what a "
        "block's settings do is told for each data set by itself."
    )


def only(sweep: Sweep) -> str:
    """Which arms a chart is of, to end its lead with; empty where that is all."""
    return f" Of the arms on {sweep.control_data}, the control's data." if sweep.data.nunique() > 1 else ""


def progress(sweep: Sweep) -> str:
    """How much is still to come; empty once everything has ended."""
    states = sweep.states()
    waiting = states.get(State.PLANNED, 0) + states.get(State.RUNNING, 0)
    if not waiting:
        return ""
    return f"The sweep is not finished: {text.count(waiting, 'trial')} of {sum(states.values())} to come."


def stopped(sweep: Sweep) -> str:
    """What early stopping means for the comparisons; empty where nothing was stopped."""
    found = len(sweep.stopped_early)
    if not found:
        return ""
    return (
        f"A search ended {text.count(found, 'trial')} of {sum(sweep.states().values())} before the last epoch because "
        "others did better at that time. They have no final result and take no part in any comparison: what is "
        "compared here are full-length trials only, and an arm that was stopped is not thereby shown to be worse."
    )


def notes(sweep: Sweep) -> list[str]:
    """What trials noted that a reader must know to judge their numbers, the commonest first, each with how many did."""
    said = sweep.trials["notes"].explode().dropna().value_counts()
    found = [f"{note} ({text.count(int(trials), 'trial')})" for note, trials in said.head(MOST_NOTES).items()]
    rest = len(said) - len(found)
    return [*found, *([f"and {text.count(rest, 'other note')}, on the pages of single trials"] if rest > 0 else [])]


def failures(sweep: Sweep) -> list[dict[str, Any]]:
    """Trials without a usable result, named by their arm's label."""
    rows = sweep.failures()
    labels = sweep.arms["label"]
    return [{**row, "label": labels[row["arm_id"]]} for row in frames.records(rows)]


def seconds(sweep: Sweep) -> dict[str, str]:
    """Device time and attempts of the whole sweep."""
    total = sweep.cost_accounting().sum()
    return {
        "useful": text.duration(float(total["useful_seconds"])),
        "lost": text.duration(float(total["lost_seconds"])),
        "attempts": text.count(int(total["attempts"]), "attempt"),
        "retries": text.count(int(total["retries"]), "retry").replace("retrys", "retries"),
    }


def environments(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Facts of every environment, as texts; what is unknown or empty there is left out."""
    return [
        {
            "attempts": row["attempts"],
            "facts": {key: _fact(value) for key, value in row["facts"].items() if value not in (None, "", [], {})},
        }
        for row in frames.records(table)
    ]


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def definition(sweep: Sweep) -> dict[str, Any]:
    """The sweep's file without what was derived or left empty."""
    return {
        key: value
        for key, value in sweep.record.definition.items()
        if key not in DERIVED and value not in (None, {}, [])
    }


def clips(sweep: Sweep) -> list[dict[str, Any]]:
    """Arms against the control by clip, most gained first."""
    labels = sweep.arms["label"]
    table = sweep.clip_table().sort_values("difference", ascending=False, kind="stable")
    return [
        {
            "label": labels[arm],
            "seeds": row["seeds"],
            "clips": row["clips"],
            "only_first": text.number(row["only_first"]),
            "only_second": text.number(row["only_second"]),
            "difference": text.signed(row["difference"]),
            "span": text.interval(row["low"], row["high"], sign=True),
            "p": text.p_value(row["p_holm"]),
        }
        for arm, row in frames.rows(table)
    ]
