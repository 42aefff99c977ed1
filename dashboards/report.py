"""The report: one HTML file that holds everything, opens without a network, and starts with the answer."""

from __future__ import annotations

import base64
import gzip
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import yaml
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from dashboards import frames, metrics, published, sections, tables, text
from dashboards.figures import strip
from dashboards.figures.theme import template
from dashboards.numbers import DEFAULT_COST, DEFAULT_METRIC
from dashboards.sweep import Sweep
from orchestrator.errors import LongrangeError

AuditRows = Sequence[Mapping[str, Any]]


def write(
    sweep: Sweep,
    path: str | os.PathLike[str],
    *,
    metric: str = DEFAULT_METRIC,
    cost: str = DEFAULT_COST,
    audit_rows: AuditRows = (),
) -> Path:
    """Write the report of `sweep` to `path`, whole or not at all; returns the path.

    Args:
        sweep: what to report.
        path: the HTML file; missing folders are made.
        metric: what arms are judged by.
        cost: the frontier's other axis.
        audit_rows: published against reproduced figures (`analysis.audit`), for sweeps that fill a paper's table.
    """
    return write_html(path, render(sweep, metric=metric, cost=cost, audit_rows=audit_rows))


def write_html(path: str | os.PathLike[str], content: str) -> Path:
    """Write a page whole or not at all; missing folders are made.

    Raises:
        LongrangeError: the file cannot be written.
    """
    target = Path(path)
    try:
        _replace(target, content)
    except OSError as error:
        raise LongrangeError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def _replace(target: Path, content: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        os.chmod(aside, 0o644)
        os.replace(aside, target)
    except BaseException:
        os.unlink(aside)
        raise


def render(sweep: Sweep, *, metric: str = DEFAULT_METRIC, cost: str = DEFAULT_COST, audit_rows: AuditRows = ()) -> str:
    """The report as HTML text."""
    figures: dict[str, go.Figure] = {}
    table, answer = sweep.table(metric, cost), sweep.answer(metric)
    found = sweep.metric(metric)
    strips = sections.strips(table, sweep.scores(metric).values)
    context: dict[str, Any] = {
        "sweep": sweep,
        "metric": found,
        "may_be_best": sections.MAY_BE_BEST,
        "answer": answer,
        "progress": sections.progress(sweep),
        "stopped": sections.stopped(sweep),
        "only": sections.only(sweep),
        "data_sets": sections.data_sets(sweep),
        "notes": sections.notes(sweep),
        "tiles": sections.tiles(table, answer, found, sweep),
        "rows": sections.rows(table, strips, answer, found),
        "scale": _ends(strips, found),
        "over_splits": _over_splits(sweep, found),
        "cut": tables.CUT if found.cuts(table) else "",
        "clips": sections.clips(sweep),
        "families": sections.families(sweep, metric, figures),
        "audit": published.section(audit_rows, figures),
        "failures": sections.failures(sweep),
        "seconds": sections.seconds(sweep),
        "rejections": frames.records(sweep.rejections),
        "environments": sections.environments(sweep.environments),
        "definition": yaml.safe_dump(sections.definition(sweep), sort_keys=False, allow_unicode=True),
        "written": datetime.fromtimestamp(sweep.record.updated_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    if table["n"].any():
        figures["frontier"] = sweep.frontier(metric, cost)
        if found.name in sweep.reader.epoch_names(sweep.record.id):
            figures["curves"] = sections.curves(sweep, metric, table, answer)
        context["zoom"] = sections.zoom(sweep, metric, cost)
    if sweep.arms["profile"].notna().any():
        figures["stages"] = sweep.stages()
    return fill("report.html", figures, **context)


def _ends(strips: dict[str, strip.StripInfo], metric: metrics.Metric) -> list[str]:
    return [metric.number(end) for end in strip.bounds(list(strips.values()))]


def _over_splits(sweep: Sweep, metric: metrics.Metric) -> dict[str, Any]:
    """The section of the means over splits; empty where there are none."""
    found = sections.over_splits(sweep, metric.name)
    if found is None:
        return {}
    table, strips = found
    rows = sections.rows(table, strips, sections.NOBODY, metric)
    return {"lead": sections.OVER_SPLITS, "rows": rows, "scale": _ends(strips, metric)}


def fill(page: str, figures: dict[str, go.Figure], **context: Any) -> str:
    """A page of `templates/` as text that needs nothing else: with its figures, style, script and Plotly."""
    return _environment().get_template(page).render(**context, figures=_packed(figures), **_assets())


def _packed(figures: dict[str, go.Figure]) -> dict[str, Markup]:
    """Figures as JSON that cannot end its script element; templates are stored once, beside them."""
    packed = {}
    for name, figure in figures.items():
        figure.update_layout(template=None)
        packed[name] = _script_json(figure.to_json())
    return packed


def _script_json(content: str) -> Markup:
    return Markup(content.replace("<", "\\u003c"))


@cache
def _assets() -> dict[str, Any]:
    """Style, script, both themes, and Plotly: 4.8 MB as it comes, 2 MB compressed; browsers unpack it themselves."""
    folder = files("dashboards") / "templates"
    themes = {name: go.Figure(layout={"template": template(name)}).to_json() for name in ("light", "dark")}
    return {
        "css": Markup((folder / "report.css").read_text(encoding="utf-8")),
        "js": Markup((folder / "report.js").read_text(encoding="utf-8")),
        "plotly": base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode(),
        "templates": {name: _script_json(content) for name, content in themes.items()},
    }


def _environment() -> Environment:
    found = Environment(loader=PackageLoader("dashboards"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    found.filters["unbroken"] = text.unbroken
    return found
