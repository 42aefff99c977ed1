"""Every figure on data that is whole, partial, of one seed, failed, and empty: numbers, then a chart that is valid."""

from __future__ import annotations

from pathlib import Path

import dashboard_ledgers as ledgers
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

import dashboards
from dashboards.analysis.audit import frame, planes, rank_changes
from dashboards.analysis.frontier import ON
from dashboards.figures import ablation, audit, curves, effects, frontier, parallel, per_class, stages, strip, theme
from dashboards.metrics import TOP1, find_cost
from orchestrator.records.schema import State

STATES = {
    "whole": {"seeds": 3},
    "one seed": {"seeds": 1},
    "planned": {"seeds": 2, "state": State.PLANNED},
    "failed": {"seeds": 2, "state": State.FAILED},
    "diverged": {"seeds": 2, "state": State.DIVERGED},
}
FIGURES = {
    "frontier": lambda sweep: sweep.frontier(),
    "frontier of errors over parameters": lambda sweep: sweep.frontier("averaged_error_percent", "params"),
    "frontier over a published rule": lambda sweep: sweep.frontier(cost="published_gflops:rnl"),
    "frontier over latency": lambda sweep: sweep.frontier(cost="latency_ms", theme="dark"),
    "ablation": lambda sweep: sweep.ablation("nl"),
    "curves": lambda sweep: sweep.curves(),
    "heatmap": lambda sweep: sweep.heatmap("hgnl", "block.g1", "block.g2"),
    "interaction": lambda sweep: sweep.interaction("hgnl", "block.g1", "block.g2"),
    "parallel": lambda sweep: sweep.parallel(),
    "stages": lambda sweep: sweep.stages(),
    "device time": lambda sweep: sweep.device_time(),
    "class gains": lambda sweep: sweep.class_gains("nl@res3", "none"),
}


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dashboards.Sweep]:
    folder: Path = tmp_path_factory.mktemp("states")
    paths = {name: ledgers.write(folder / f"{name}.db", **given) for name, given in STATES.items()}  # type: ignore[arg-type]
    return {name: dashboards.open(path).sweep("quickstart") for name, path in paths.items()}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", FIGURES)
def test_it_draws_data_or_says_why_not(name: str, state: str, sweeps: dict[str, dashboards.Sweep]) -> None:
    chart = FIGURES[name](sweeps[state])
    assert isinstance(chart, go.Figure)
    assert chart.data or chart.layout.annotations[0].text
    chart.to_json()


def test_the_frontier_shows_every_measured_arm_with_its_seeds(quickstart: dashboards.Sweep) -> None:
    info = quickstart.frontier_info()
    assert len(info.points) == 21
    assert {len(point.seeds) for point in info.points} == {4, 5}
    assert [cost for cost, _ in info.steps] == sorted(cost for cost, _ in info.steps)
    chart = frontier.draw(info)
    drawn = {arm for trace in chart.data if trace.customdata is not None for arm in trace.customdata}
    assert drawn == set(quickstart.arms.index)
    assert chart.layout.xaxis.title.text == "Executed MACs per clip"


def test_hover_holds_the_configuration_and_cannot_be_markup(tmp_path: Path) -> None:
    arms = [ledgers.Arm("<i>x</i>", {"name": "nl", "heads": 4}, {"res3": [0]}, 90.0, 1.0, 2_000_000, control=True)]
    sweep = dashboards.open(ledgers.write(tmp_path / "a.db", arms)).sweep("quickstart")
    (point,) = sweep.frontier_info().points
    assert "block: nl, heads=4" in point.hover
    assert "insertion: res3" in point.hover
    for part in ("backbone: resnet_tiny, frames=4", "workload: digits", "recipe: quick, epochs=4", "protocol: centre"):
        assert part in point.hover, "the full configuration, not only what the sweep sets"
    assert "<i>" not in point.hover


def test_far_apart_costs_are_logarithmic(tmp_path: Path) -> None:
    arms = [ledgers.Arm(str(macs), {"name": "nl"}, {"res3": [0]}, 90.0, 1.0, macs) for macs in (10**6, 10**7)]
    sweep = dashboards.open(ledgers.write(tmp_path / "a.db", arms)).sweep("quickstart")
    assert sweep.frontier_info().logarithmic
    assert sweep.frontier().layout.xaxis.type == "log"
    assert "logarithmic" in sweep.frontier().layout.xaxis.title.text


