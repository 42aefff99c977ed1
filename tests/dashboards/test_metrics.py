from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dashboards.metrics import TOP1, find_cost, find_metric, qualities

RECORDED = ["psnr_db", "validation_loss", "ece", "train_loss", "mean_iou_percent", "eval_seconds", "peak_memory_bytes"]


@pytest.mark.parametrize(
    ("name", "higher", "value", "change"),
    [
        ("psnr_db", True, "31.42 dB", "+0.50 dB"),
        ("mean_iou_percent", True, "31.4 %", "+0.5 points"),
        ("validation_loss", False, "31.416", "+0.500"),
        ("ece", False, "31.416", "+0.500"),
    ],
)
def test_a_recorded_metric_knows_its_unit_decimals_and_which_way_is_better(
    name: str, higher: bool, value: str, change: str
) -> None:
    metric = find_metric(name, RECORDED)
    assert metric.higher_is_better == higher
    assert metric.said(31.4159) == value
    assert metric.change(0.5) == change


def test_headings_have_units_where_there_are_some() -> None:
    loss = find_metric("validation_loss", RECORDED)
    assert (loss.axis, loss.heading("Difference", difference=True)) == ("Validation loss", "Difference")
    assert (TOP1.axis, TOP1.heading("Difference", difference=True)) == ("Top-1 accuracy (%)", "Difference (points)")
    assert (TOP1.hovering("y"), loss.hovering("x")) == ("%{y:.2f} %", "%{x:.4f}")


def test_axes_of_percentages_end_at_one_hundred() -> None:
    assert TOP1.within([-30.0, 140.0]) == [-2.0, 102.0]
    assert find_metric("psnr_db", RECORDED).within([-30.0, 140.0]) == [-30.0, 140.0]


def test_intervals_end_where_percentages_end() -> None:
    assert TOP1.interval(-169.7, 302.9) == "[0.0, 100.0]"
    assert TOP1.interval(-169.7, 302.9, sign=True) == "[−100.0, +100.0]"
    assert TOP1.spread(66.6, -169.7, 302.9) == "[0.0, 100.0]", "± 236.3 would say that it can be more than all"
    assert (TOP1.spread(66.6, 60.0, 73.2), TOP1.spread(66.6, np.nan, np.nan)) == ("± 6.6", "")
    noise = find_metric("psnr_db", RECORDED)
    assert (noise.interval(-1.0, 140.0), noise.spread(69.5, -1.0, 140.0)) == ("[−1.00, 140.00]", "± 70.50")
    cut = pd.DataFrame({"low": [50.0, np.nan, -1.0], "high": [60.0, np.nan, 40.0]})
    assert TOP1.cuts(cut.iloc[:2].assign(diff_low=-120.0, diff_high=3.0))
    assert [TOP1.cuts(cut), TOP1.cuts(cut.iloc[:2]), noise.cuts(cut)] == [True, False, False]


def test_qualities_leave_out_costs_and_put_losses_last() -> None:
    assert qualities(RECORDED) == ["mean_iou_percent", "psnr_db", "ece", "validation_loss", "train_loss"]


def test_costs_are_read_in_a_unit_of_their_size() -> None:
    seconds, macs = find_cost("train_seconds"), find_cost("executed_macs")
    assert [seconds.readable(most)[0].unit for most in (90.0, 1e3, 1e5)] == ["s", "min", "h"]
    assert macs.readable(1e12) == (macs, 1.0)
    assert [find_cost(name).prefixed for name in ("params", "latency_ms", "published_gflops:rnl")] == [
        True,
        False,
        False,
    ]
