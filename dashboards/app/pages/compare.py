"""Two arms against each other: by seed, by clip, by class, and in their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from dash import html
from dash.development.base_component import Component
from numpy.typing import NDArray

from dashboards import frames, text
from dashboards.analysis import clips, per_class
from dashboards.analysis.same_data import cannot_compare
from dashboards.analysis.significance import ALPHA
from dashboards.app import attention, paired, parts
from dashboards.app.store import Held
from dashboards.app.view import View
from dashboards.figures import per_class as draw_per_class
from dashboards.queries import ClipResults

TITLE = "Compare"
MOST_CLIPS = 12
SEEDS_LEAD = "Bars are differences by seed, the dashed line is their mean, the band its 95 % confidence interval."
DOUBLED = " (twice the mean over seeds: cautious)"
BySeed = dict[int, NDArray[np.bool_]]


def render(view: View) -> list[Component]:
    """The page; without a choice, the best arm against the control."""
    held = view.sweep()
    head = [html.H1("Two arms against each other")]
    if len(held.arms) < 2:
        return [*head, parts.empty("Nothing to compare", "This sweep has fewer than two arms.")]
    first, second = _pair(view, held)
    against = _against(held, first)
    labels = {str(arm): str(label) for arm, label in held.arms["label"].items()}
    controls = parts.toolbar(
        parts.choice(view, "a", "Arm", labels, _default(view, held), chosen=first),
        parts.choice(view, "b", "Against", labels, against, chosen=second),
        parts.choice(view, "metric", "Judge by", held.judged_by(view.metric), "top1_percent"),
    )
    if first == second:
        return [*head, controls, parts.empty("The same arm twice", "Choose two different arms.")]
    if held.data[first] != held.data[second]:
        why = cannot_compare(labels[first], labels[second], (held.data[first], held.data[second]))
        return [*head, controls, parts.empty("On different data", why), _configuration(held, first, second)]
    by_clip = held.keep(lambda: _clips(held, first, second), "clips", first, second)
    return [
        *head,
        controls,
        _by_seed(view, held, first, second),
        *by_clip.cards(view),
        attention.card(view, held, first, second),
        _configuration(held, first, second),
    ]


def _default(view: View, held: Held) -> str:
    """The best arm, or another on the control's data than the control."""
    best, control = held.answer(view.metric).best, held.control or str(held.arms.index[0])
    others = [str(arm) for arm in [*held.comparable, *held.arms.index] if arm != control]
    return best if best and best != control else others[0]


def _against(held: Held, first: str) -> str:
    """What an arm is compared with unless the visitor chooses."""
    return held.compared_with[first] or held.control or str(held.arms.index[0])


def _pair(view: View, held: Held) -> tuple[str, str]:
    first = held.arm_id(view.one("a", _default(view, held)))
    return first, held.arm_id(view.one("b", _against(held, first)))


def _by_seed(view: View, held: Held, first: str, second: str) -> Component:
    metric = held.metric(view.metric)
    one, two = (frames.row(held.arms, arm) for arm in (first, second))
    info = paired.info(held.scores(view.metric).values, first, second, metric, (one["block"], two["block"]))
    level, certainty = _certainty(info)
    sentence = _sentence(info, one["label"], two["label"])
    figure = parts.graph(paired.draw(info, view.theme), "seeds", "Differences by seed", keep=f"{first} {second}")
    digits = metric.digits + 1
    rows = [
        html.Tr(
            [
                parts.td(f"seed {seed}"),
                parts.td(text.number(a, digits), number=True),
                parts.td(text.number(b, digits), number=True),
                parts.td(text.signed(a - b, digits), number=True),
            ]
        )
        for seed, a, b in info.seeds
    ]
    head = ["Seed", parts.th(parts.swatch(one["block"]), one["label"], number=True)]
    head += [parts.th(parts.swatch(two["block"]), two["label"], number=True), parts.th("Difference", number=True)]
    inside = html.Div([figure, parts.table(head, rows, "Values by seed")], className="sides")
    badge = html.Span(f"{'●' if level == 'certain' else '◐'} {certainty}", className="badge")
    content = [badge, html.P(sentence, className="sentence"), html.P(SEEDS_LEAD, className="lead"), inside]
    return html.Section(content, className=f"card answer {level}", **{"aria-label": "By seed"})


def _sentence(info: paired.PairInfo, one: str, two: str) -> str:
    if not np.isfinite(info.difference):
        return f"{one} and {two} cannot be compared yet: one of them has no result."
    span = info.metric.interval(info.low, info.high, sign=True)
    known = f" {span}" if span != text.MISSING else ""
    return text.unbroken(f"{one}: {info.metric.change(info.difference)}{known} against {two}.")


def _certainty(info: paired.PairInfo) -> tuple[str, str]:
    if not np.isfinite(info.p):
        return "undecided", "one shared seed decides nothing" if info.pairs == 1 else "undecided: too few values"
    seeds = text.count(info.pairs, "shared seed")
    said = f"{info.method} test, {seeds}, {text.p_said(info.p)}; one comparison, not corrected"
    return (
        ("certain", f"different at the 5 % level ({said})") if info.p < ALPHA else ("undecided", f"undecided ({said})")
    )


