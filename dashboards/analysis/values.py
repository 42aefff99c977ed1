"""From trials to one number per arm and seed. Which trials count, and as what, is decided here and nowhere else.

* A finished trial counts with its result.
* A diverged trial, and a finished one whose metric is NaN, counts at chance level: its network knows nothing, and
  leaving it out would reward blocks that break training. The count is kept and shown. Where a metric has no chance
  level (a loss) the trial has no value.
* Failed, infeasible and cancelled trials say nothing about the block: no value, but counted as missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dashboards.metrics import AVERAGED_ERROR, TOP1, TOP5, Metric
from orchestrator.records.schema import State


@dataclass(frozen=True)
class Scores:
    """One metric of a sweep.

    Attributes:
        metric: which.
        values: `[arms, seeds]`, NaN where a trial has no value.
        at_chance: `[arms]` number of trials that enter at chance level.
        missing: `[arms]` number of trials that ended without a value.
        waiting: `[arms]` number of trials that are planned or running.
    """

    metric: Metric
    values: pd.DataFrame
    at_chance: pd.Series
    missing: pd.Series
    waiting: pd.Series

    def only(self, arms: pd.Index) -> Scores:
        """Of some arms."""
        of = (each.loc[arms] for each in (self.at_chance, self.missing, self.waiting))
        return Scores(self.metric, self.values.loc[arms], *of)


def joined(trials: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """Trials with their final metrics as columns; `averaged_error_percent` is derived where both accuracies exist."""
    frame = trials.join(results)
    if TOP1.name in frame and TOP5.name in frame and AVERAGED_ERROR.name not in frame:
        frame[AVERAGED_ERROR.name] = 100.0 - (frame[TOP1.name] + frame[TOP5.name]) / 2
    return frame


def scores(arms: pd.DataFrame, trials: pd.DataFrame, metric: Metric) -> Scores:
    """The matrix of `metric`.

    Args:
        arms: `[arms]` with a column `classes`.
        trials: `joined` trials.
        metric: which.
    """
    states = trials["state"]
    value = trials[metric.name].astype(float) if metric.name in trials else pd.Series(float("nan"), trials.index)
    finished, diverged = states == State.FINISHED, states == State.DIVERGED
    chance = trials["arm_id"].map(metric.chance(arms["classes"])).astype(float)
    # A metric that the workload does not measure has no chance level either; where nothing finished, none is known.
    recorded = bool(value[finished].notna().any() or (diverged.any() and (metric.name in trials or not finished.any())))
    broken = (diverged | (finished & value.isna())) & recorded
    value = value.where(finished & ~broken, chance.where(broken))
    waiting = states.isin([State.PLANNED, State.RUNNING])

    def per_arm(mask: pd.Series) -> pd.Series:
        return mask.groupby(trials["arm_id"]).sum().reindex(arms.index, fill_value=0).astype(int)

    table = pd.DataFrame({"arm_id": trials["arm_id"], "seed": trials["seed"], "value": value})
    matrix = table.pivot(index="arm_id", columns="seed", values="value").reindex(arms.index)
    return Scores(metric, matrix, per_arm(broken & value.notna()), per_arm(value.isna() & ~waiting), per_arm(waiting))