def test_a_distant_control_is_named_at_the_edge_not_squeezed_in(quickstart: dashboards.Sweep) -> None:
    table = quickstart.table()
    values = quickstart.scores().values
    far = ablation.info(table[table["block"].isin(["none", "rnl"])], values, TOP1)
    assert far.control_is_far
    assert "◀ control none" in ablation.draw(far).layout.annotations[0].text
    near = ablation.info(table[table["block"].isin(["none", "nl"])], values, TOP1)
    assert not near.control_is_far
    assert near.control is not None


def test_curves_focus_and_bands(quickstart: dashboards.Sweep) -> None:
    info = curves.info(quickstart.curves_table(), quickstart.arms, TOP1, focus=["a000000000000002"])
    shown = [curve for curve in info.curves if curve.shown]
    assert [curve.label for curve in shown] == ["nl@res3"]
    assert shown[0].epochs == tuple(range(ledgers.EPOCHS))
    assert all(low < mean < high for low, mean, high in zip(shown[0].low, shown[0].mean, shown[0].high, strict=True))


def test_cells_hold_means_counts_and_gaps(quickstart: dashboards.Sweep) -> None:
    values = quickstart.scores().values
    info = effects.cells(quickstart.design("hgnl"), values, TOP1, "hgnl", ("block.g1", "block.g2"))
    assert (info.first, info.rows, info.columns) == ("g1", ("1", "2", "4"), ("1", "2", "4"))
    arm = quickstart.arm_id("hgnl g1=2 g2=2")
    assert info.means[1][1] == pytest.approx(values.loc[arm].mean())
    assert info.trials[1][1] == 5
    assert np.isnan(info.means[0][1])


def test_levels_of_a_setting_have_tones_of_their_blocks_colour(quickstart: dashboards.Sweep) -> None:
    """Another block's colour would say that the line is about that block."""
    for name in ("light", "dark"):
        chart = quickstart.interaction("hgnl", "block.g1", "block.g2", theme=name)
        colors = [trace.line.color for trace in chart.data]
        assert colors[0] == theme.style("hgnl").color
        assert len(set(colors)) == 3
        assert not set(colors[1:]) & {style.color for style in theme.STYLES.values()}
        ground = "#ffffff" if name == "light" else "#1b2129"
        assert min(contrast(color, ground) for color in colors) > 2.0
        assert len({trace.line.dash for trace in chart.data}) == 3


def test_gains_per_class_have_the_colour_of_the_better_arm() -> None:
    bars = (("a<b", 10.0, 5.0, 15.0, 7), ("c", -3.0, -6.0, 1.0, 9))
    chart = per_class.draw(per_class.PerClassInfo("<pnl>", "nl", ("pnl", "nl"), bars, 0))
    assert chart.data[0].marker.color == (theme.style("pnl").color, theme.style("nl").color)
    assert chart.data[0].y == ("a&lt;b", "c")
    assert chart.layout.xaxis.title.text == "Top-1 of &lt;pnl&gt; minus nl, points"


@pytest.mark.parametrize(
    ("name", "seconds", "title", "costs"),
    [
        ("train_seconds", 40.0, "Training time (s)", [20.0, 40.0]),
        ("train_seconds", 1200.0, "Training time (min)", [10.0, 20.0]),
        ("train_seconds", 72_000.0, "Training time (h)", [10.0, 20.0]),
    ],
)
def test_long_times_are_in_hours(name: str, seconds: float, title: str, costs: list[float]) -> None:
    table = pd.DataFrame({"mean": [80.0, 90.0], name: [seconds / 2, seconds]}, index=["a", "b"])
    more = {"low": np.nan, "high": np.nan, "n": 1, "probability": np.nan, "at_chance": 0, "standing": ON}
    table = table.assign(label=["a", "b"], block="nl", **more)
    values, specs = table[["mean"]].set_axis([0], axis=1), pd.Series([{}, {}], index=table.index)
    band = pd.DataFrame({"cost": [seconds / 2], "low": [79.0], "high": [81.0]})
    info = frontier.info(table, values, TOP1, find_cost(name), band, specs)
    assert [point.cost for point in info.points] == [cost for cost, _ in info.steps] == costs
    assert info.band == ((costs[0], 79.0, 81.0),)
    chart = frontier.draw(info)
    assert chart.layout.xaxis.title.text == title
    assert chart.layout.xaxis.tickformat is None, "no 10k hours and no 500m milliseconds"


