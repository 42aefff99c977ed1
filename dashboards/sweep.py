"""One sweep of a ledger: numbers, figures, tables and report behind one small object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from dashboards import metrics, tables
from dashboards.analysis import axes
from dashboards.analysis import frontier as pareto
from dashboards.analysis.same_data import cannot_compare
from dashboards.errors import NoResults, OtherData, UnknownChoice
from dashboards.figures import ablation as draw_ablation
from dashboards.figures import curves as draw_curves
from dashboards.figures import effects as draw_effects
from dashboards.figures import failures as draw_failures
from dashboards.figures import frontier as draw_frontier
from dashboards.figures import parallel as draw_parallel
from dashboards.figures import per_class as draw_per_class
from dashboards.figures import stages as draw_stages
from dashboards.figures.theme import Theme
from dashboards.numbers import DEFAULT_COST, DEFAULT_METRIC, Numbers


class Sweep(Numbers):
    """Everything the ledger knows about one sweep.

    Methods that draw return Plotly figures and take a `theme`, "light" or "dark". What was read is kept: make another
    `Sweep` to see what was written meanwhile.
    """

    def frontier(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST, theme: Theme = "light") -> go.Figure:
        """Figure: accuracy over cost, with seeds, intervals and the frontier's band."""
        return draw_frontier.draw(self.frontier_info(metric, cost), theme)

    def frontier_info(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST) -> draw_frontier.FrontierInfo:
        """The numbers of `frontier`: the arms on the control's data."""
        found, price, here = self.metric(metric), metrics.find_cost(cost), self.comparable
        values = self.scores(metric).values.loc[here]
        costs = metrics.arm_cost(price, self.arms, self.trials).loc[here]
        band = pareto.band(costs, values, higher_is_better=found.higher_is_better)
        table = self.table(metric, cost).loc[here].assign(**{cost: costs})
        return draw_frontier.info(table, values, found, price, band, self.arms.loc[here, "spec"])

    def ablation(self, block: str, metric: str = DEFAULT_METRIC, theme: Theme = "light") -> go.Figure:
        """Figure: the arms of one of `families` side by side, with the band of what they are compared with."""
        return draw_ablation.draw(self.ablation_info(block, metric), theme)

    def ablation_info(self, block: str, metric: str = DEFAULT_METRIC) -> draw_ablation.AblationInfo:
        """The numbers of `ablation`."""
        design = self.design(block)
        table, control = self.table(metric), self.compared_with[design.index[0]]  # one for all: they share their data
        kept = table.assign(is_control=table.index == control)
        kept = kept[kept.index.isin(design.index) | kept["is_control"]]
        names = design.apply(lambda row: ", ".join(axes.short(path, value) for path, value in row.items()), axis=1)
        found = self.metric(metric)
        return draw_ablation.info(kept, self.scores(metric).values, found, names)

    def curves(
        self,
        metric: str = DEFAULT_METRIC,
        focus: Sequence[str] | None = None,
        *,
        only: bool = False,
        theme: Theme = "light",
    ) -> go.Figure:
        """Figure: learning curves with bands; arm_ids not in `focus` wait in the legend, or are left out (`only`)."""
        return draw_curves.draw(self.curves_info(metric, focus, only=only), theme)

    def curves_info(
        self, metric: str = DEFAULT_METRIC, focus: Sequence[str] | None = None, *, only: bool = False
    ) -> draw_curves.CurvesInfo:
        """The numbers of `curves`."""
        arms = self.arms.loc[self.arms.index.isin(list(focus))] if only and focus else self.arms
        return draw_curves.info(self.curves_table(metric), arms, self.metric(metric), focus)

    def text_table(
        self,
        kind: str = "markdown",
        columns: Sequence[str] = tables.DEFAULT_COLUMNS,
        metric: str = DEFAULT_METRIC,
        cost: str = DEFAULT_COST,
        *,
        over_splits: bool = False,
    ) -> str:
        """The table as text: `markdown`, `latex`, `csv` or `html`, with the columns asked for.

        Args:
            kind: the format.
            columns: of `tables.COLUMNS`, or `published_gflops:RULE`.
            metric: what arms are judged by.
            cost: of the columns about the frontier.
            over_splits: of the means over the splits of a data set, one row for arms that differ in the split alone.

        Raises:
            UnknownChoice: no such format, column, rule, metric or cost.
            NoResults: nothing has finished, or not on all splits.
        """
        table = self.over_splits(metric)[0] if over_splits else self.table(metric, cost)
        if over_splits and table.empty:
            raise NoResults(f"sweep {self.name!r} has no arms on every split that differ in workload.split alone")
        for name in columns:
            if name.startswith(metrics.RULE_PREFIX):
                table[name] = metrics.arm_cost(self._rule(name), self.arms, self.trials).loc[table.index]
        if not table["n"].any():
            what = "seed that has finished on every split" if over_splits else "finished trial"
            raise NoResults(
                f"sweep {self.name!r} has no {what} with {metric!r} yet ({_spell(self.states())}); "
                f"wait for it, or `longrange resume RUN`"
            )
        found = tables.info(table, self.metric(metric), columns)
        return tables.render(replace(found, note=found.note + tables.OVER_SPLITS) if over_splits else found, kind)

    def _rule(self, name: str) -> metrics.Cost:
        known = [f"{metrics.RULE_PREFIX}{rule}" for rule in self.rules]
        if name not in known:
            raise UnknownChoice("column", name, known)
        return metrics.find_cost(name)

    def heatmap(
        self, block: str, first: str, second: str, metric: str = DEFAULT_METRIC, theme: Theme = "light"
    ) -> go.Figure:
        """Figure: means over every combination of two axes of a block, e.g. `block.g1` and `block.g2`."""
        return draw_effects.heatmap(self.cells_info(block, first, second, metric), theme)

    def interaction(
        self, block: str, first: str, second: str, metric: str = DEFAULT_METRIC, theme: Theme = "light"
    ) -> go.Figure:
        """Figure: one line per level of `first` over `second`; parallel lines are no interaction."""
        return draw_effects.interaction(self.cells_info(block, first, second, metric), theme)

    def cells_info(self, block: str, first: str, second: str, metric: str = DEFAULT_METRIC) -> draw_effects.CellsInfo:
        """The numbers of `heatmap` and `interaction`."""
        design = self.design(block)
        for axis in (first, second):
            if axis not in design:
                raise UnknownChoice(f"axis of {block}", axis, list(map(str, design.columns)))
        of = str(self.arms.loc[design.index[0], "block"])
        return draw_effects.cells(design, self.scores(metric).values, self.metric(metric), of, (first, second))

    def parallel(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST, theme: Theme = "light") -> go.Figure:
        """Figure: every arm as a line through all axes, cost and result."""
        return draw_parallel.draw(self.parallel_info(metric, cost), theme)

    def parallel_info(self, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST) -> draw_parallel.ParallelInfo:
        """The numbers of `parallel`; several data sets are the first axis."""
        price = metrics.find_cost(cost)
        table = self.table(metric, cost).assign(**{cost: metrics.arm_cost(price, self.arms, self.trials)})
        design = axes.design(self.arms)
        if self.data.nunique() > 1:
            design = design.drop(columns=["workload.name", "workload.split"], errors="ignore")
            design.insert(0, "data", self.data)
        return draw_parallel.info(design, table, self.metric(metric), price)

    def stages(self, theme: Theme = "light") -> go.Figure:
        """Figure: executed MACs per stage, backbone and blocks apart."""
        return draw_stages.draw(self.stages_info(), theme)

    def stages_info(self, focus: Sequence[str] = ()) -> draw_stages.StagesInfo:
        """The numbers of `stages`, of some arms (arm_ids) or all."""
        return draw_stages.info(self.arms.loc[list(focus)] if focus else self.arms)

    def device_time(self, theme: Theme = "light") -> go.Figure:
        """Figure: device time per arm that gave results, and that did not."""
        found = draw_failures.info(self.cost_accounting(), self.arms["label"], self.states())
        return draw_failures.draw(found, theme)

    def class_gains(self, first: str, second: str, names: Sequence[str] = (), theme: Theme = "light") -> go.Figure:
        """Figure: per-class gains of one arm over another (arm_id or label)."""
        return draw_per_class.draw(self.class_gains_info(first, second, names), theme)

    def class_gains_info(self, first: str, second: str, names: Sequence[str] = ()) -> draw_per_class.PerClassInfo:
        """The numbers of `class_gains`.

        Raises:
            UnknownChoice: there is no such arm.
            OtherData: the arms were judged on different data.
        """
        ids = [self.arm_id(first), self.arm_id(second)]
        labels, blocks, data = (
            (str(column[ids[0]]), str(column[ids[1]])) for column in (self.arms["label"], self.arms["block"], self.data)
        )
        if data[0] != data[1]:
            raise OtherData(cannot_compare(*labels, data))
        return draw_per_class.info(self.per_class(first, second), labels, blocks, names)

    def save_figure(self, kind: str, path: str | os.PathLike[str], **choices: Any) -> Path:
        """Write a figure for a paper as .pdf, .svg or .png.

        Args:
            kind: `frontier`, `ablation`, `curves`, `heatmap`, `interaction`, `parallel`, `stages` or `classes`.
            path: the file; its suffix is the format.
            **choices: of `dashboards.static.save`: metric, cost, block, axes, focus, theme, width, zoom.
        """
        from dashboards import static  # matplotlib, which nothing else needs

        return static.save(self, kind, path, **choices)

    def report(self, path: str | os.PathLike[str], metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST) -> Path:
        """Write the report, one HTML file that opens without a network."""
        from dashboards.report import write  # it draws a Sweep, so it cannot be imported before this class exists

        return write(self, path, metric=metric, cost=cost)


def _spell(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {state}" for state, number in states.items()) or "no trials"
