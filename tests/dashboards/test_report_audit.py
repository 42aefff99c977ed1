from __future__ import annotations

import json

import dashboards
from dashboards.report import render

ROWS = [
    {
        "row_id": f"r{number}",
        "paper": "rnl",
        "metric": "gflops",
        "model": "<R50>",
        "published": published,
        "reproduced": ours,
        "executed": executed,
        "rule": "thop",
        "verdict": verdict,
        "reason": "a & b",
    }
    for number, (published, ours, executed, verdict) in enumerate(
        [("33.2", 33.1987, 40.5, "close"), ("41.0", 41.0, 35.25, "exact"), ("", None, None, "explained")]
    )
]


def test_the_audit_of_a_table_shows_every_printed_number_beside_ours(quickstart: dashboards.Sweep) -> None:
    page = render(quickstart, audit_rows=ROWS).split('id="plotly"')[0]
    assert "Against the papers" in page
    assert "2 of 2 models change places" in page
    assert '<td class="number">33.2</td>' in page
    assert '<td class="number">33.2</td>\n      <td class="number">33.2</td><td>thop</td>' in page
    assert "&lt;R50&gt;" in page
    assert "a &amp; b" in page
    assert page.count('<td class="number">–</td>') >= 3


def test_accuracies_are_drawn_over_both_costs_and_the_file_stays_small(quickstart: dashboards.Sweep) -> None:
    rows = [{**row, "table": "III", "dataset": "k"} for row in ROWS]
    tops = [{**row, "metric": "top1", "published": str(70 + i), "executed": None} for i, row in enumerate(rows)]
    page = render(quickstart, audit_rows=[*rows, *tops])
    assert 'data-figure="planes-rnl"' in page
    figure = json.loads(page.split('id="figure-planes-rnl">')[1].split("</script>")[0])
    points = [trace for trace in figure["data"] if trace["mode"] == "markers+text"]
    assert [trace["x"] for trace in points] == [[33.2, 41.0], [40.5, 35.25]]  # as printed, as executed
    assert [trace["y"] for trace in points] == [[70.0, 71.0]] * 2
    assert len(page.encode()) < 5_000_000


def test_costs_without_accuracies_have_places_but_no_planes(quickstart: dashboards.Sweep) -> None:
    page = render(quickstart, audit_rows=ROWS)
    assert 'data-figure="places-0"' in page
    assert "planes-rnl" not in page


def test_other_sweeps_have_no_such_section(quickstart: dashboards.Sweep) -> None:
    assert "Against the papers" not in render(quickstart)
