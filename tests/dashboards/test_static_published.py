"""The papers' costs against ours, for papers: the numbers, colours and marks of the interactive figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dashboards.errors import NoResults, UnknownChoice
from dashboards.figures.audit import CHEAPER, DEARER, SAME
from dashboards.static import published

MODELS = (
    ("a", "10.0", 10.0, "70", "exact"),
    ("b", "12.0", 30.0, "72", "close"),
    ("c", "14.0", 14.0, "71", "not reproduced"),
)


def rows() -> list[dict[str, Any]]:
    return [
        {"row_id": name, "paper": "rnl", "table": "III", "dataset": "k", "model": name, "metric": metric, **values}
        for name, cost, executed, top1, verdict in MODELS
        for metric, values in (
            ("gflops", {"published": cost, "executed": executed, "verdict": verdict}),
            ("top1", {"published": top1, "executed": None}),
        )
    ]


def test_planes_hold_every_model_over_both_costs_at_one_scale() -> None:
    left, right = published.draw(rows(), "rnl", "planes").axes
    for axes, costs in ((left, (10.0, 12.0, 14.0)), (right, (10.0, 30.0, 14.0))):
        marked = [line for line in axes.lines if line.get_marker() != "None"]
        assert [tuple(line.get_xydata()[0]) for line in marked] == list(zip(costs, (70.0, 72.0, 71.0), strict=True))
        assert [(line.get_marker(), line.get_color()) for line in marked] == [
            ("o", SAME),
            (">", DEARER),
            ("<", CHEAPER),
        ]
        assert [line.get_markerfacecolor() == "none" for line in marked] == [False, False, True], "open: not reproduced"
        assert axes.get_xlim() == (0, 1.08 * 30)
        assert [text.get_text() for text in axes.texts] == ["b", "c"], "named where the place changes"
    assert right.get_title(loc="left") == "2 of 3 change places"


def test_places_are_relative_to_each_sides_cheapest() -> None:
    (axes,) = published.draw(rows(), "rnl", "places").axes
    ends = [tuple(line.get_ydata()) for line in axes.lines]
    assert ends == [(1.0, 1.0), (1.2, 3.0), pytest.approx((1.4, 1.4))]
    assert axes.get_title() == "k"


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoResults, match="no table of bat"):
        published.save(rows(), "bat", "planes", tmp_path / "a.pdf")
    with pytest.raises(NoResults, match="no two costs"):
        published.save(rows(), "bat", "places", tmp_path / "a.pdf")
    with pytest.raises(UnknownChoice, match="planes"):
        published.save(rows(), "rnl", "plains", tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []
    assert published.save(rows(), "rnl", "planes", tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
