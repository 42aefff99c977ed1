"""What can be plotted against what: accuracies, costs, their units and which way is better."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dashboards import text
from dashboards.errors import UnknownChoice

UNITS: Mapping[str, tuple[str, str]] = {"percent": ("%", "points"), "db": ("dB", "dB")}
DIGITS: Mapping[str, int] = {"%": 1, "dB": 2}  # decimals that are shown; of a loss three
LOWER_IS_BETTER = {"loss", "error", "distance", "perplexity", "ece", "nll", "brier", "mse", "rmse", "mae"}
COST_ENDINGS = ("_seconds", "_ms", "_bytes", "_macs", "_per_second", "_clips", "_epochs")
WHOLE = 100.0  # per cent
LEAST, MOST = -2.0, 102.0  # per cent, with room for a marker
PREFIXED = ("MACs", "B", "")  # units that take k, M, G; "800 m ms" would help nobody
CLOCK = ((7200.0, 3600.0, "h"), (300.0, 60.0, "min"))  # from so many seconds on: so many are one of these
RULE_PREFIX = "published_gflops:"  # e.g. published_gflops:rnl; printed counts never share an axis with executed MACs


@dataclass(frozen=True)
class Metric:
    """A quality of a trained network.

    Attributes:
        name: the ledger's name, with its unit.
        title: as shown.
        unit: of values; differences are in `difference_unit`.
        higher_is_better: which way is better.
        chance_hits: k of top-k, from which the level of a network that knows nothing follows; 0 if there is none.
    """

    name: str
    title: str
    unit: str = "%"
    difference_unit: str = "points"
    higher_is_better: bool = True
    chance_hits: int = 0

    @property
    def digits(self) -> int:
        """Decimals of a value."""
        return DIGITS.get(self.unit, 3)

    def number(self, value: float) -> str:
        """A value without its unit."""
        return text.number(value, self.digits)

    def said(self, value: float) -> str:
        """A value with its unit: "89.7 %"."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def exactly(self, value: float) -> str:
        """A value with one decimal more, and its unit."""
        return f"{text.number(value, self.digits + 1)} {self.unit}".rstrip()

    def signed(self, value: float) -> str:
        """A difference without its unit."""
        return text.signed(value, self.digits)

    def change(self, value: float) -> str:
        """A difference with its unit: "+41.6 points"."""
        return f"{self.signed(value)} {self.difference_unit}".rstrip()

    def interval(self, low: float, high: float, *, sign: bool = False) -> str:
        """[low, high] without the unit, no further out than values (with `sign`: differences) can be."""
        return text.interval(*self._possible(low, high, sign=sign), self.digits, sign=sign)

    def spread(self, mean: float, low: float, high: float) -> str:
        """What stands beside a mean: "± 3.2"; the interval where it had to be cut; nothing where it is unknown."""
        if not np.isfinite(low):
            return ""
        cut = self._possible(low, high) != (low, high)
        return self.interval(low, high) if cut else f"± {self.number(high - mean)}"

    def cuts(self, table: pd.DataFrame) -> bool:
        """Does an interval of a table, of values or differences, reach where none can be?"""
        ends = (("low", "high", False), ("diff_low", "diff_high", True))
        known = [(table[[low, high]].dropna(), sign) for low, high, sign in ends if low in table]
        return any(
            self._possible(*row, sign=sign) != row
            for rows, sign in known
            for row in rows.itertuples(index=False, name=None)
        )

    def _possible(self, low: float, high: float, *, sign: bool = False) -> tuple[float, float]:
        """A t interval of few seeds does not know that there is nothing below 0 % and above 100 %."""
        if self.unit != "%":
            return low, high
        least = -WHOLE if sign else 0.0
        return float(np.clip(low, least, WHOLE)), float(np.clip(high, least, WHOLE))

    @property
    def axis(self) -> str:
        """What stands beside an axis: "Top-1 accuracy (%)"."""
        return self.heading(self.title)

    def heading(self, what: str, *, difference: bool = False) -> str:
        """What stands above a column of values, or of differences: "Mean (%)", "Difference (points)"."""
        unit = self.difference_unit if difference else self.unit
        return f"{what} ({unit})" if unit else what

    def hovering(self, of: str) -> str:
        """A chart's value as Plotly fills it in, with its unit: `of` is "x" or "y"."""
        return f"%{{{of}:.{self.digits + 1}f}} {self.unit}".rstrip()

    def within(self, ends: list[float]) -> list[float]:
        """The ends of an axis, no further out than values can be: a t interval does not know that 100 % is the end."""
        least, most = (LEAST, MOST) if self.unit == "%" else (-np.inf, np.inf)
        return [float(max(ends[0], least)), float(min(ends[1], most))]

    def chance(self, classes: pd.Series) -> pd.Series:
        """The value of guessing among `classes` equally likely classes; NaN where it is not defined."""
        if self.name == "averaged_error_percent":
            return (TOP1.chance(classes) + TOP5.chance(classes)).rsub(200.0) / 2
        if not self.chance_hits:
            return pd.Series(np.nan, index=classes.index)
        return (100.0 * self.chance_hits / classes.astype(float)).clip(upper=100.0)


