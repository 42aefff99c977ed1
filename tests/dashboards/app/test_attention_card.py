"""Attention side by side on the compare page, from files that `longrange attention` kept in the run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import pytest
from attention_maps import keep, seen
from components import find

from dashboards.app.attention import FOLDER

Show = Callable[..., tuple[list[Any], str]]
ARMS = (
    *ledgers.TWO,
    ledgers.Arm("pnl", {"name": "pnl"}, {"res3": [0]}, 61.0, 0.5, 1_990_000),
    ledgers.Arm("bat", {"name": "bat"}, {"res3": [0]}, 62.0, 0.5, 1_990_000),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ledgers.write(tmp_path / "ledger.db", ARMS)
    return tmp_path


def look(folder: Path, arm: int, *, seed: int = 0, key: str = "k1", **what: Any) -> None:
    keep(seen(**what), folder / FOLDER / f"{arm:08x}{seed:08x}-{key}.npz")


def pictures(content: list[Any]) -> list[str]:
    return [graph.id["graph"] for graph in find(content, "Graph") if graph.id["graph"] not in ("seeds", "classes")]


def test_without_maps_it_says_how_to_make_them(folder: Path, show: Show) -> None:
    content, said = show(folder, "/compare", "?a=nl&b=pnl")
    assert f"longrange attention {folder} nl pnl" in said
    assert pictures(content) == []


def test_maps_of_one_arm_alone_are_not_a_comparison(folder: Path, show: Show) -> None:
    look(folder, 1)
    look(folder, 2, key="other")
    assert "longrange attention" in show(folder, "/compare", "?a=nl&b=pnl")[1]


def test_two_arms_side_by_side_with_groups_scales_and_predictions(folder: Path, show: Show) -> None:
    look(folder, 2)
    look(folder, 3, groups=3)
    content, said = show(folder, "/compare", "?a=pnl&b=bat")
    assert pictures(content) == ["attention", "groups-0", "groups-1"]
    titles = [note.text for note in find(content, "Graph")[2].figure.layout.annotations]
    assert [title for title in titles if not title.startswith("frame")] == ["the clip", "pnl", "bat"]
    assert "the 5 most related cells of each scale" in said
    assert "bat: each group" in said
    assert "✓ zero" in said
    assert "70.0 %" in said
    assert "its label is  zero" in said


def test_clip_and_point_are_chosen_by_the_address(folder: Path, show: Show) -> None:
    for arm in (1, 2):
        look(folder, arm)
        look(folder, arm, key="k2", clips=("far",))
    assert "its label is  one" in show(folder, "/compare", "?a=nl&b=pnl&clip=k1.1")[1]
    assert "far" in show(folder, "/compare", "?a=nl&b=pnl&clip=k2.0")[1]
    assert "unknown clip 'k9.0'; use one of: k1.0, k1.1, k2.0" in show(folder, "/compare", "?a=nl&b=pnl&clip=k9.0")[1]
    assert "unknown point '7'" in show(folder, "/compare", "?a=nl&b=pnl&point=7")[1]


def test_the_same_seed_is_preferred(folder: Path, show: Show) -> None:
    look(folder, 1, seed=1)
    look(folder, 2, seed=0)
    assert "seed 0" in show(folder, "/compare", "?a=nl&b=pnl")[1]
    look(folder, 2, seed=1)
    _, said = show(folder, "/compare", "?a=nl&b=pnl")
    shown = said[said.index("First guess") :]
    assert shown.count("seed 1") == 2


def test_an_arm_without_maps_is_named_and_its_predictions_are_shown(folder: Path, show: Show) -> None:
    look(folder, 0, blind=True)
    look(folder, 1)
    content, said = show(folder, "/compare", "?a=nl&b=none")
    assert "none: there is no attention over positions to show" in said
    assert pictures(content) == ["attention"]
    look(folder, 1, blind=True)
    content, said = show(folder, "/compare", "?a=nl&b=none")
    assert "nl and none: there is no attention" in said
    assert pictures(content) == []


def test_a_broken_file_says_how_to_make_it_again(folder: Path, show: Show) -> None:
    look(folder, 1)
    look(folder, 2)
    (folder / FOLDER / f"{2:08x}{0:08x}-k1.npz").write_bytes(b"no maps")
    _, said = show(folder, "/compare", "?a=nl&b=pnl")
    assert "make it with `longrange attention`" in said
    assert "Configuration" in said or "What differs" in said, "the rest of the page stays"