def test_parallel_axes_end_with_cost_and_result(quickstart: dashboards.Sweep) -> None:
    chart = quickstart.parallel()
    assert chart.layout.xaxis.ticktext[0] == "block"
    assert chart.layout.xaxis.ticktext[-2:] == ("Executed MACs per clip", "Top-1 accuracy (%)")
    assert [trace.line.color for trace in chart.data] == [theme.style(trace.name).color for trace in chart.data]
    last = len(chart.layout.xaxis.ticktext) - 1
    ends = [y for trace in chart.data for x, y in zip(trace.x, trace.y, strict=True) if x == last]
    assert len(ends) == 21
    assert (min(ends), max(ends)) == (0.0, 1.0)


def test_parallel_axes_put_numbers_in_order_and_keep_the_best_lines() -> None:
    arms = [f"a{i}" for i in range(parallel.MOST_LINES + 10)]
    design = pd.DataFrame({"block.n": [8, 16, 4] + [4] * (len(arms) - 3), "same": 1}, index=arms)
    table = pd.DataFrame({"label": arms, "block": "nl", "mean": np.arange(len(arms), 0, -1.0)}, index=arms)
    table = table.assign(executed_macs=np.nan, data="digits", is_control=False)
    found = parallel.info(design, table, TOP1, find_cost("executed_macs"))
    assert [axis.title for axis in found.coordinates] == ["n", "Top-1 accuracy (%)"]
    assert found.coordinates[0].ticks == {"4": 0.0, "8": 0.5, "16": 1.0}
    assert (found.labels[0], len(found.labels), found.left_out) == ("a0", parallel.MOST_LINES, 10)


def test_stage_parts_add_up_to_the_executed_macs(quickstart: dashboards.Sweep) -> None:
    info = stages.info(quickstart.arms)
    sums = {label: sum(part.backbone_macs + part.block_macs for part in parts) for label, _, parts in info.arms}
    for row in quickstart.arms.to_dict("records"):
        assert sums[row["label"]] == pytest.approx(row["executed_macs"], abs=1)


def test_slopes_are_relative_to_each_sides_cheapest() -> None:
    rows = [
        {"row_id": name, "paper": "rnl", "metric": "gflops", "published": published, "executed": executed}
        for name, published, executed in (("a", 10.0, 12.0), ("b", 20.0, 48.0), ("c", 30.0, 24.0))
    ]
    rows = [{**row, "dataset": "k"} for row in rows]
    adds = [{**rows[0], "row_id": name, "increment": True, "published": 1.0} for name in ("d", "e")]
    like = {"paper": "rnl", "dataset": "k", "increment": False}
    info = audit.info(rank_changes(frame([*rows, *adds])), like)
    assert info.title == "rnl, k"
    assert [slope.published_relative for slope in info.slopes] == [1.0, 2.0, 3.0]
    assert [slope.executed_relative for slope in info.slopes] == [1.0, 4.0, 2.0]
    assert len(audit.draw(info).data) == 3
    added = audit.info(rank_changes(frame([*rows, *adds])), {**like, "increment": True})
    assert (added.title, len(added.slopes)) == ("rnl, k: what the block adds", 2)
    assert audit.draw(audit.info(rank_changes(frame([])), like)).layout.annotations


def test_planes_put_the_same_points_over_both_costs() -> None:
    verdicts = {"c": "not reproduced"}
    rows = [
        {"row_id": name, "paper": "rnl", "table": "III", "dataset": "k", "model": name, "metric": metric, **values}
        for name, published, executed, top1 in (
            ("a", "10.0", 10.0, "70"),
            ("<b>", "12.0", 30.0, "72"),
            ("c", "14.0", 14.0, "71"),
        )
        for metric, values in (
            ("gflops", {"published": published, "executed": executed, "verdict": verdicts.get(name, "exact")}),
            ("top1", {"published": top1, "executed": None}),
        )
    ]
    (plane,) = audit.planes(planes(rows), "rnl")
    assert (plane.title, plane.moved) == ("Table III, k", 2)
    assert [(point.model, point.change) for point in plane.points] == [("a", 0), ("<b>", 1), ("c", -1)]
    chart = audit.draw_planes((plane,))
    left, right = (trace for trace in chart.data if trace.mode == "markers+text")
    assert left.y == right.y == (70.0, 72.0, 71.0)
    assert (left.x, right.x) == ((10.0, 12.0, 14.0), (10.0, 30.0, 14.0))
    assert left.marker.symbol == ("circle", "triangle-right", "triangle-left-open")
    assert left.text == right.text == ("", "&lt;b&gt;", "c")
    assert chart.layout.xaxis.range == chart.layout.xaxis2.range == (0, 1.08 * 30)
    lines = [trace for trace in chart.data if trace.mode == "lines"]
    assert [line.x for line in lines] == [(10.0, 12.0), (10.0, 14.0, 30.0)]
    assert audit.draw_planes(audit.planes(planes([]), "rnl")).layout.annotations


