"""What the pages show of a sweep over two data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from components import find, texts
from dashboard_ledgers import DIGITS, Arm, three_splits, write

from dashboards.app.store import Store

Show = Callable[..., tuple[list[Any], str]]
EASY = {"name": "easy"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    arms = [
        Arm(f"{block}{name}", {"name": block, "n": n}, {}, mean + gain, 0.2, 1_000 + n, workload=workload)
        for workload, name, mean in ((DIGITS, "", 70.0), (EASY, " easy", 90.0))
        for block, n, gain in (("none", 0, 0), ("nl", 1, 2), ("nl", 2, 4))
    ]
    for arm in arms:
        arm.label += f" {arm.block['n']}"
    arms[0].control = True
    return Store(write(tmp_path_factory.mktemp("data") / "ledger.db", arms))


def test_two_arms_on_different_data_are_said_to_be_not_comparable(store: Store, show: Show) -> None:
    content, said = show(store, "/compare", "?a=nl easy 1&b=none 0")
    assert "nl easy 1 was judged on easy, none 0 on digits" in said
    assert "Differences by seed" not in said
    assert not find(content, "Graph")
    assert "workload.name" in said, "what differs is still listed"


def test_an_arm_is_held_against_the_control_on_its_data(store: Store, show: Show) -> None:
    _, said = show(store, "/compare", "?a=nl easy 1")
    assert "against none easy 0" in said
    content, _ = show(store, "/sweep", "?arm=nl easy 1")
    (link,) = [each.href for each in find(content, "Link") if "Compare with the control" in str(each.children)]
    assert link.endswith("b=a000000000000003")


def test_pages_say_that_there_are_several_data_sets(store: Store, show: Show, tmp_path: Path) -> None:
    for path in ("/sweep", "/effects"):
        assert "digits (3 arms), easy (3 arms)" in show(store, path)[1]
    assert show(store, "/sweep")[1].count("Of the arms on digits, the control's data.") == 2
    one = write(tmp_path / "one.db", [Arm("none", {"name": "none"}, {}, 50.0, 0.5, 1_000, control=True)])
    assert "Several data sets" not in show(one, "/sweep")[1]


def test_effects_of_a_block_are_chosen_per_data_set(store: Store, show: Show) -> None:
    content, said = show(store, "/effects", "?block=nl on easy")
    assert "nl on easy, 2 arms" in str(find(content, "Dropdown"))
    assert "92." in said
    assert "72." not in said.split("All settings at once")[0]


def test_the_table_of_arms_does_not_rank_one_data_set_among_another(store: Store, show: Show) -> None:
    content, _ = show(store, "/sweep")
    shown = [button.children for button in find(content, "Button") if "swatched" in (button.className or "")]
    assert shown == ["nl 2", "nl 1", "none 0", "nl easy 2", "nl easy 1", "none easy 0"]


def test_the_page_of_a_sweep_over_splits_shows_the_means(show: Show, tmp_path: Path) -> None:
    content, said = show(write(tmp_path / "ledger.db", three_splits(), seeds=3), "/sweep")
    assert "Means over the splits" in said
    tables = [each for each in find(content, "Table") if "pnl" in "".join(texts(each))]
    assert len(tables) == 2
    assert "+2.3" in "".join(texts(tables[1]))


def test_other_sweeps_have_no_means_over_splits(store: Store, show: Show) -> None:
    assert "Means over the splits" not in show(store, "/sweep")[1]