class _ByClip:
    """Results of two arms on the clips they share; everything is None where they share none."""

    def __init__(
        self,
        labels: tuple[str, str],
        blocks: tuple[str, str],
        group: ClipResults | None = None,
        pair: tuple[BySeed, BySeed] = ({}, {}),
    ) -> None:
        self.labels = labels
        self.blocks = blocks
        self.group = group
        self.pair = pair
        self.found = clips.compare_clips(*pair) if group else None
        self.gains = per_class.per_class(group.labels, *pair, group.class_names) if group else None

    def cards(self, view: View) -> list[Component]:
        """What the clips say."""
        if self.group is None or self.found is None or self.gains is None:
            said = "Both arms need a trial with the same seed, evaluated on the same clips, that kept its predictions."
            return [parts.empty("No paired clips", said)]
        one, two = self.labels
        found = self.found
        numbers = {
            "clips": f"{found.clips}, {text.count(len(found.seeds), 'shared seed')}",
            f"only {one} is right": f"{text.number(found.only_first)} clips",
            f"only {two} is right": f"{text.number(found.only_second)} clips",
            "difference": f"{text.signed(found.difference)} points {text.interval(found.low, found.high, sign=True)}",
            "McNemar's test": f"{text.p_said(found.p)}{DOUBLED if len(found.seeds) > 1 else ''}",
        }
        lead = (
            "Are these trained networks different on the clips they saw? It says nothing about training once more: "
            "that is what seeds are for. Intervals are 95 %, from a paired bootstrap over clips, each by itself."
        )
        figure = draw_per_class.draw(draw_per_class.info(self.gains, self.labels, self.blocks), view.theme)
        drawn = parts.graph(figure, "classes", "Gain per class", keep=f"{one} {two}")
        sides = html.Div([html.Div([parts.facts(numbers), self._clips()]), drawn], className="sides")
        return [parts.card(sides, title="Clip by clip", lead=lead)]

    def _clips(self) -> Component:
        assert self.group is not None
        seeds = sorted(set(self.pair[0]) & set(self.pair[1]))
        one, two = (np.stack([side[seed] for seed in seeds]).mean(axis=0) for side in self.pair)
        order = np.argsort(-np.abs(one - two), kind="stable")[:MOST_CLIPS]
        rows = [
            html.Tr(
                [
                    parts.td(self.group.clips[at]),
                    parts.td(self.group.class_names[self.group.labels[at]]),
                    parts.td(f"{100 * one[at]:.0f} %", number=True),
                    parts.td(f"{100 * two[at]:.0f} %", number=True),
                ]
            )
            for at in order
            if one[at] != two[at]
        ]
        head = ["Clip", "Class", *(parts.th(name, number=True) for name in self.labels)]
        inside = parts.table(head, rows, "Clips that differ most")
        return html.Details([html.Summary("Clips they differ on most (share of seeds that are right)"), inside])


def _clips(held: Held, first: str, second: str) -> _ByClip:
    labels = (str(held.arms.loc[first, "label"]), str(held.arms.loc[second, "label"]))
    blocks = (str(held.arms.loc[first, "block"]), str(held.arms.loc[second, "block"]))
    trials = held.trials[held.trials["arm_id"].isin([first, second])]
    for group in held.reader.predictions_of(list(map(str, trials.index))):
        here = trials[trials.index.isin(list(group.correct))]
        one, two = (
            {int(seed): group.correct[str(trial)] for trial, seed in here.loc[here["arm_id"] == arm, "seed"].items()}
            for arm in (first, second)
        )
        if set(one) & set(two):
            return _ByClip(labels, blocks, group, (one, two))
    return _ByClip(labels, blocks)


def _configuration(held: Held, first: str, second: str) -> Component:
    one, two = (frames.row(held.arms, arm) for arm in (first, second))
    flat_one, flat_two = flatten(one["spec"]), flatten(two["spec"])
    paths = dict.fromkeys([*flat_one, *flat_two])
    differing = [path for path in paths if flat_one.get(path, text.MISSING) != flat_two.get(path, text.MISSING)]
    rows = [
        html.Tr([parts.td(html.Code(path)), *(parts.td(each.get(path, text.MISSING)) for each in (flat_one, flat_two))])
        for path in differing
    ]
    rows += [
        html.Tr([parts.td(cost), *(parts.td(text.quantity(float(arm[name]), unit), css="cost") for arm in (one, two))])
        for cost, name, unit in (("Executed MACs per clip", "executed_macs", "MACs"), ("Parameters", "params", ""))
    ]
    same = len(paths) - len(differing)
    said = f"Different: {len(differing)}. The same in both: {same}."
    return parts.card(
        parts.table(["Setting", one["label"], two["label"]], rows, "Configuration"), title="What differs", lead=said
    )


def flatten(spec: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A configuration as path -> text; `insertion` is one choice, not several."""
    found: dict[str, str] = {}
    for key, value in spec.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and path != "insertion":
            found |= flatten(value, f"{path}.")
        else:
            found[path] = text.setting(value)
    return found
