"""What did not work and what it cost: states, causes and device seconds."""

from __future__ import annotations

import pandas as pd

from orchestrator.records.schema import State

GOOD = (str(State.FINISHED), str(State.DIVERGED))  # outcomes that gave a result


def accounting(attempts: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Device seconds per arm: useful (attempts that gave a result), lost (all others), attempts, retries.

    An attempt that resumed from a checkpoint counts in full: its seconds were spent. An open attempt has no end and is
    not counted yet.
    """
    table = _with_arm(attempts, trials)
    good = table["outcome"].isin(GOOD)
    parts = {
        "useful_seconds": table["seconds"].where(good, 0.0),
        "lost_seconds": table["seconds"].where(~good, 0.0),
        "attempts": pd.Series(1, index=table.index),
        "retries": (table["number"] > 1).astype(int),
    }
    return pd.DataFrame(parts).groupby(table["arm_id"]).sum().reindex(pd.unique(trials["arm_id"]), fill_value=0)


def causes(attempts: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Attempts that failed, counted: cause, outcome, attempts, trials, seconds, and one message as an example."""
    table = _with_arm(attempts, trials)
    bad = table[table["cause"].notna()]
    grouped = bad.groupby(["cause", "outcome"], dropna=False, sort=False)
    counted = grouped.agg(
        attempts=("number", "size"),
        trials=("trial_id", "nunique"),
        seconds=("seconds", "sum"),
        example=("message", "first"),
    )
    return counted.reset_index().sort_values("attempts", ascending=False, ignore_index=True)


def unfinished(attempts: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Trials that ended without a usable result: arm_id, seed, state, and the last attempt's cause and message."""
    ended = trials[trials["state"].isin([State.FAILED, State.INFEASIBLE, State.CANCELLED, State.DIVERGED])]
    newest = attempts.sort_values("number").groupby("trial_id").last()
    wanted = newest.reindex(columns=["cause", "message", "number"])
    return ended[["arm_id", "seed", "state"]].join(wanted).rename(columns={"number": "attempts"})


def _with_arm(attempts: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    seconds = (attempts["ended_at"].astype(float) - attempts["started_at"].astype(float)).fillna(0.0)
    return attempts.assign(seconds=seconds, arm_id=attempts["trial_id"].map(trials["arm_id"]))
