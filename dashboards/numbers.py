"""One sweep in numbers: its frames and its analysis, read when first asked for and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboards import frames, metrics
from dashboards.analysis import answer as answers
from dashboards.analysis import axes, clips, effects, failures, learning, per_class, predictions, significance, splits
from dashboards.analysis import frontier as pareto
from dashboards.analysis.arms import summarise
from dashboards.analysis.equivalence import MARGIN_POINTS, cheaper, equivalent
from dashboards.analysis.same_data import NO_CONTROL, data_of, references
from dashboards.analysis.values import Scores, joined, scores
from dashboards.errors import UnknownChoice
from dashboards.queries import ClipResults, Reader
from orchestrator.records.schema import State

DEFAULT_METRIC = "top1_percent"
DEFAULT_COST = "executed_macs"
CLIP_COLUMNS = [field.name for field in fields(clips.ClipComparison)]
DIFFERENCES = {"n": "pairs", "low": "diff_low", "high": "diff_high"}  # of a comparison, in the table
BySeed = dict[int, NDArray[np.bool_]]


class Numbers:
    """Frames and analysis of one sweep. Frames are indexed by `arm_id` or `trial_id`."""

    def __init__(self, reader: Reader, name: str) -> None:
        self.reader = reader
        self.record = reader.sweep(name)
        self._tables: dict[str, pd.DataFrame] = {}

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.record.name

    @property
    def caveat(self) -> str:
        """What results of this workload must not be used for; empty if nothing was recorded."""
        return str(self.record.definition.get("caveat") or "")

    @cached_property
    def arms(self) -> pd.DataFrame:
        """Arms in the plan's order, with a column `classes`."""
        frame = self.reader.arms(self.record.id)
        return frame.assign(classes=[_classes(spec) for spec in frame["spec"]])

    @cached_property
    def trials(self) -> pd.DataFrame:
        """Trials with their final metrics as columns."""
        return joined(self.reader.trials(self.record.id), self.results)

    @cached_property
    def results(self) -> pd.DataFrame:
        """Final metrics per trial, as recorded."""
        return self.reader.results(self.record.id)

    def metric(self, name: str = DEFAULT_METRIC) -> metrics.Metric:
        """The metric called `name`; where trials recorded no top-1 accuracy, the default is what they did record.

        Raises:
            UnknownChoice: with the metrics there are.
        """
        recorded = metrics.qualities(self.results.columns)
        if name == DEFAULT_METRIC and recorded and name not in recorded:
            name = recorded[0]
        return metrics.find_metric(name, recorded)

    def judged_by(self, chosen: str = DEFAULT_METRIC) -> dict[str, str]:
        """Titles of the metrics that arms of this sweep can be judged by, the one chosen among them."""
        known = {name: metric.title for name, metric in metrics.METRICS.items() if name in self.trials}
        return {**known, chosen: self.metric(chosen).title}

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """Every attempt at a trial of this sweep."""
        return self.reader.attempts(self.record.id)

    @cached_property
    def stopped_early(self) -> pd.DataFrame:
        """Trials that a search's scheduler ended early: trial_id, arm_id, message. They take no part in comparisons."""
        return self.reader.stopped_early(self.record.id)

    @cached_property
    def rejections(self) -> pd.DataFrame:
        """Configurations the plan refused, with the reason."""
        return self.reader.rejections(self.record.id)

    @cached_property
    def environments(self) -> pd.DataFrame:
        """What the trials ran on."""
        return self.reader.environments(self.record.id)

    @cached_property
    def clip_results(self) -> list[ClipResults]:
        """Per-clip results, one item per list of clips; empty if trials recorded none."""
        return self.reader.predictions(self.record.id)

    @cached_property
    def rules(self) -> list[str]:
        """The papers' counting rules under which at least one arm has been counted."""
        counted = [(profile or {}).get("rules") or {} for profile in self.arms["profile"]]
        return sorted({rule for each in counted for rule in each})

    @property
    def control(self) -> str | None:
        """The control's arm_id."""
        found = self.arms.index[self.arms["is_control"]]
        return str(found[0]) if len(found) else None

    @cached_property
    def compared_with(self) -> pd.Series:
        """Per arm: the arm_id of the one it is compared with, which was judged on the same data; None: with nothing."""
        return pd.Series(references(self.arms), index=self.arms.index, dtype=object)

    @cached_property
    def data(self) -> pd.Series:
        """Per arm: the data set and split that its accuracies are of. Those of different data are never compared."""
        return pd.Series(data_of(list(self.arms["spec"])), index=self.arms.index, dtype=object)

    @property
    def control_data(self) -> str:
        """The data of the control; without one, of the first arm; empty without arms."""
        arm = self.control or next(iter(self.arms.index), None)
        return "" if arm is None else str(self.data[arm])

    @property
    def comparable(self) -> pd.Index:
        """The arms on the control's data (`control_data`)."""
        return self.arms.index[self.data == self.control_data]

    def states(self) -> dict[str, int]:
        """Number of trials per state, states without trials left out."""
        counted = self.trials["state"].value_counts()
        return {str(state): int(counted[state]) for state in State if state in counted}

    def scores(self, metric: str = DEFAULT_METRIC) -> Scores:
        """`metric` as a matrix of arms and seeds."""
        return scores(self.arms, self.trials, self.metric(metric))

    def table(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST) -> pd.DataFrame:
        """One row per arm: configuration, mean and intervals, difference to the control with verdict, costs, standing.

        Columns: label, block, settings, is_control, workload, backbone, data, n, mean, sd, low, high, bootstrap_low,
        bootstrap_high, min, max, seeds_disagree, at_chance, missing, stopped, waiting, compared_with, pairs, method,
        difference, diff_low, diff_high, p, p_holm, p_bh, verdict, reason, more_seeds, every cost, probability,
        standing, dominated_by (see `analysis`). Arms on other data than the control's have no standing.
        """
        key = f"{metric}/{cost}"
        if key not in self._tables:
            self._tables[key] = self._table(self.scores(metric), metrics.find_cost(cost))
        return self._tables[key].copy()

    def over_splits(self, metric: str = DEFAULT_METRIC) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Arms that differ in the split alone as one row each: `table` of their means, and the means `[rows, seeds]`.

        Both are empty where no sweep over `workload.split` is. Costs are those of the first split; Holm's correction is
        over these rows; they have no standing. See `analysis.splits`.
        """
        members, values = splits.groups(self.arms), self.scores(metric)
        if not members:
            return self.table(metric).iloc[:0], values.values.iloc[:0]
        means = splits.means(values.values, members)
        single = self.table(metric)
        table = single.loc[list(members)].assign(probability=np.nan, standing=pareto.UNKNOWN, dominated_by=None)
        table["label"] = table["label"].map(splits.label)
        table["data"] = splits.words(self.arms, members)
        table["is_control"] = [bool(single.loc[arms, "is_control"].any()) for arms in members.values()]
        for name in ("at_chance", "missing", "stopped", "waiting"):
            table[name] = [int(single.loc[arms, name].sum()) for arms in members.values()]
        reference = splits.references(members, self.compared_with.to_dict())
        compared = significance.compare(means, reference, higher_is_better=values.metric.higher_is_better)
        alone = [first for first, other in reference.items() if other is None]
        compared.loc[alone, "reason"] = NO_CONTROL if self.control is not None else "no control to compare with"
        found = summarise(means).join(compared.drop(columns="sd").rename(columns=DIFFERENCES))
        table[found.columns] = found
        return table.assign(compared_with=pd.Series(reference, dtype=object)), means

    def answer(self, metric: str = DEFAULT_METRIC) -> answers.Answer:
        """The answer in one sentence, with its certainty."""
        table, here = self.table(metric), self.comparable
        return answers.answer(table.loc[here], self.scores(metric).only(here), int(table["p"].notna().sum()))

    def frontier_table(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST) -> pd.DataFrame:
        """Cost, mean, probability of being on the frontier and standing per arm on the control's data."""
        here = self.comparable
        return pareto.frontier(
            metrics.arm_cost(metrics.find_cost(cost), self.arms, self.trials).loc[here],
            self.scores(metric).values.loc[here],
            higher_is_better=self.metric(metric).higher_is_better,
        )

    def curves_table(self, metric: str = DEFAULT_METRIC) -> pd.DataFrame:
        """`metric` per arm and epoch with its 95 % band over seeds.

        Raises:
            UnknownChoice: no trial recorded `metric` per epoch.
        """
        known, name = self.reader.epoch_names(self.record.id), self.metric(metric).name
        if known and name not in known:
            raise UnknownChoice("metric per epoch", name, known)
        return learning.curves(self.reader.epochs(self.record.id, name))

    def families(self) -> dict[str, pd.DataFrame]:
        """Block name -> design of its arms on the axes that vary among them.

        A block has a family on each data set, since accuracies on different data make no effect: the one on the
        control's data has the block's name, others are called "BLOCK on DATA".
        """
        found: dict[str, pd.DataFrame] = {}
        for data in dict.fromkeys([self.control_data, *self.data]):
            place = "" if data == self.control_data else f" on {data}"
            families = axes.families(self.arms[self.data == data])
            found |= {f"{block}{place}": design for block, design in families.items()}
        return found

    def effects(self, block: str, metric: str = DEFAULT_METRIC) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Main effects and two-way interactions of the axes of one of `families`."""
        design, values = self.design(block), self.scores(metric).values
        return effects.main_effects(design, values), effects.interactions(design, values)

    def as_good_but_cheaper(
        self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST, margin: float = MARGIN_POINTS
    ) -> pd.DataFrame:
        """Arms that equal the best one within `margin` for certain (TOST) and cost less, cheapest first."""
        best = self.answer(metric).best
        if best is None:
            return pd.DataFrame(columns=["n", "difference", "p", "p_holm", "equivalent", "cost_ratio"])
        costs = metrics.arm_cost(metrics.find_cost(cost), self.arms, self.trials)
        return cheaper(equivalent(self.scores(metric).values.loc[self.comparable], best, margin=margin), costs, best)

    def by_clip(self, first: str, second: str) -> clips.ClipComparison | None:
        """Two arms (arm_id or label) on the same clips; None if they share no data, clips or seed."""
        pair = self._pair(first, second)
        return clips.compare_clips(pair[1], pair[2]) if pair else None

    def per_class(self, first: str, second: str) -> pd.DataFrame:
        """Per-class accuracy of two arms (arm_id or label), most gained class first; empty if they share no clips."""
        pair = self._pair(first, second)
        if pair is None:
            return per_class.per_class(np.zeros(0, np.int32), {}, {})
        group, one, two = pair
        return per_class.per_class(group.labels, one, two, group.class_names)

    def top_predictions(
        self, clips: Sequence[int], arms: Sequence[str] | None = None, most: int = predictions.MOST
    ) -> pd.DataFrame:
        """The best guesses for validation clips, by number, of every trial that stored its scores (PNL, Fig. 5).

        Args:
            clips: positions in the list of validation clips.
            arms: only these (arm_id or label); None is all.
            most: guesses per clip and trial.

        Returns:
            arm_id, seed, clip (name), label, rank (1 is best), class, score, correct, and label_name and class_name.

        Raises:
            UnknownChoice: there is no such clip or arm.
        """
        wanted = set(self.arms.index if arms is None else map(self.arm_id, arms))
        found: list[predictions.Guess] = []
        for group in self.clip_results:
            wrong = [at for at in clips if not 0 <= at < len(group.clips)]
            if wrong:
                raise UnknownChoice("clip", ", ".join(map(str, wrong)), [f"0..{len(group.clips) - 1}"])
            here = self.trials.index.isin(list(group.correct)) & self.trials["arm_id"].isin(wanted)
            for trial, row in frames.rows(self.trials.loc[here, ["arm_id", "seed"]]):
                scores = self.reader.scores(trial)
                if scores is not None:
                    guesses = predictions.guesses(scores, group.labels, clips, most)
                    found += [
                        guess._replace(
                            **row,
                            clip=group.clips[int(guess.clip)],
                            label_name=group.class_names[guess.label],
                            class_name=group.class_names[guess.number],
                        )
                        for guess in guesses
                    ]
        return predictions.frame(found)

    def clip_table(self) -> pd.DataFrame:
        """Every arm against the one it is compared with, on the clips both were evaluated on.

        Returns:
            Per arm with clips: clips, seeds (number), only_first, only_second, difference, low, high (95 %, points of
            top-1), p (McNemar), p_holm. It is about the networks at hand; verdicts come from seeds (`table`).
        """
        rows = {}
        for arm, reference in self.compared_with.items():
            found = self.by_clip(str(arm), reference) if reference not in (None, arm) else None
            if found is not None:
                rows[arm] = asdict(found) | {"seeds": len(found.seeds)}
        table = pd.DataFrame.from_dict(rows, orient="index", columns=CLIP_COLUMNS)
        return table.assign(p_holm=significance.holm(table["p"].to_numpy(float)))

    def failures(self) -> pd.DataFrame:
        """Trials that ended without a usable result, with cause and message."""
        return failures.unfinished(self.attempts, self.trials)

    def cost_accounting(self) -> pd.DataFrame:
        """Device seconds per arm: useful, lost; attempts and retries."""
        return failures.accounting(self.attempts, self.trials).reindex(self.arms.index, fill_value=0)

    def arm_id(self, arm: str) -> str:
        """The arm_id of an arm given by id or label.

        Raises:
            UnknownChoice: with the labels there are.
        """
        if arm in self.arms.index:
            return arm
        found = self.arms.index[self.arms["label"] == arm]
        if not len(found):
            raise UnknownChoice("arm", arm, list(self.arms["label"]))
        return str(found[0])

    def design(self, block: str) -> pd.DataFrame:
        """The design of one of `families`: `[arms, axes]` of levels.

        Raises:
            UnknownChoice: the block has no two arms that differ, with those that have.
        """
        known = self.families()
        if block not in known:
            raise UnknownChoice("block with several arms", block, list(known))
        return known[block]

    def _table(self, values: Scores, cost: metrics.Cost) -> pd.DataFrame:
        arms = self.arms[["label", "block", "settings", "is_control", "workload", "backbone"]].assign(data=self.data)
        stopped = self.stopped_early["arm_id"].value_counts().reindex(arms.index, fill_value=0).astype(int)
        counts = {"at_chance": values.at_chance, "missing": values.missing - stopped, "stopped": stopped}
        counts["waiting"] = values.waiting
        table = arms.join(summarise(values.values)).assign(**counts)
        table = table.assign(compared_with=self.compared_with).join(self._differences(values))
        for name, each in metrics.COSTS.items():
            table[name] = metrics.arm_cost(each, self.arms, self.trials)
        standing = pareto.frontier(
            metrics.arm_cost(cost, self.arms, self.trials),
            values.values.loc[self.comparable].reindex(arms.index),
            higher_is_better=values.metric.higher_is_better,
        )
        return table.join(standing[["probability", "standing", "dominated_by"]])

    def _differences(self, values: Scores) -> pd.DataFrame:
        control, better = self.control, values.metric.higher_is_better
        any_arm = self.compared_with.to_dict() if control is not None else str(values.values.index[0])
        compared = significance.compare(values.values, any_arm, higher_is_better=better)
        compared.loc[self.compared_with.isna(), "reason"] = NO_CONTROL
        if control is None:
            compared = compared.assign(verdict=significance.UNDECIDED, reason="no control to compare with", n=0)
            compared[["difference", "low", "high", "p", "p_holm", "p_bh", "more_seeds"]] = float("nan")
        nothing = (values.at_chance > 0) & (values.at_chance == values.values.notna().sum(axis=1))
        compared.loc[nothing & (compared["verdict"] == significance.UNDECIDED), "reason"] = "every trial diverged"
        return compared.drop(columns="sd").rename(columns=DIFFERENCES)

    def _pair(self, first: str, second: str) -> tuple[ClipResults, BySeed, BySeed] | None:
        """The first list of clips that both arms share, and seed -> correct of each; None on different data."""
        ids = self.arm_id(first), self.arm_id(second)
        if self.data[ids[0]] != self.data[ids[1]]:
            return None
        for group in self.clip_results:
            here = self.trials.loc[self.trials.index.isin(list(group.correct))]
            one, two = (
                {
                    int(seed): group.correct[str(trial)]
                    for trial, seed in here.loc[here["arm_id"] == arm, "seed"].items()
                }
                for arm in ids
            )
            if one and two:
                return group, one, two
        return None


def _classes(spec: Mapping[str, Any]) -> float:
    return float((spec.get("backbone") or {}).get("classes") or "nan")
