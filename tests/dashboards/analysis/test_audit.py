from __future__ import annotations

import pytest
from scipy import stats

from dashboards.analysis.audit import agreement, frame, planes, rank_changes, summary

ROWS = [
    {"row_id": "a", "paper": "rnl", "metric": "gflops", "published": 33.0, "executed": 34.0, "verdict": "reproduced"},
    {"row_id": "b", "paper": "rnl", "metric": "gflops", "published": 40.0, "executed": 70.0, "verdict": "differs"},
    {"row_id": "c", "paper": "rnl", "metric": "gflops", "published": 50.0, "executed": 52.0, "verdict": "reproduced"},
    {"row_id": "d", "paper": "rnl", "metric": "gflops", "published": 60.0, "executed": None, "verdict": "unknown"},
    {"row_id": "e", "paper": "bat", "metric": "top1", "published": 76.0, "executed": None, "verdict": "unknown"},
]


def test_ranks_change_by_hand() -> None:
    changes = rank_changes(frame(ROWS)).set_index("row_id")
    assert list(changes["published_rank"]) == [1, 2, 3]
    assert list(changes["executed_rank"]) == [1, 3, 2]
    assert list(changes["change"]) == [0, 1, -1]
    assert changes.loc["b", "ratio"] == pytest.approx(1.75)


def test_agreement_is_kendall_s_tau() -> None:
    (row,) = agreement(rank_changes(frame(ROWS))).to_dict("records")
    assert row["tau"] == pytest.approx(stats.kendalltau([33, 40, 50], [34, 70, 52]).statistic)
    assert (row["paper"], row["increment"], row["n"], row["moved"]) == ("rnl", False, 3, 2)


def test_networks_are_compared_with_networks_and_what_blocks_add_with_that() -> None:
    """In one list a block's 1 GFLOP would be "cheaper" than every network, by either count, and tau would shine."""
    rows = [{**row, "dataset": "k", "increment": False} for row in ROWS]
    rows += [
        {**rows[0], "row_id": "x", "published": 1.0, "executed": 9.0, "increment": True},
        {**rows[0], "row_id": "y", "published": 2.0, "executed": 3.0, "increment": True},
        {**rows[0], "row_id": "z", "published": 3.0, "executed": 2.0, "increment": True},
        {**rows[0], "row_id": "elsewhere", "published": 5.0, "executed": 5.0, "dataset": "another"},
        {**rows[0], "row_id": "claim", "table": "text 4.3", "published": 0.5, "executed": 99.0},
    ]
    changes = rank_changes(frame(rows)).set_index("row_id")
    assert "claim" not in changes.index
    assert list(changes.loc[["x", "y", "z"], "published_rank"]) == [1, 2, 3]
    assert list(changes.loc[["a", "b", "c"], "published_rank"]) == [1, 2, 3]
    found = {(row["dataset"], row["increment"]): row for row in agreement(changes).to_dict("records")}
    assert {key: row["n"] for key, row in found.items()} == {("k", False): 3, ("k", True): 3, ("another", False): 1}
    assert found["k", True]["tau"] == pytest.approx(-1)
    assert found["k", False]["tau"] == pytest.approx(stats.kendalltau([33, 40, 50], [34, 70, 52]).statistic)


def test_what_the_printed_digits_hide_changes_no_order() -> None:
    rows = [
        {**ROWS[0], "row_id": name, "published": "1.0", "executed": cost} for name, cost in (("a", 1.1), ("b", 1.2))
    ]
    assert list(rank_changes(frame(rows))["change"]) == [0, 0]


def test_verdicts_are_counted_per_paper() -> None:
    table = summary(frame(ROWS))
    assert table.loc["rnl"].to_dict() == {"differs": 1, "reproduced": 2, "unknown": 1}


def test_equal_costs_share_a_place_and_only_what_leaves_it_has_moved() -> None:
    rows = [
        {**ROWS[0], "row_id": name, "published": "1.65", "executed": cost}
        for name, cost in zip("abc", (1.6, 1.6, 1.9), strict=True)
    ]
    assert list(rank_changes(frame(rows))["change"]) == [0, 0, 2]


def test_no_rows_are_no_changes() -> None:
    assert rank_changes(frame([])).empty
    assert agreement(rank_changes(frame([]))).empty


def printed(
    name: str, published: str, executed: float | None, top1: str, *, table: str = "3", increment: bool = False
) -> list[dict[str, object]]:
    row = {
        "increment": increment,
        "row_id": f"{table}-{name}",
        "paper": "rnl",
        "table": table,
        "dataset": "k",
        "model": name,
        "executed": executed,
    }
    return [{**row, "metric": "gflops", "published": published}, {**row, "metric": "top1", "published": top1}]


def test_planes_rank_within_a_table_and_find_both_frontiers() -> None:
    rows = [
        *printed("none", "10.0", 10.0, "70.0"),
        *printed("attention", "12.0", 30.0, "72.0"),
        *printed("convolution", "14.0", 14.0, "71.0"),
        *printed("too dear", "20.0", 40.0, "71.5"),
        *printed("unknown", "11.0", None, "75.0"),
        *printed("increment", "1.0", 1.0, "60.0", table="2"),
    ]
    found = planes(rows).set_index("model")
    assert list(found.index) == ["none", "attention", "convolution", "too dear"]
    assert list(found["change"]) == [0, 1, -1, 0]
    assert list(found["published_best"]) == [True, True, False, False]
    assert list(found["executed_best"]) == [True, True, True, False]
    assert found.loc["attention", "top1_percent"] == 72.0


def test_what_the_printed_digits_hide_changes_no_place() -> None:
    rows = [*printed("a", "1.0", 1.02, "1"), *printed("b", "1.0", 1.01, "2"), *printed("c", "1.1", 1.06, "3")]
    found = planes(rows).set_index("model")
    assert list(found["change"]) == [0, 0, 0]
    assert list(found["published_best"]) == [False, True, True]


def test_a_table_of_networks_and_increments_is_two_planes() -> None:
    rows = [
        *printed("none", "4.0", 4.0, "76.0"),
        *printed("wide", "8.0", 8.0, "77.0"),
        *printed("nl", "6.0", 8.5, "77.5", increment=True),
        *printed("bat", "1.0", 1.5, "78.0", increment=True),
    ]
    found = planes(rows).set_index("model")
    assert list(found["published_rank"]) == [1, 2, 2, 1]
    assert found["published_best"].to_dict() == {"none": True, "wide": True, "nl": False, "bat": True}


def test_no_rows_are_no_planes() -> None:
    assert planes([]).empty
    assert planes(printed("alone", "1.0", 1.0, "1")).empty
