from __future__ import annotations

import pytest
from scipy import stats

from dashboards.analysis.audit import agreement, frame, rank_changes, summary

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
    row = agreement(rank_changes(frame(ROWS))).loc["rnl"]
    assert row["tau"] == pytest.approx(stats.kendalltau([33, 40, 50], [34, 70, 52]).statistic)
    assert (row["n"], row["moved"]) == (3, 2)


def test_verdicts_are_counted_per_paper() -> None:
    table = summary(frame(ROWS))
    assert table.loc["rnl"].to_dict() == {"differs": 1, "reproduced": 2, "unknown": 1}


def test_no_rows_are_no_changes() -> None:
    assert rank_changes(frame([])).empty
    assert agreement(rank_changes(frame([]))).empty
