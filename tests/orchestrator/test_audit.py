"""The audit: every published cell judged, verdicts that cannot flatter, formulas proved, hostile text escaped."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import sympy

from orchestrator.audit import Row, audit, rank_changes, summary, symbolic, to_html, to_json, to_markdown
from orchestrator.audit.declared import PAPERS, declaration
from orchestrator.audit.published import ACCURACIES, published_cells
from orchestrator.audit.verdicts import agrees, judge


@pytest.fixture(scope="module")
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The whole audit; counts are kept in pytest's own cache folder between runs, never in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LONGRANGE_CACHE", str(request.config.cache.mkdir("longrange")))  # type: ignore[union-attr]
        return audit()


@pytest.fixture(scope="module")
def by_key(rows: list[Row]) -> dict[str, Row]:
    return {f"{row.row_id}/{row.metric}": row for row in rows}


# --- verdicts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("published", "reproduced", "decimals", "increments", "expected"),
    [
        (49.38, 49.3811, 2, (16.49, 16.4923), "exact"),
        (5.44, 5.4373, 2, None, "exact"),
        (4.14, 4.1458, 2, None, "close"),
        (100.0, 100.4, 1, (1.0, 1.4), None),  # close on the total only: the increment decides
        (100.0, 100.4, 1, (99.0, 99.4), "close"),
        (100.0, 100.6, 1, None, None),
        (0.00052, 0.000520, 6, None, "exact"),
    ],
)
def test_agreement(
    published: float, reproduced: float, decimals: int, increments: tuple[float, float] | None, expected: str | None
) -> None:
    assert agrees(published, reproduced, decimals, increments) == expected


def test_a_fitted_setting_is_never_exact_or_close() -> None:
    assert judge("exact", fitted=True) == judge("close", fitted=True) == "explained"
    assert judge(None, fitted=True) == "not reproduced"
    assert judge("exact", explained=True) == "exact"
    assert judge(None, explained=True) == "explained"


# --- the published figures -------------------------------------------------------------------------------------------


def test_all_published_cells_are_there_once() -> None:
    cells = published_cells()
    assert len(cells) == 479
    assert len({cell.key for cell in cells}) == 479
    assert Counter(cell.metric in ACCURACIES for cell in cells) == {True: 234, False: 245}


def test_precision_is_that_of_the_column() -> None:
    decimals = {cell.key: cell.decimals for cell in published_cells()}
    assert decimals["BAT-T2-full_resolution/gflops"] == 2  # the CSV says 5.5, the table 5.50
    assert decimals["PNL-T3-Self-attention_mechanism/params_m"] == 3


@pytest.mark.parametrize("paper", PAPERS)
def test_declarations_name_published_rows_and_declared_models(paper: str) -> None:
    declared = declaration(paper)
    cells = [cell for cell in published_cells() if cell.paper == paper]
    known = {cell.row_id for cell in cells} | {cell.key for cell in cells}
    assert set(declared.rows) <= known
    assert {claim.over for claim in declared.rows.values()} <= known | {""}
    used = {name for claim in declared.rows.values() for name in (claim.model, claim.minus, claim.stated)}
    parts = ("add", "plus", "less")
    added = {name for model in declared.models.values() for part in parts for name in getattr(model, part, ())}
    assert set(declared.models) <= used | added


# --- the rows --------------------------------------------------------------------------------------------------------


def test_every_cell_has_a_verdict_and_a_reason(rows: list[Row]) -> None:
    assert [(row.row_id, row.metric) for row in rows] == [(cell.row_id, cell.metric) for cell in published_cells()]
    assert all(row.reason and "\n" not in row.reason for row in rows)
    assert all((row.verdict == "accuracy: needs training") == (row.metric in ACCURACIES) for row in rows)


def test_printed_costs_that_come_out_exactly(by_key: dict[str, Row]) -> None:
    for key, ours in {
        "rnl_T3_k400_5nl/gflops": 49.3811,
        "rnl_T3_k400_baseline/params_m": 24.3276,
        "BAT-T4-k16/params_m": 31.0881,
        "PNL-T3-MFNet_baseline/gflops": 11.1764,
        "hgnl_T1_all_hgnl_shared_m8/params_m": 0.017552,
    }.items():
        assert by_key[key].verdict == "exact"
        assert by_key[key].reproduced == pytest.approx(ours, rel=1e-5)


def test_fitted_and_unexplained_cells_are_not_called_exact(by_key: dict[str, Row]) -> None:
    assert by_key["rnl_T3_k400_5rnl/params_m"].verdict == "explained"  # the mask counted as a parameter
    assert by_key["BAT-T7-baseline/gflops"].verdict == "explained"  # the stem's pool
    assert by_key["BAT-T8-I3D/params_m"].verdict == "explained"  # a slip of the pen
    assert by_key["PNL-T6-R-50_+_CGNL/gflops"].verdict == "explained"  # another table's frames, another stride
    assert by_key["PNL-T6-R-50_+_PNL(x1)/gflops"].verdict == "not reproduced"
    assert by_key["BAT-T6-SE-ResNet-50_+_BAT/params_m"].verdict == "not reproduced"
    assert by_key["BAT-T6-SE-ResNet-152/params_m"].verdict == "not reproduced"
    assert by_key["BAT-T8-GloRe/gflops"].verdict == "not reproduced"
    assert by_key["BAT-T8-GloRe/gflops"].reproduced is None


def test_a_lower_bound_is_explained_by_a_higher_count(by_key: dict[str, Row]) -> None:
    row = by_key["PNL-T5-I3D_(TS)/gflops"]
    assert (row.verdict, row.published) == ("explained", "107.9")
    assert row.executed == pytest.approx(213.489, rel=1e-5)


def test_cited_networks_that_come_out_with_a_named_reading(by_key: dict[str, Row]) -> None:
    for key, ours in {
        "hgnl_text_mfnet2d/params_m": 5.75324,
        "hgnl_text_i3d/params_m": 12.063696,
        "PNL-T5-I3D_(RGB)/gflops": 107.894,
        "PNL-T5-S3D/params_m": 8.77123,
        "BAT-T6-SE-ResNet-50/gflops": 4.15489,
        "BAT-T6-SE-ResNet-152/gflops": 11.6521,
        "BAT-T6-SE-ResNet-50_+_BAT/gflops": 5.45636,
        "BAT-T6-Oct-ResNet-50/gflops": 2.36714,
        "BAT-T6-AttentionNeXt-56/gflops": 6.27084,
    }.items():
        row = by_key[key]
        assert row.reproduced == pytest.approx(ours, rel=1e-5)
        assert f"{row.reproduced:.{len(row.published.partition('.')[2])}f}" == row.published
        assert row.verdict == "explained"  # the source states none of these settings
        assert row.reason.startswith("with ")


def test_what_a_reading_needs_stands_beside_the_value_without_it(by_key: dict[str, Row]) -> None:
    s3d = by_key["PNL-T5-S3D/gflops"]
    assert s3d.verdict == "explained"
    assert s3d.reproduced == pytest.approx(43.42754, rel=1e-6)
    assert s3d.reason.startswith("with ")
    assert "66.38 G" in s3d.reason
    for key, without in {
        "BAT-T6-SE-ResNet-50/gflops": "4.14 G",
        "BAT-T6-SE-ResNet-152/gflops": "11.61 G",
        "BAT-T6-SE-ResNet-50_+_BAT/gflops": "5.44 G",
    }.items():
        assert by_key[key].reason.endswith(f"without these charges {without}")


def test_a_cited_slip_names_the_number_of_the_authors_release(by_key: dict[str, Row]) -> None:
    row = by_key["hgnl_text_mbv2_1p4/params_m"]
    assert (row.verdict, row.published) == ("explained", "6.9")
    assert row.reproduced == pytest.approx(6.06, abs=0.005)
    assert row.executed == pytest.approx(0.582, abs=0.0005)  # billions; the release prints both


@pytest.mark.parametrize(("depths", "key"), [((3, 4, 6, 3), "SE-ResNet-50"), ((3, 8, 36, 3), "SE-ResNet-152")])
def test_what_is_charged_for_gates_is_their_pooling_and_their_scaling_with_the_sum(
    depths: tuple[int, ...], key: str
) -> None:
    units = [(256 << stage, (56 >> stage) ** 2, count) for stage, count in enumerate(depths)]
    pooling = sum(count * channels * (positions + 1) for channels, positions, count in units)
    scaling = sum(count * channels * positions for channels, positions, count in units)
    claim = declaration("bat").claim(f"BAT-T6-{key}", "gflops")
    assert claim is not None
    assert claim.functional == pooling + 2 * scaling
    assert claim.fitted


def test_the_products_of_an_attention_are_charged_once_where_a_row_needs_them(by_key: dict[str, Row]) -> None:
    table5, table6 = by_key["PNL-T5-Res50-NL/gflops"], by_key["PNL-T6-R-50_+_NL/gflops"]
    assert table5.rule == table6.rule == "thop-2004+products"
    assert table5.reproduced == pytest.approx(19.67, rel=0.001)
    assert "20.15 G" in table5.reason  # with every position a key
    assert isinstance(table5.reproduced, float)
    assert isinstance(table6.reproduced, float)
    saved = 0.9248  # by striding one convolution earlier, see test_audit_cited.py
    assert table5.reproduced - table6.reproduced == pytest.approx(saved, abs=0.01)


def test_what_a_block_adds_is_marked_as_such(rows: list[Row]) -> None:
    adds = {row.row_id for row in rows if row.increment}
    assert {"BAT-T5-ResNet-50-NL", "rnl_T2c_avg", "PNL-text-NL-minus-PNL-flops"} <= adds
    assert not {"BAT-T5-ResNet-50-baseline", "rnl_T3_k400_5nl"} & adds


def test_what_is_not_among_ours_names_its_source(by_key: dict[str, Row]) -> None:
    assert "reference [8]" in by_key["BAT-T8-GloRe/gflops"].reason


def test_attention_is_in_the_executed_macs_only(by_key: dict[str, Row]) -> None:
    row = by_key["rnl_T3_k400_5nl/gflops"]
    assert row.executed == pytest.approx(96.9803, rel=1e-5)
    assert row.rule == "thop-2001"


def test_the_reason_gives_the_value_with_the_settings_as_stated(by_key: dict[str, Row]) -> None:
    assert "23.86" in by_key["rnl_T3_ssv1_baseline/params_m"].reason
    assert "gives 0.30 M" in by_key["rnl_T2c_cwconv/params_m"].reason


def test_output_sizes(by_key: dict[str, Row]) -> None:
    assert by_key["rnl_T1_conv1/output_size"].reproduced == "8x112x112"
    assert by_key["rnl_T1_res5/output_size"].verdict == "exact"
    assert by_key["rnl_T1_res2/output_size"].reproduced == "8x56x56"  # printed nowhere


def test_summary_counts_own_and_cited_costs_apart(rows: list[Row]) -> None:
    found = summary(rows)
    assert sum(found.verdicts.values()) == found.cells == 479
    assert found.own_cost_cells + found.cited_cost_cells == found.cost_cells == 220
    assert found.own_accounted_percent > 96
    assert found.accounted_percent >= 95
    assert summary([]).accounted_percent == 100.0


# --- formulas --------------------------------------------------------------------------------------------------------


def test_every_formula_is_proved_or_its_slip_named(rows: list[Row]) -> None:
    formulas = [row for row in rows if row.metric in ("formula", "madds_formula") and row.published]
    assert Counter(row.verdict for row in formulas) == {"exact": 17, "explained": 13}
    assert all(row.verdict == "exact" for row in formulas if row.row_id.startswith("hgnl_T2"))


def test_a_wrong_formula_is_not_proved() -> None:
    assert symbolic.check("hgnl", "hgnl_T2_wqf_nl_m2", "m^2*n + n").verdict == "not reproduced"  # type: ignore[union-attr]
    assert symbolic.check("hgnl", "hgnl_T2_wqf_hgnl_m8", "m^2*n/64 + g1 - 16").verdict == "not reproduced"  # type: ignore[union-attr]
    assert symbolic.check("bat", "BAT-T1-NL-flops", "2*C^2*H*W + C*H^2*W").verdict == "not reproduced"  # type: ignore[union-attr]


def test_polynomials_come_out_of_integer_points_and_their_degree_is_checked() -> None:
    a, b = sympy.symbols("a b")
    axes = [symbolic.Axis("a", 2, 4), symbolic.Axis("b", 1)]
    assert symbolic.polynomial(lambda at: 3 * at["a"] ** 2 * at["b"] - 7, axes) == 3 * a**2 * b - 7
    with pytest.raises(ValueError, match="no polynomial"):
        symbolic.polynomial(lambda at: at["a"] ** 3, axes)


# --- ranks and rendering ---------------------------------------------------------------------------------------------


def row_of(model: str, published: str, executed: float, **changes: object) -> Row:
    fields = {
        "row_id": model,
        "metric": "gflops",
        "paper": "x",
        "table": "1",
        "model": model,
        "dataset": "d",
        "published": published,
    }
    given = {**fields, "reproduced": 1.0, "executed": executed, "rule": "r", "cited": False, "verdict": "exact"}
    return Row.model_validate({**given, "reason": "equal", **changes})


def test_ranks_by_printed_and_by_executed_cost() -> None:
    table = [row_of("plain", "1.0", 1.0), row_of("conv", "3.0", 3.0), row_of("attention", "2.0", 9.0)]
    ranked = {change.model: change for change in rank_changes([*table, row_of("alone", "1", 1.0, table="2")])}
    assert set(ranked) == {"plain", "conv", "attention"}
    assert (ranked["attention"].published_rank, ranked["attention"].executed_rank) == (2, 3)
    assert [name for name, change in ranked.items() if change.changed] == ["conv", "attention"]


def test_what_blocks_add_is_ranked_apart_from_networks() -> None:
    table = [row_of("plain", "4.0", 4.0), row_of("wide", "5.0", 5.0)]
    adds = [row_of("nl", "2.0", 2.0, increment=True), row_of("bat", "1.0", 3.0, increment=True)]
    ranked = {change.model: change for change in rank_changes([*table, *adds])}
    assert [ranked[name].published_rank for name in ("plain", "wide", "bat", "nl")] == [1, 2, 1, 2]
    assert [name for name, change in ranked.items() if change.changed] == ["nl", "bat"]
    assert ranked["nl"].increment


def test_equal_costs_share_a_rank() -> None:
    ranked = rank_changes([row_of("a", "1.0", 1.01), row_of("b", "1.0", 1.02), row_of("c", "2.0", 2.0)])
    assert [(change.published_rank, change.executed_rank) for change in ranked] == [(1, 1), (1, 1), (3, 3)]


def test_counting_attention_changes_ranks(rows: list[Row]) -> None:
    changed = [change for change in rank_changes(rows) if change.changed]
    assert changed
    assert all(change.published_gflops > 0 for change in changed)


def test_rendered_text_is_escaped() -> None:
    hostile = row_of("<script>alert(1)</script>|x", "1.0", 1.0, reason="a | b & <c>")
    page, text = to_html([hostile]), to_markdown([hostile])
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a | b &amp; &lt;c&gt;" in page
    assert "a \\| b" in text


def test_the_page_loads_nothing_from_elsewhere(rows: list[Row]) -> None:
    page = to_html(rows)
    assert page.count("<tr class=") == 479
    assert not any(word in page for word in ("http://", "https://", "src=", "@import", "url("))


def test_json_holds_rows_and_summary(rows: list[Row]) -> None:
    found = json.loads(to_json(rows))
    assert len(found["rows"]) == found["summary"]["cells"] == 479
    keys = {"row_id", "metric", "published", "reproduced", "executed", "rule", "verdict", "reason"}
    assert keys <= set(found["rows"][0])
