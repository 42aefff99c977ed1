"""Means over the splits of a data set: a seed counts once it has finished on all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dashboard_ledgers import DIGITS, Arm, three_splits, write

import dashboards
from dashboards.analysis import splits
from dashboards.analysis.same_data import NO_CONTROL
from dashboards.errors import NoResults
from orchestrator.cli import cli
from orchestrator.records.schema import State

NONE, NL = {"name": "none"}, {"name": "nl"}


def opened(folder: Path, written: list[Arm]) -> dashboards.Sweep:
    return dashboards.open(write(folder / "ledger.db", written, seeds=3)).sweep("quickstart")


def test_a_row_is_the_mean_over_the_splits_of_each_seed(tmp_path: Path) -> None:
    table, means = opened(tmp_path, three_splits()).over_splits()
    assert list(table["label"]) == ["none", "nl", "pnl"]
    assert means.round(6).to_numpy().tolist() == [[80.0, 81.0, 83.0], [82.0, 83.0, 86.0], [79.666667, 80.666667, 81.0]]
    assert list(table["is_control"]) == [True, False, False]
    assert list(table["data"]) == ["ucf101, mean of splits 1, 2, 3"] * 3
    nl = table.iloc[1]
    assert (nl["n"], nl["pairs"], nl["mean"]) == (3, 3, pytest.approx(251 / 3))
    assert nl["difference"] == pytest.approx(7 / 3)  # of seeds: 2, 2, 3
    # By hand: sd of (2, 2, 3) is 0.57735, t(0.975, 2) = 4.30265, half = 4.30265 * 0.57735 / sqrt(3) = 1.43422
    assert (nl["diff_low"], nl["diff_high"]) == (
        pytest.approx(7 / 3 - 1.43422, abs=1e-4),
        pytest.approx(3.76755, abs=1e-4),
    )
    assert nl["p_holm"] == pytest.approx(2 * nl["p"]), "corrected over the two rows of this table"
    assert list(table["verdict"]) == ["control", "better", "undecided"]
    assert list(table["standing"]) == ["unknown"] * 3


def test_a_seed_that_lacks_a_split_does_not_count(tmp_path: Path) -> None:
    written = three_splits()
    written[4].states = {2: State.FAILED}  # nl on the second split
    table, means = opened(tmp_path, written).over_splits()
    assert np.isnan(means.iloc[1, 2])
    assert (table.iloc[1]["n"], table.iloc[1]["pairs"], table.iloc[1]["missing"]) == (2, 2, 1)


def test_a_group_that_lacks_a_split_of_the_others_is_left_out(tmp_path: Path) -> None:
    table, _ = opened(tmp_path, three_splits()[:-1]).over_splits()  # pnl was not run on the third split
    assert list(table["label"]) == ["none", "nl"]


def test_means_over_other_splits_are_not_compared(tmp_path: Path) -> None:
    """Settings that may be ablated make no other data: an arm with one of them needs every split, too."""
    dense = [
        Arm(f"nl dense {split}", NL, {}, 90.0, 0.1, 1, workload={"name": "ucf101", "split": split, "sampling": "dense"})
        for split in (1, 2)
    ]
    table, _ = opened(tmp_path, [*three_splits(), *dense]).over_splits()
    assert list(table["label"]) == ["none", "nl", "pnl"]


def test_other_lists_are_other_data_and_are_told_apart(tmp_path: Path) -> None:
    lists = [
        Arm(f"{name} {path} {split}", {"name": name}, {}, 50.0, 0.1, 1, workload=workload)
        for path in ("x", "y")
        for split in (2, 1)
        for name in ("none", "nl")
        for workload in [{"name": "ucf101", "split": split, "annotation": path}]
    ]
    lists[0].control = True
    table, _ = opened(tmp_path, lists).over_splits()
    x, y = (f"ucf101 annotation={path}, mean of splits 1, 2" for path in "xy")
    assert list(table["data"]) == [x, x, y, y], "sorted, however the plan has them"
    assert list(table["verdict"] == "control") == [True, False, True, False]


def test_without_the_control_on_every_split_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    written = [arm for arm in three_splits() if arm.label != "none workload.split=2"]
    table, _ = opened(tmp_path, written).over_splits()
    assert list(table["label"]) == ["nl", "pnl"]
    assert set(table["reason"]) == {NO_CONTROL}
    assert table["difference"].isna().all()


def test_the_control_may_be_on_any_split(tmp_path: Path) -> None:
    written = three_splits()
    written[0].control, written[3].control = False, True
    table, _ = opened(tmp_path, written).over_splits()
    assert list(table["verdict"]) == ["control", "better", "undecided"]
    assert list(table["is_control"]) == [True, False, False]


def test_other_sweeps_have_no_such_rows(tmp_path: Path) -> None:
    sweep = opened(tmp_path, [Arm("none", NONE, {}, 50.0, 0.1, 1, control=True), Arm("nl", NL, {}, 60.0, 0.1, 1)])
    table, means = sweep.over_splits()
    assert table.empty
    assert means.empty
    with pytest.raises(NoResults, match=r"no arms on every split that differ in workload\.split alone"):
        sweep.text_table(over_splits=True)
    assert splits.groups(sweep.arms) == {}
    assert "Means over the splits" not in report(sweep, tmp_path)


def test_before_any_seed_has_finished_everywhere_the_command_says_so(tmp_path: Path) -> None:
    written = three_splits()
    for arm in written[3:6]:
        arm.states = dict.fromkeys(range(3), State.PLANNED)
    sweep = opened(tmp_path, written)
    with pytest.raises(NoResults, match="no seed that has finished on every split"):
        sweep.text_table(over_splits=True)
    assert "Means over the splits" not in report(sweep, tmp_path)
    assert "| nl | 3 |" in sweep.text_table()


def test_two_data_sets_do_not_mix(tmp_path: Path) -> None:
    other = [
        Arm("none digits", NONE, {}, 50.0, 0.1, 1, workload=DIGITS),
        Arm("nl digits", NL, {}, 50.0, 0.1, 1, workload=DIGITS),
    ]
    table, _ = opened(tmp_path, [*three_splits(), *other]).over_splits()
    assert list(table["label"]) == ["none", "nl", "pnl"]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("nl workload.split=2", "nl"),
        ("workload.split=2", ""),
        ("pnl block.n=4 workload.split=12 @res4", "pnl block.n=4 @res4"),
        ("my_workload.split=2", "my_workload.split=2"),
    ],
)
def test_labels_lose_what_they_say_about_the_split(label: str, shown: str) -> None:
    assert splits.label(label) == shown


def report(sweep: dashboards.Sweep, folder: Path) -> str:
    from dashboards import report as page

    return page.write(sweep, folder / "report.html").read_text()


def test_report_and_command_show_it(tmp_path: Path) -> None:
    written = report(opened(tmp_path, three_splits()), tmp_path)
    assert written.count("<h2>Means over the splits</h2>") == 1
    section = written.split("<h2>Means over the splits</h2>")[1].split("</section>")[0]
    assert section.count("<svg") == 3
    assert "+2.3" in section
    assert 'class="tag">best' not in section
    words = ["table", str(tmp_path), "--ledger", str(tmp_path / "ledger.db")]
    said = CliRunner().invoke(cli, [*words, "--over-splits"], catch_exceptions=False).output
    assert "| nl | 3 | **83.7" in said
    assert "A seed's value is its mean over the splits" in said
    columns = "arm,data,standing,published_gflops:rnl"
    said = CliRunner().invoke(cli, [*words, "--over-splits", "--columns", columns]).output
    assert "mean of splits 1, 2, 3" in said
