"""An accuracy on one data set says nothing about an accuracy on another: each arm has its control there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dashboard_ledgers import Arm, write

import dashboards
from dashboards.analysis.same_data import NO_CONTROL, references
from dashboards.analysis.significance import judge

NONE, NL = {"name": "none"}, {"name": "nl"}
HARD, OTHER = {"name": "hard"}, {"name": "ucf101", "split": 2}
TWO_SETS = (
    Arm("none", NONE, {}, 70.0, 0.5, 1_000, control=True),
    Arm("nl", NL, {}, 72.0, 0.2, 2_000),
    Arm("none hard", NONE, {}, 40.0, 0.5, 1_000, workload=HARD),
    Arm("nl hard", NL, {}, 45.0, 0.2, 2_000, workload=HARD),
    Arm("nl other", NL, {}, 90.0, 0.2, 2_000, workload=OTHER),
)


@pytest.fixture
def sweep(tmp_path: Path) -> dashboards.Sweep:
    return dashboards.open(write(tmp_path / "ledger.db", TWO_SETS)).sweep("quickstart")


def test_arms_are_compared_with_the_controls_like_on_their_data(sweep: dashboards.Sweep) -> None:
    table = sweep.table().set_index("label")
    assert list(table["verdict"]) == ["control", "better", "control", "better", "undecided"]
    assert table["difference"].round(0).tolist()[1:4:2] == [2.0, 5.0]
    assert table.loc["nl other", "reason"] == NO_CONTROL
    assert np.isnan(table.loc["nl other", "difference"])
    assert table["p"].notna().sum() == 2, "Holm's correction is over two comparisons"
    assert table["p_holm"].min() == pytest.approx(2 * table["p"].min())


def test_only_arms_on_the_controls_data_answer_and_make_the_frontier(sweep: dashboards.Sweep) -> None:
    assert sweep.answer().sentence.startswith("nl is best: +2")
    assert set(sweep.frontier_table().index) == {sweep.arm_id("none"), sweep.arm_id("nl")}
    assert {point.label for point in sweep.frontier_info().points} == {"none", "nl"}
    assert list(sweep.table()["standing"])[2:] == ["unknown"] * 3


def test_the_table_says_so(sweep: dashboards.Sweep, tmp_path: Path) -> None:
    said = "Arms on other data are compared with the control's like there"
    assert said in sweep.text_table()
    one = dashboards.open(write(tmp_path / "one.db", TWO_SETS[:2])).sweep("quickstart")
    assert said not in one.text_table()


def test_a_report_shows_a_sweep_over_several_data_sets(sweep: dashboards.Sweep, tmp_path: Path) -> None:
    sweep.report(tmp_path / "report.html")
    assert "nl hard" in (tmp_path / "report.html").read_text()


def arms(*specs: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(
        {"is_control": [True, *[False] * (len(specs) - 1)], "spec": specs}, index=list("abcdef"[: len(specs)])
    )


def spec(block: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"workload": {"name": "x"}, "backbone": "r50", "block": block, "recipe": "q", "protocol": "centre", **more}


def test_the_like_of_the_control_has_its_block_and_differs_least_otherwise() -> None:
    hard = {"workload": HARD}
    found = references(
        arms(
            spec(NONE),
            spec(NL),
            spec(NONE, backbone="r101", **hard),
            spec(NONE, protocol="ten", **hard),
            spec(NL, **hard),
        )
    )
    assert found == {"a": "a", "b": "a", "c": "d", "d": "d", "e": "d"}


def test_splits_are_other_data_and_other_settings_of_a_workload_are_not() -> None:
    found = references(
        arms(spec(NONE), spec(NL, workload={"name": "x", "stride": 2}), spec(NL, workload={"name": "x", "split": 2}))
    )
    assert found == {"a": "a", "b": "a", "c": None}


def test_each_arm_may_have_a_control_of_its_own() -> None:
    values = pd.DataFrame([[1.0, 2, 3], [2, 4, 6], [10, 20, 31], [9, 18, 27]], index=list("abcd"))
    table = judge(values, {"a": "a", "b": "a", "c": "d", "d": "d"})
    assert table["difference"].tolist()[1:3] == [2.0, pytest.approx(7 / 3)]
    assert list(table["verdict"]) == ["control", "undecided", "undecided", "control"]
