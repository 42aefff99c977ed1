"""The audit as Markdown, as one HTML page that opens offline, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape

from orchestrator.audit.rows import Row, by_paper, summary

TITLES = {"hgnl": "HG-NL", "rnl": "RNL", "bat": "BAT", "pnl": "PNL"}
HEADERS = ("table", "model", "metric", "published", "reproduced", "executed GMACs", "rule", "verdict", "reason")

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1b1b1b; }
table { border-collapse: collapse; width: 100%; font-size: 13px; margin-bottom: 2rem; }
th, td { text-align: left; padding: .25rem .5rem; border-bottom: 1px solid #ddd; vertical-align: top; }
th { position: sticky; top: 0; background: #fff; }
.exact { background: #e2f2e4; } .close { background: #eef5df; } .explained { background: #e6eefb; }
.not { background: #fbe3e0; } .accuracy { color: #777; }
"""


def to_json(rows: Sequence[Row]) -> str:
    """`{"rows": [...], "summary": {...}}`."""
    return json.dumps({"rows": [row.to_json() for row in rows], "summary": summary(rows).to_json()}, indent=1)


def to_markdown(rows: Sequence[Row]) -> str:
    """A summary and one table per paper; pipes in cells are escaped."""
    parts = ["# Published figures against ours", "", *(f"- {line}" for line in _summary_lines(rows))]
    for paper, own in by_paper(rows).items():
        parts += ["", f"## {TITLES.get(paper, paper)}", "", _line(HEADERS), _line(["---"] * len(HEADERS))]
        parts += [_line([cell.replace("|", "\\|") for cell in _cells(row)]) for row in own]
    return "\n".join(parts) + "\n"


def to_html(rows: Sequence[Row]) -> str:
    """One self-contained page: no script, nothing loaded from elsewhere, all text escaped."""
    head = f"<meta charset='utf-8'><title>Published figures against ours</title><style>{STYLE}</style>"
    items = "".join(f"<li>{escape(line)}</li>" for line in _summary_lines(rows))
    parts = [f"<h1>Published figures against ours</h1><ul>{items}</ul>"]
    for paper, own in by_paper(rows).items():
        header = "".join(f"<th>{escape(name)}</th>" for name in HEADERS)
        body = "".join(_html_row(row) for row in own)
        table = f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"
        parts.append(f"<h2>{escape(TITLES.get(paper, paper))}</h2>{table}")
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _html_row(row: Row) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row))
    kind = row.verdict.partition(" ")[0].rstrip(":")
    return f"<tr class='{escape(kind)}'>{cells}</tr>"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> list[str]:
    reproduced = "" if row.reproduced is None else _number(row.reproduced)
    executed = "" if row.executed is None else _number(row.executed)
    name = f"{row.model} (cited)" if row.cited else row.model
    return [row.table, name, row.metric, row.published or "-", reproduced, executed, row.rule, row.verdict, row.reason]


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def _summary_lines(rows: Sequence[Row]) -> list[str]:
    found = summary(rows)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in found.verdicts.items())
    lines = [
        f"{found.cells} cells, {found.accuracy_cells} of them accuracies: {verdicts}",
        f"{found.own_cost_cells} costs that the papers counted themselves: {found.own_accounted_percent} % exact, "
        "close or explained",
    ]
    if found.cited_cost_cells:
        lines.append(
            f"{found.cited_cost_cells} costs that they cite from others: {found.cited_accounted_percent} %; the others "
            "are of networks that are not among ours, or whose published layers count otherwise"
        )
    return [*lines, "executed GMACs: every multiply-accumulate that runs, attention included (1 MAC = 2 FLOPs)"]