@dataclass(frozen=True)
class Cost:
    """What an arm costs. `per_trial` costs are measured and vary with the seed; the others belong to the model."""

    name: str
    title: str
    unit: str
    per_trial: bool = False

    @property
    def prefixed(self) -> bool:
        """Are large values written with k, M, G?"""
        return self.unit in PREFIXED

    def readable(self, most: float) -> tuple[Cost, float]:
        """This cost in the unit for values up to `most`, and how many of its own units that is: hours, not 40,000 s."""
        if self.unit == "s":
            for least, size, unit in CLOCK:
                if most >= least:
                    return replace(self, unit=unit), size
        return self, 1.0


TOP1 = Metric("top1_percent", "Top-1 accuracy", chance_hits=1)
TOP5 = Metric("top5_percent", "Top-5 accuracy", chance_hits=5)
AVERAGED_ERROR = Metric("averaged_error_percent", "Averaged top-1 and top-5 error", higher_is_better=False)
METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (TOP1, TOP5, AVERAGED_ERROR)}

COSTS: Mapping[str, Cost] = {
    cost.name: cost
    for cost in (
        Cost("executed_macs", "Executed MACs per clip", "MACs"),
        Cost("params", "Parameters", ""),
        Cost("latency_ms", "Latency per batch", "ms", per_trial=True),
        Cost("peak_memory_bytes", "Peak memory", "B", per_trial=True),
        Cost("train_seconds", "Training time", "s", per_trial=True),
    )
}


def find_metric(name: str, recorded: Collection[str] = ()) -> Metric:
    """The metric called `name`: a known one, or one that trials recorded.

    Raises:
        UnknownChoice: with the metrics there are.
    """
    if name in METRICS:
        return METRICS[name]
    if name not in recorded:
        raise UnknownChoice("metric", name, list(dict.fromkeys([*METRICS, *recorded])))
    return _from_name(name)


def qualities(recorded: Collection[str]) -> list[str]:
    """Those of some recorded names that say how good a network is, the likeliest first: no cost, losses last."""
    found = [name for name in recorded if not name.endswith(COST_ENDINGS)]
    return sorted(found, key=lambda name: (name.startswith("train_"), not _higher_is_better(name), name))


def _from_name(name: str) -> Metric:
    """What a name tells of a metric that this module does not know: its unit, and which way is better."""
    stem, _, last = name.rpartition("_")
    unit, difference = UNITS.get(last, ("", ""))
    title = (stem if last in UNITS and stem else name).replace("_", " ")
    return Metric(name, title[:1].upper() + title[1:], unit, difference, _higher_is_better(name))


def _higher_is_better(name: str) -> bool:
    return not LOWER_IS_BETTER & set(name.split("_"))


def find_cost(name: str) -> Cost:
    """The cost called `name`; `published_gflops:RULE` is the count of one published rule.

    Raises:
        UnknownChoice: with the costs there are.
    """
    if name.startswith(RULE_PREFIX):
        rule = name.removeprefix(RULE_PREFIX)
        return Cost(name, f"GFLOPs, counting rule {rule}", "GFLOPs")
    if name not in COSTS:
        raise UnknownChoice("cost", name, [*COSTS, f"{RULE_PREFIX}RULE"])
    return COSTS[name]


def arm_cost(cost: Cost, arms: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """One value of `cost` per arm: the model's own, or the median over its finished trials; NaN where unknown.

    Args:
        cost: which.
        arms: `Reader.arms`.
        trials: trials with their results as columns (`values.joined`).
    """
    if cost.name.startswith(RULE_PREFIX):
        rule = cost.name.removeprefix(RULE_PREFIX)
        return arms["profile"].map(lambda profile: _rule(profile, rule)).astype(float)
    if not cost.per_trial:
        return arms[cost.name].astype(float)
    if cost.name not in trials:
        return pd.Series(np.nan, index=arms.index, name=cost.name)
    return trials.groupby("arm_id")[cost.name].median().reindex(arms.index)


def _rule(profile: Any, rule: str) -> float:
    value = ((profile or {}).get("rules") or {}).get(rule)
    return float("nan") if value is None else float(value)
