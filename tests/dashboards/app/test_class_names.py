"""Classes have their names in every figure and table where the ledger knows them, and numbers where it does not."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from components import find

import dashboards
from orchestrator.records.schema import pack_names, unpack_names

NAMES = tuple(f"digit {label}" for label in range(10))


@pytest.fixture
def named(quickstart_path: Path, tmp_path: Path) -> Path:
    """The digits table as it is written now; `quickstart_path` is of before classes had names."""
    path = Path(shutil.copy(quickstart_path, tmp_path / "ledger.db"))
    with sqlite3.connect(path) as connection:
        (packed,) = connection.execute("SELECT names FROM clip_sets").fetchone()
        clips, none = unpack_names(packed)
        assert none == ()
        connection.execute("UPDATE clip_sets SET names = ?", (pack_names(clips, NAMES),))
    connection.close()
    return path


def test_gains_per_class_have_names(named: Path, quickstart: dashboards.Sweep) -> None:
    sweep = dashboards.open(named).sweep("quickstart")
    gains = sweep.per_class("nl@res3", "none")
    assert set(gains["name"]) == set(NAMES)
    assert all(name == f"digit {label}" for label, name in gains["name"].items())
    assert [bar[0] for bar in sweep.class_gains_info("nl@res3", "none").bars] == list(gains["name"])
    old = quickstart.per_class("nl@res3", "none")
    assert list(old["name"]) == [f"class {label}" for label in old.index]
    own = quickstart.class_gains_info("nl@res3", "none", [f"n{label}" for label in range(10)])
    assert [bar[0] for bar in own.bars] == [f"n{label}" for label in old.index]


def test_best_guesses_have_names(named: Path, quickstart: dashboards.Sweep) -> None:
    guesses = dashboards.open(named).sweep("quickstart").top_predictions([3], ["none"])
    assert list(guesses["class_name"]) == [f"digit {label}" for label in guesses["class"]]
    assert list(guesses["label_name"]) == [f"digit {label}" for label in guesses["label"]]
    old = quickstart.top_predictions([3], ["none"])
    assert list(old["class_name"]) == [f"class {label}" for label in old["class"]]


def test_the_compared_clips_and_the_chart_have_names(named: Path, show: Callable[..., Any]) -> None:
    content, said = show(named, "/compare", "?sweep=quickstart&a=nl%40res3&b=none")
    chart = next(graph for graph in find(content, "Graph") if graph.id["graph"] == "classes")
    assert set(chart.figure.data[0].y) == set(NAMES)
    assert "digit 4" in said


def test_a_ledger_with_fewer_names_than_classes_numbers_the_rest(named: Path) -> None:
    with sqlite3.connect(named) as connection:
        (packed,) = connection.execute("SELECT names FROM clip_sets").fetchone()
        connection.execute("UPDATE clip_sets SET names = ?", (pack_names(unpack_names(packed)[0], NAMES[:3]),))
    connection.close()
    gains = dashboards.open(named).sweep("quickstart").per_class("nl@res3", "none")
    assert gains.loc[2, "name"] == "digit 2"
    assert gains.loc[3, "name"] == "class 3"
