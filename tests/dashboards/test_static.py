"""Figures for papers: right format and size, fonts inside, the same numbers and marks as the interactive ones."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest

import dashboards
from dashboards import static
from dashboards.figures import ablation, curves, effects, frontier, parallel, per_class, stages, theme
from dashboards.metrics import TOP1, find_cost
from orchestrator.errors import UserError

PAIR = ["block.g1", "block.g2"]
CHOICES = {"ablation": {"block": "rnl"}, "heatmap": {"block": "hgnl", "axes": PAIR}}
CHOICES["interaction"] = CHOICES["heatmap"]


@pytest.mark.parametrize("kind", list(static.KINDS))
def test_every_kind_is_a_pdf_of_a_columns_width_with_its_fonts_inside(
    quickstart: dashboards.Sweep, kind: str, tmp_path: Path
) -> None:
    path = quickstart.save_figure(kind, tmp_path / "new" / f"{kind}.pdf", **CHOICES.get(kind, {}))
    content = path.read_bytes()
    assert content.startswith(b"%PDF")
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", content)
    assert float(box[0]) == pytest.approx(72 * 3.4)
    assert 50 < float(box[1]) < 400
    assert [each.name for each in path.parent.iterdir()] == [path.name], "nothing is left beside it"


def test_the_same_figure_gives_the_same_bytes(quickstart: dashboards.Sweep, tmp_path: Path) -> None:
    for suffix in ("pdf", "svg", "png"):
        files = [quickstart.save_figure("frontier", tmp_path / f"{name}.{suffix}") for name in "ab"]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_png_and_svg_have_the_width_asked_for(quickstart: dashboards.Sweep, tmp_path: Path) -> None:
    png = quickstart.save_figure("curves", tmp_path / "curves.png", width="page", focus=["none"], theme="dark")
    assert struct.unpack(">I", png.read_bytes()[16:20])[0] == 7 * 400
    svg = quickstart.save_figure("frontier", tmp_path / "frontier.svg", zoom=True).read_text()
    assert 'width="244.8pt"' in svg
    assert "<text" not in svg, "letters are outlines: no font is needed"


def test_points_are_those_of_the_interactive_figure_in_its_colours_and_marks(quickstart: dashboards.Sweep) -> None:
    info = quickstart.frontier_info()
    (axes,) = static.draw("frontier", info).axes
    drawn = {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]), line.get_color())
        for line in (bar.lines[0] for bar in axes.containers)
    }
    assert drawn == {(point.cost, point.mean, theme.style(point.block).color) for point in info.points}
    assert axes.get_ylim() == pytest.approx(frontier.vertical_range(info))
    marks = {str(static.MARKERS[style.symbol]) for style in theme.STYLES.values()}
    assert len(marks) == len(theme.STYLES), "a grey print tells blocks apart by their marks"


def test_rows_of_an_ablation_come_in_order_with_the_control(quickstart: dashboards.Sweep) -> None:
    info = quickstart.ablation_info("rnl")
    (axes,) = static.draw("ablation", info).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == [row.name for row in info.rows]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "first arm on top"
    assert any("control none" in text.get_text() for text in axes.texts)


def test_cells_say_their_mean_and_n_or_that_they_were_not_run(quickstart: dashboards.Sweep) -> None:
    info = quickstart.cells_info("hgnl", *PAIR)
    (axes,) = static.draw("heatmap", info).axes
    said = [text.get_text() for text in axes.texts]
    assert said.count("not run") == int(np.isnan(np.array(info.means)).sum()) > 0
    assert f"{info.means[0][0]:.1f}\nn = {info.trials[0][0]}" in said


def test_stages_add_up_to_each_arms_macs(quickstart: dashboards.Sweep) -> None:
    arms = [quickstart.arm_id("nl@res3"), quickstart.arm_id("none")]
    (axes,) = static.draw("stages", quickstart.stages_info(arms)).axes
    ends = {round(bar.get_y() + bar.get_height() / 2): 0.0 for bar in axes.patches}
    for bar in axes.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends[row], bar.get_x() + bar.get_width())
    assert [ends[0], ends[1]] == list(quickstart.arms.loc[arms, "executed_macs"])
    assert theme.style("nl").color in {matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes.patches}


def test_gains_per_class_are_in_the_colour_of_the_better_arm(quickstart: dashboards.Sweep) -> None:
    info = quickstart.class_gains_info("nl@res3", "none")
    (axes,) = static.draw("classes", info).axes
    assert [bar.get_width() for bar in axes.patches] == [difference for _, difference, *_ in info.bars]
    assert {matplotlib.colors.to_hex(bar.get_facecolor()) for bar in axes.patches} == {theme.style("nl").color}


def test_a_logarithmic_axis_has_ticks_within_a_decade() -> None:
    points = [
        frontier.Point(str(cost), str(cost), "nl", cost, 90.0, 89.0, 91.0, (90.0,), "dominated", (), {})
        for cost in (1.6e6, 9.0e6)
    ]
    info = frontier.FrontierInfo(TOP1, find_cost("executed_macs"), tuple(points), ((1.6e6, 90.0),), (), 0)
    assert info.logarithmic
    (axes,) = static.draw("frontier", info).axes
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    shown = [label.get_text() for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    assert shown == ["2M", "5M"]


@pytest.mark.parametrize(
    ("kind", "info"),
    [
        ("frontier", frontier.FrontierInfo(TOP1, find_cost("params"), (), (), (), 0)),
        ("ablation", ablation.AblationInfo(TOP1, (), None)),
        ("curves", curves.CurvesInfo(TOP1, ())),
        ("heatmap", effects.CellsInfo(TOP1, "nl", "a", "b", ("1",), ("2",), ((float("nan"),),), ((0,),))),
        ("interaction", effects.CellsInfo(TOP1, "nl", "a", "b", ("1",), ("2",), ((float("nan"),),), ((0,),))),
        ("parallel", parallel.ParallelInfo((), (), (), 0)),
        ("stages", stages.StagesInfo((), ("nl",))),
        ("classes", per_class.PerClassInfo("nl", "none", ("nl", "none"), (), 0)),
    ],
)
def test_nothing_to_show_is_said_in_words(kind: str, info: object, tmp_path: Path) -> None:
    chart = static.draw(kind, info, theme="dark")
    assert chart.axes[0].texts[0].get_text().startswith("No ")
    assert static.write(chart, tmp_path / "empty.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("kind", "name", "choices", "said"),
    [
        ("pie", "a.pdf", {}, "unknown figure 'pie'.*frontier"),
        ("frontier", "a.jpg", {}, "unknown format '.jpg'.*pdf"),
        ("frontier", "a.pdf", {"width": "huge"}, "unknown width"),
        ("ablation", "a.pdf", {}, "say which block, one of nl, hgnl"),
        ("heatmap", "a.pdf", {"block": "hgnl", "axes": ["block.g1"]}, "needs two axes, given 1; .*block.g2"),
        ("classes", "a.pdf", {"focus": ["none"]}, "needs two arms, given 1; .*nl@res3"),
        ("curves", "a.pdf", {"focus": ["nope"]}, "unknown arm"),
    ],
)
def test_wrong_choices_name_the_right_ones(
    quickstart: dashboards.Sweep, kind: str, name: str, choices: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        quickstart.save_figure(kind, tmp_path / name, **choices)
    assert not list(tmp_path.iterdir())
