"""The answer to the sweep's question in one sentence, with how certain it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dashboards import frames
from dashboards.analysis.equivalence import MARGIN_POINTS, cheaper, equivalent
from dashboards.analysis.significance import ALPHA, BETTER, WORSE, holm, judge
from dashboards.analysis.values import Scores
from dashboards.metrics import Metric
from dashboards.text import count

CERTAIN, UNDECIDED, EMPTY = "certain", "undecided", "empty"


@dataclass(frozen=True)
class Answer:
    """What the sweep says.

    Attributes:
        sentence: one sentence; arm labels are plain text.
        certainty: how sure it is, a few words.
        level: `certain`, `undecided` or `empty` (no result yet).
        best: arm_id of the highest mean (of those better than the control, if any), or None.
        leading: arm_ids that are not shown to be worse than `best`, shown to beat the control or not.
    """

    sentence: str
    certainty: str
    level: str
    best: str | None = None
    leading: tuple[str, ...] = ()


def answer(table: pd.DataFrame, scores: Scores, comparisons: int | None = None) -> Answer:
    """Read the answer off a sweep's table (`Sweep.table`).

    Args:
        table: the arms that may answer.
        scores: theirs.
        comparisons: how many Holm's correction is over, if other arms than these were compared too.
    """
    measured = table[table["n"] > 0]
    if measured.empty:
        return _no_result(table)
    if (measured["at_chance"] == measured["n"]).all():
        return _all_diverged(measured, table)
    better_first = not scores.metric.higher_is_better
    ranked = measured.sort_values("mean", ascending=better_first, kind="stable")
    controls = ranked[ranked["is_control"]]
    if controls.empty:
        return _without_control(frames.records(ranked)[0], str(ranked.index[0]), scores)
    control, others = frames.records(controls)[0], ranked[~ranked["is_control"]]
    if others.empty:
        return Answer(f"Only the control, {control['label']}, has results so far.", "no comparison yet", EMPTY)
    tested = int(others["p"].notna().sum()) if comparisons is None else comparisons
    better = others[others["verdict"] == BETTER]
    if better.empty:
        return _nothing_better(others, control, str(controls.index[0]), scores.metric, tested)
    return _certain(better, others, control, scores, tested)


def _no_result(table: pd.DataFrame) -> Answer:
    ended, waiting = int(table[["missing", "stopped"]].to_numpy().sum()), int(table["waiting"].sum())
    sentence = "No trial has a result yet."
    if ended and not waiting:
        sentence = f"No trial has a result: all {ended} ended without one." if ended > 1 else "The only trial failed."
    return Answer(sentence, "no result", EMPTY)


def _all_diverged(measured: pd.DataFrame, table: pd.DataFrame) -> Answer:
    trials, others = int(measured["n"].sum()), int(table[["waiting", "missing", "stopped"]].to_numpy().sum())
    outcome = " with an outcome" if others else ""
    ended = f"All {trials} trials{outcome}" if trials > 1 else f"The only trial{outcome}"
    said = (
        "training became unstable in every arm, the control among them"
        if measured["is_control"].any()
        else ("training became unstable in every arm")
    )
    return Answer(f"{ended} diverged: {said}, so nothing can be compared.", "no usable network", EMPTY)


def leading(scores: Scores, best: str) -> list[str]:
    """The arms that are not shown to be worse than `best`: not thereby equal to it.

    One-sided paired t tests with Holm's correction. Tests are one-sided because they ask only whether an arm is worse
    than the best (multiple comparisons with the best, Hsu 1981).
    """
    higher = scores.metric.higher_is_better
    against = judge(scores.values, best, higher_is_better=higher)
    worse = against["difference"] < 0 if higher else against["difference"] > 0
    apart = worse & (holm(against["p"].to_numpy(float) / 2) < ALPHA)
    return [str(arm) for arm in scores.values.index if arm != best and not apart[arm]]


def _certain(
    better: pd.DataFrame, others: pd.DataFrame, control: dict[str, Any], scores: Scores, tested: int
) -> Answer:
    best_id, best = str(better.index[0]), frames.records(better)[0]
    # Arms that are not shown to beat the control count too: one of them may even have the higher mean.
    group = [arm for arm in leading(scores, best_id) if arm in others.index]
    name = control["label"]
    span = scores.metric.interval(best["diff_low"], best["diff_high"], sign=True)
    gain = f"{scores.metric.change(best['difference'])} {span} over {name}"
    ratio = _ratio(best, control)
    at = f" at {ratio} its executed MACs" if ratio else ""
    if group:
        rest = f"; {len(group)} of {count(len(others) - 1, 'other arm')} are not shown to be worse"
        leads = "leads" if str(others.index[0]) == best_id else f"leads among those shown to beat {name},"
        sentence = f"{best['label']} {leads} with {gain}{at}{rest}{_thrifty(better, best_id, scores)}."
    else:
        rest = ", and is better than every other arm" if len(others) > 1 else ""
        sentence = f"{best['label']} is best: {gain}{at}{rest}."
    return Answer(sentence, f"better than {name} {_test(best, tested)}", CERTAIN, best_id, tuple(group))


def _test(arm: dict[str, Any], tested: int) -> str:
    """What a verdict rests on: level, test, seeds, correction."""
    comparisons = count(tested, "comparison")
    seeds = count(int(arm["pairs"]), "seed")
    return f"at the {100 * ALPHA:.0f} % level ({arm['method']} test, {seeds}, Holm over {comparisons})"


def _thrifty(better: pd.DataFrame, best: str, scores: Scores) -> str:
    """The cheapest arm that is as good as the best one, in words; nothing where a point is no measure of the metric."""
    if scores.metric.difference_unit != "points":
        return ""
    equal = equivalent(scores.values.loc[better.index], best)
    found = cheaper(equal, better["executed_macs"], best)
    if found.empty:
        return ""
    label, ratio = better.loc[found.index[0], "label"], float(found["cost_ratio"].iloc[0])
    return f", and {label} is as good within {MARGIN_POINTS:g} point for {100 * (1 - ratio):.0f} % fewer"


def _nothing_better(
    others: pd.DataFrame, control: dict[str, Any], control_id: str, metric: Metric, tested: int
) -> Answer:
    first, arm = frames.records(others)[0], str(others.index[0])
    name = control["label"]
    change = f"{first['label']}: {metric.change(first['difference'])}"
    if others["pairs"].max() <= 1:
        sentence = f"One seed decides nothing: the best of it is {change} against {name}, with unknown spread."
        return Answer(sentence, "undecided: run more seeds", UNDECIDED, arm)
    if np.isfinite(first["diff_low"]):
        change += f" {metric.interval(first['diff_low'], first['diff_high'], sign=True)}"
    if (others["verdict"] == WORSE).all():
        return Answer(f"Nothing pays: every arm is worse than {name}.", _test(first, tested), CERTAIN, control_id)
    sentence = f"No arm is shown to be better than {name}; the nearest is {change}."
    more = first["more_seeds"]
    seeds = f"about {count(int(more), 'more seed')} for {first['label']}" if np.isfinite(more) else "more seeds needed"
    return Answer(sentence, f"undecided: {seeds}", UNDECIDED, arm)


def _without_control(first: dict[str, Any], arm: str, scores: Scores) -> Answer:
    value = f"{scores.metric.said(first['mean'])} {scores.metric.interval(first['low'], first['high'])}"
    sentence = f"{first['label']} has the best mean so far, {value}, but no control has a result to compare with."
    return Answer(sentence, "undecided: no control", UNDECIDED, arm)


def _ratio(arm: dict[str, Any], control: dict[str, Any]) -> str:
    macs, reference = float(arm["executed_macs"]), float(control["executed_macs"])
    return f"{macs / reference:.2f} ×" if reference > 0 and np.isfinite(macs) else ""
