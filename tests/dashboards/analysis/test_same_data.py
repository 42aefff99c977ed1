"""An accuracy on one data set says nothing about an accuracy on another: each arm has its control there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dashboard_ledgers import DIGITS, Arm, write

import dashboards
from dashboards import sections
from dashboards.analysis.same_data import NO_CONTROL, data_of, references
from dashboards.analysis.significance import judge
from dashboards.errors import OtherData

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
    assert "Holm over 2 comparisons" in sweep.answer().certainty, "the correction is over the whole table"
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


def heads(number: int, mean: float, workload: dict[str, Any], name: str = "") -> Arm:
    block = {"name": "nl", "heads": number}
    return Arm(f"nl {number}{name}", block, {}, mean, 0.2, 1_500 + 500 * number, workload=workload)


TWO_FAMILIES = (
    Arm("none", NONE, {}, 70.0, 0.2, 1_000, control=True),
    heads(1, 72.0, DIGITS),
    heads(2, 73.0, DIGITS),
    Arm("bat", {"name": "bat"}, {}, 71.0, 0.2, 3_000),
    Arm("none hard", NONE, {}, 40.0, 0.2, 1_250, workload=HARD),
    heads(1, 45.0, HARD, " hard"),
    heads(2, 47.0, HARD, " hard"),
    Arm("bat hard", {"name": "bat"}, {}, 41.0, 0.2, 3_000, workload=HARD),
)


@pytest.fixture
def families(tmp_path: Path) -> dashboards.Sweep:
    return dashboards.open(write(tmp_path / "families.db", TWO_FAMILIES)).sweep("quickstart")


def test_the_best_mean_of_each_data_set_is_bold(sweep: dashboards.Sweep) -> None:
    said = sweep.text_table("markdown", ("arm", "mean"))
    bold = [line.split("|")[1].strip() for line in said.splitlines() if "**" in line]
    assert bold == ["nl", "nl hard", "nl other"]
    assert "best mean of each data set in bold" in said


def test_a_table_names_the_data_and_divides_costs_by_the_own_controls(families: dashboards.Sweep) -> None:
    rows = families.text_table("csv", ("arm", "data")).splitlines()
    assert rows[1:6:4] == ["none,digits", "none hard,hard"]
    lines = families.text_table("markdown", ("arm", "macs_ratio")).splitlines()
    assert [line.split("|")[2].strip() for line in lines if "nl 1" in line] == ["2.00 ×", "1.60 ×"]


def test_effects_are_of_one_data_set_each(families: dashboards.Sweep) -> None:
    found = families.families()
    assert list(found) == ["nl", "nl on hard"], "bat differs in its data alone"
    assert [list(design) for design in found.values()] == [["block.heads"], ["block.heads"]]
    means = {block: families.effects(block)[0]["mean"].round(0).tolist() for block in found}
    assert means == {"nl": [72.0, 73.0], "nl on hard": [45.0, 47.0]}


def test_the_ablation_figure_has_the_control_of_its_data(families: dashboards.Sweep) -> None:
    for block, control, names in (("nl", "none", 2), ("nl on hard", "none hard", 2)):
        info = families.ablation_info(block)
        assert info.control is not None
        assert (info.control.name, len(info.rows)) == (control, names)
    assert families.ablation("nl on hard").data


def test_without_a_control_there_an_ablation_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "ledger.db", (*TWO_FAMILIES[:4], *TWO_FAMILIES[5:]))
    assert dashboards.open(path).sweep("quickstart").ablation_info("nl on hard").control is None


def test_parallel_coordinates_begin_with_the_data(families: dashboards.Sweep, tmp_path: Path) -> None:
    info = families.parallel_info()
    assert [axis.title for axis in info.coordinates][:2] == ["data", "block"]
    assert info.labels[:4] == ("nl 2", "nl 1", "bat", "none"), "the control's data come first"
    one = dashboards.open(write(tmp_path / "one.db", TWO_FAMILIES[:4])).sweep("quickstart")
    assert one.parallel_info().coordinates[0].title == "block"


def test_arms_on_different_data_have_no_difference(families: dashboards.Sweep) -> None:
    assert families.by_clip("nl 1", "none") is not None
    assert families.by_clip("nl 1 hard", "none") is None
    assert families.per_class("nl 1 hard", "none").empty
    with pytest.raises(OtherData, match=r"nl 1 hard was judged on hard, none on digits: .* cannot be compared"):
        families.class_gains("nl 1 hard", "none")


def test_clips_are_compared_with_the_control_on_their_data(families: dashboards.Sweep) -> None:
    found = families.clip_table().rename(index=families.arms["label"])
    assert list(found.index) == ["nl 1", "nl 2", "bat", "nl 1 hard", "nl 2 hard", "bat hard"]
    assert found.loc["nl 2 hard", "difference"] < 15


def test_a_report_says_how_several_data_sets_are_read(families: dashboards.Sweep, tmp_path: Path) -> None:
    page = families.report(tmp_path / "report.html").read_text()
    assert "digits (4 arms), hard (4 arms). An accuracy on one says nothing about one on another" in page
    rows = [line for line in page.splitlines() if '<td class="arm"><s' in line]
    order = [row.split("</span>")[1].split("<")[0].strip() for row in rows]
    assert order == ["nl 2", "nl 1", "bat", "none", "nl 2 hard", "nl 1 hard", "bat hard", "none hard"]
    assert "nl on hard</h3>" in page
    assert page.count("Of the arms on digits, the control&#39;s data.") == 2
    one = dashboards.open(write(tmp_path / "one.db", TWO_FAMILIES[:4])).sweep("quickstart")
    assert "Several data sets" not in one.report(tmp_path / "one.html").read_text()


def test_strips_and_curves_are_of_the_own_data(families: dashboards.Sweep) -> None:
    table = families.table()
    strips = sections.strips(table, families.scores().values)
    assert strips[families.arm_id("nl 1 hard")].reference == table.loc[families.arm_id("none hard"), "mean"]
    names = {trace.name for trace in sections.curves(families, "top1_percent", table, families.answer()).data}
    assert names - {None} == {"none", "nl 2", "bat"}


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


def test_settings_that_choose_what_is_judged_make_other_data() -> None:
    """Three keys are harder than two, whatever the block; training clips and sampling may be ablated."""
    two, three = {"name": "digits", "keys": 2}, {"name": "digits", "keys": 3}
    found = references(
        arms(
            spec(NONE, workload=two),
            spec(NL, workload={**two, "train_clips": 100}),
            spec(NL, workload=three),
            spec(NONE, workload=three),
            spec(NL, workload={"name": "folder", "dataset": "mine"}),
            spec(NONE, workload={"name": "folder", "dataset": "yours"}),
        )
    )
    assert found == {"a": "a", "b": "a", "c": "d", "d": "d", "e": None, "f": "f"}


def test_data_is_told_by_what_differs() -> None:
    def words(*workloads: dict[str, Any]) -> list[str]:
        return data_of([spec(NL, workload=workload) for workload in workloads])

    mine = {"name": "folder", "dataset": "mine", "splits": ["train", "val"]}
    assert words(mine, {**mine, "splits": ["few", "val"]}) == ["folder", "folder"]
    assert words(mine, {**mine, "dataset": "yours"}) == ["folder dataset=mine", "folder dataset=yours"]
    assert words(mine, {"name": "digits", "keys": 2}) == ["folder", "digits"]
    drawn = {**mine, "draw_validation": 5, "draw_seed": 0}
    assert words(drawn, {**drawn, "draw_seed": 1}) == ["folder draw_seed=0", "folder draw_seed=1"]
    assert words({**mine, "draw_seed": 0}, {**mine, "draw_seed": 1}) == ["folder", "folder"], "nothing is drawn"
    assert words({"name": "u", "split": 1}, {"name": "u", "split": 2, "annotation": "b"}) == [
        "u split 1 annotation=null",
        "u split 2 annotation=b",
    ]


def test_each_arm_may_have_a_control_of_its_own() -> None:
    values = pd.DataFrame([[1.0, 2, 3], [2, 4, 6], [10, 20, 31], [9, 18, 27]], index=list("abcd"))
    table = judge(values, {"a": "a", "b": "a", "c": "d", "d": "d"})
    assert table["difference"].tolist()[1:3] == [2.0, pytest.approx(7 / 3)]
    assert list(table["verdict"]) == ["control", "undecided", "undecided", "control"]
