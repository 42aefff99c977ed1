from __future__ import annotations

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


def test_other_sweeps_have_no_such_section(quickstart: dashboards.Sweep) -> None:
    assert "Against the papers" not in render(quickstart)
