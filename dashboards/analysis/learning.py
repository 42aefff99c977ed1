"""Learning curves: a metric per epoch, mean and 95 % band over seeds, from what the database has aggregated."""

from __future__ import annotations

import pandas as pd

from dashboards.analysis.arms import t_half_width


def curves(epochs: pd.DataFrame) -> pd.DataFrame:
    """Add the band to `Reader.epochs`: arm_id, epoch, n, mean, sd, low, high. One seed has no band (NaN)."""
    half = t_half_width(epochs["sd"].to_numpy(float), epochs["n"].to_numpy(int))
    return epochs.assign(low=epochs["mean"] - half, high=epochs["mean"] + half)
