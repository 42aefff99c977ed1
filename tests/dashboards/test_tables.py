from __future__ import annotations

import csv
import io
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import dashboards
from dashboards import tables
from dashboards.errors import UnknownChoice
from dashboards.metrics import TOP1, find_metric
from dashboards.text import interval

HOSTILE = r"a|b & 50%_x #1 {y} <b> $z$ \n ~^ *s* `c`"


@pytest.fixture
def info(quickstart: dashboards.Sweep) -> tables.TableInfo:
    table = quickstart.table()
    table.loc[table.index[1], "label"] = HOSTILE
    return tables.info(table, TOP1, tuple(tables.COLUMNS))


def test_every_column_has_a_cell_per_arm(info: tables.TableInfo) -> None:
    assert len(info.titles) == len(tables.COLUMNS)
    assert {len(row) for row in info.rows} == {len(tables.COLUMNS)}
    assert len(info.rows) == 21


def test_the_best_mean_alone_is_bold_and_errors_are_best_low(quickstart: dashboards.Sweep) -> None:
    for metric, name in (("top1_percent", "nl@res3"), ("averaged_error_percent", "nl@res3")):
        rows = tables.info(quickstart.table(metric), find_metric(metric), ("arm", "mean")).rows
        assert [row[0].text for row in rows if row[1].bold] == [name]


def test_numbers_carry_their_interval_and_stars(quickstart: dashboards.Sweep) -> None:
    row = quickstart.table().iloc[2]
    cells = tables.info(quickstart.table(), TOP1, ("mean", "difference", "p_holm")).rows[2]
    assert cells[0].text == f"{row['mean']:.1f} ± {row['high'] - row['mean']:.1f}"
    assert cells[1].text == f"+{row['difference']:.1f} [+{row['diff_low']:.1f}, +{row['diff_high']:.1f}]"
    assert cells[1].marks == "***"
    assert cells[2].text == "< 0.001"


def test_markdown_keeps_its_columns_whatever_the_labels(info: tables.TableInfo) -> None:
    lines = tables.render(info, "markdown").split("\n\n")[0].splitlines()
    assert len(lines) == 2 + 21
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(tables.COLUMNS) + 1}


def test_html_shows_labels_as_they_are(info: tables.TableInfo) -> None:
    class Texts(HTMLParser):
        seen = ""

        def handle_data(self, data: str) -> None:
            self.seen += data

    parser = Texts()
    parser.feed(tables.render(info, "html"))
    assert HOSTILE in parser.seen


def test_csv_holds_plain_numbers(info: tables.TableInfo, quickstart: dashboards.Sweep) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.render(info, "csv"))))
    assert rows[1]["label"] == HOSTILE
    np.testing.assert_allclose([float(row["mean"]) for row in rows], quickstart.table()["mean"])
    assert float(rows[0]["executed_macs"]) == 1_620_000
    assert rows[0]["diff_low"] == ""  # the control has no difference


def test_latex_escapes_every_special_character() -> None:
    assert tables.latex("50 % & a_b #1 {x} $ ± −") == r"50 \% \& a\_b \#1 \{x\} \$ $\pm$ $-$"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_booktabs(info: tables.TableInfo, tmp_path: Path) -> None:
    body = tables.render(info, "latex")
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}" + body + "\\end{document}"
    (tmp_path / "table.tex").write_text(page, encoding="utf-8")
    run = subprocess.run(
        ["pdflatex", "-interaction=batchmode", "-halt-on-error", "table.tex"], cwd=tmp_path, check=False
    )
    assert run.returncode == 0, (tmp_path / "table.log").read_text(errors="replace")[-2000:]


def test_latex_has_booktabs_rules_and_no_bare_specials(info: tables.TableInfo) -> None:
    text = tables.render(info, "latex")
    assert [rule for rule in ("\\toprule", "\\midrule", "\\bottomrule") if rule not in text] == []
    rows = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert {row.replace("\\&", "").count("&") for row in rows} == {len(tables.COLUMNS) - 1}
    assert text.isascii()


def test_unknown_columns_and_formats_list_the_known_ones(quickstart: dashboards.Sweep) -> None:
    with pytest.raises(UnknownChoice, match="executed_macs"):
        quickstart.text_table(columns=["macs"])
    with pytest.raises(UnknownChoice, match="markdown, latex, csv, html"):
        quickstart.text_table("word")


def test_published_counts_are_columns_by_their_rule(quickstart: dashboards.Sweep) -> None:
    said = quickstart.text_table("csv", ["arm", "published_gflops:rnl"]).splitlines()
    assert said[:2] == ["label,published_gflops:rnl", "none,0.00162"]
    assert "GFLOPs, counting rule rnl" in quickstart.text_table(columns=["arm", "published_gflops:rnl"])
    with pytest.raises(UnknownChoice, match="'published_gflops:pnl'; use one of: published_gflops:rnl"):
        quickstart.text_table(columns=["published_gflops:pnl"])


def test_intervals_and_long_times_have_columns_that_read(quickstart: dashboards.Sweep) -> None:
    table = quickstart.table().assign(train_seconds=36_000.0)
    found = tables.info(table, quickstart.metric(), ["interval", "bootstrap", "train_seconds"])
    assert found.titles == ("95 % interval (%)", "95 % bootstrap (%)", "Training time (h)")
    assert found.rows[0][2].text == "10.00"
    assert found.rows[0][0].text == interval(table["low"].iloc[0], table["high"].iloc[0])
    assert set(found.raw) == {"low", "high", "bootstrap_low", "bootstrap_high", "train_seconds"}


def test_the_frontiers_columns_follow_the_cost(quickstart: dashboards.Sweep) -> None:
    columns = ["arm", "standing"]
    assert quickstart.text_table("csv", columns) != quickstart.text_table("csv", columns, cost="params")
