"""The sweeps that come with longrange: one per table of the four papers, each planning without its data."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from blocks.registry import BUILTIN
from orchestrator.plan import make_plan
from orchestrator.planner import profiler
from orchestrator.sweep import load_sweep, shipped_sweeps

TABLES = {
    "hgnl": {"1", "2", "3", "4"},
    "rnl": {"I", "II(a)", "II(b)", "II(c)", "III", "IV", "V"},
    "pnl": {"1", "2", "3", "4", "5", "6"},
    "bat": {"1", "2", "3", "4", "5", "6", "7", "8", "9"},
}
REAL_DATA = ("ImageNet", "Kinetics-400", "Kinetics-700", "Something-Something V1", "UCF101")
FILES = sorted(Path(str(files("orchestrator"))).glob("sweeps/**/*.yaml"))
OF_TABLES = [name for name in shipped_sweeps() if name.partition("/")[0] in TABLES]


def test_every_table_of_the_papers_has_its_sweep() -> None:
    found: dict[str, set[str]] = {paper: set() for paper in TABLES}
    for name in OF_TABLES:
        reproduces = load_sweep(name).reproduces
        assert reproduces is not None
        assert reproduces.paper == name.partition("/")[0]
        assert reproduces.table not in found[reproduces.paper], f"two sweeps for {reproduces}"
        found[reproduces.paper].add(reproduces.table)
    assert found == TABLES


def test_every_block_stands_beside_yours_or_against_it() -> None:
    names = [name for name in BUILTIN if name != "none"]
    beside = make_plan(load_sweep("every-block", ["block={name: nl, heads: 2}"]))
    assert [arm.spec.block.name for arm in beside.arms] == ["none", "nl", *names]
    against = make_plan(load_sweep("every-block", ["control.block={name: nl, heads: 2}"]))
    assert [arm.spec.block.name for arm in against.arms] == ["nl", "none", *names]
    assert beside.rejected == against.rejected == against.duplicates == ()
    assert {arm.arm_id for arm in beside.arms} == {arm.arm_id for arm in against.arms}, "nothing is trained again"


@pytest.mark.parametrize("name", OF_TABLES)
def test_a_table_says_what_it_asks_and_what_it_needs(name: str) -> None:
    sweep = load_sweep(name)
    assert sweep.question.endswith("?")
    assert any(data in sweep.needs for data in REAL_DATA)
    assert sweep.name.replace("-table-", "/table") == name


@pytest.mark.parametrize("name", shipped_sweeps())
def test_a_shipped_sweep_plans_without_data_and_names_its_arms(name: str) -> None:
    made = make_plan(load_sweep(name), source=name)
    labels = [arm.label for arm in made.arms]
    assert len(set(labels)) == len(labels) >= 3
    assert max(map(len, labels)) <= 110, "labels stand in tables and legends"
    assert not any("#" in label for label in labels), "a label says what varies, not an id"
    if name in OF_TABLES:
        assert made.rejected == ()


@pytest.mark.parametrize(
    "path", sorted(Path(str(files("orchestrator"))).glob("sweeps/**/*.yaml")), ids=lambda p: p.stem
)
def test_a_sweep_file_can_be_read_at_a_glance(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rnl/table1", "pnl/table4", "bat/table5"])
def test_tables_are_profiled_and_priced_without_data(name: str) -> None:
    made = make_plan(load_sweep(name), profiler=profiler())
    control = made.control.profile
    assert control is not None
    for arm in made.arms[1:]:
        assert arm.profile is not None
        if arm.spec.backbone == made.control.spec.backbone:
            assert arm.profile["executed_macs"] > control["executed_macs"]
            assert arm.profile["params"] > control["params"]
    assert made.estimate()["gpu_hours"] > 0