def test_strips_leave_far_arms_off_the_scale_but_show_them() -> None:
    near = [strip.StripInfo("nl", (90.0 + i, 91.0 + i), 90.5 + i, 88.0, 93.0, 50.0) for i in range(4)]
    far = strip.StripInfo("none", (50.0, 51.0), 50.5, 49.0, 52.0, 50.5)
    scale = strip.bounds([*near, far])
    assert scale == (90.0, 94.0)
    assert strip.draw(far, scale).count('fill="none"') == 2
    assert 'class="mean"' in strip.draw(near[0], scale)
    assert strip.bounds([]) == (0.0, 1.0)
    nothing = strip.StripInfo("nl", (), float("nan"), float("nan"), float("nan"), float("nan"))
    assert "no result" in strip.draw(nothing, scale)


def test_a_strip_of_the_first_arm_that_has_seeds_spans_them() -> None:
    first = strip.StripInfo("nl", (90.0, 92.0), 91.0, float("nan"), float("nan"), float("nan"))
    waiting = strip.StripInfo("none", (), float("nan"), float("nan"), float("nan"), float("nan"))
    assert strip.bounds([first, waiting]) == (90.0, 92.0)


def test_blocks_differ_in_colour_and_marker() -> None:
    styles = list(theme.STYLES.values())
    assert len({style.color for style in styles}) == len({style.symbol for style in styles}) == len(styles)
    assert theme.style("somebody/else") == theme.style("somebody/else")


@pytest.mark.parametrize("name", theme.STYLES)
@pytest.mark.parametrize("ground", ["#ffffff", "#1b2129"])
def test_colours_stand_out_on_both_themes(name: str, ground: str) -> None:
    """A graphical object needs some contrast to be seen; markers and labels carry the rest."""
    assert contrast(theme.style(name).color, ground) > 2.0


def contrast(first: str, second: str) -> float:
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color: str) -> float:
    channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_an_unknown_rule_leaves_the_frontier_in_words(quickstart: dashboards.Sweep) -> None:
    assert find_cost("published_gflops:nobody").unit == "GFLOPs"
    assert "No arm" in quickstart.frontier(cost="published_gflops:nobody").layout.annotations[0].text


def test_wide_intervals_are_cut_instead_of_squeezing_the_seeds() -> None:
    row = ablation.Row("a", "a", "nl", 80.0, 30.0, 130.0, (75.0, 85.0), "undecided", 0.0)
    near = ablation.Row("b", "b", "nl", 82.0, 80.0, 84.0, (81.0, 83.0), "undecided", 0.0)
    low, high = ablation.horizontal_range(ablation.AblationInfo(TOP1, (row, near), None))
    assert 68 < low < 70
    assert 90 < high < 92
    wide = ablation.Row("a", "a", "nl", 95.0, 80.0, 110.0, (90.0, 99.5), "undecided", 0.0)
    assert ablation.horizontal_range(ablation.AblationInfo(TOP1, (wide,), None))[1] == 102.0


def test_one_wide_band_does_not_squeeze_the_curves() -> None:
    def curve(mean: float, half: float) -> curves.Curve:
        ends = (mean - half,) * 2, (mean + half,) * 2
        return curves.Curve("a", "nl", "solid", (0, 1), (mean, mean), *ends, shown=True)

    info = curves.CurvesInfo(TOP1, (curve(50.0, 60.0), curve(60.0, 1.0), curve(70.0, 2.0)))
    assert curves.vertical_range(info) == [48.0, 72.0]
    assert curves.vertical_range(curves.CurvesInfo(TOP1, (curve(float("nan"), 1.0),))) is None
