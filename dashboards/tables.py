"""A sweep's table for a paper or a page: Markdown, LaTeX (booktabs), CSV, HTML; the user chooses the columns."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dashboards import frames
from dashboards.analysis.same_data import of_reference
from dashboards.errors import UnknownChoice
from dashboards.metrics import COSTS, RULE_PREFIX, Cost, Metric, find_cost
from dashboards.text import MISSING, PREFIXES, number, p_value, settings_line

FORMATS = ("markdown", "latex", "csv", "html")
DEFAULT_COLUMNS = ("arm", "n", "mean", "difference", "p_holm", "verdict", "executed_macs", "params")
MARKS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
NOTE = (
    "± is half the 95 % t interval over n seeds; differences to {control} are paired by seed, with 95 % intervals; "
    "p is adjusted by Holm over the table: * < 0.05, ** < 0.01, *** < 0.001; best mean{each} in bold."
)
CUT = " Intervals that reach where no value can be, as those of few seeds do, are cut there; beside a mean as [a, b]."
APART = " Arms on other data are compared with the control's like there, or with nothing."
OVER_SPLITS = " A seed's value is its mean over the splits; it counts once it has finished on all of them."


@dataclass(frozen=True)
class Cell:
    """One cell: text without markup, stars, and whether it is the best of its column."""

    text: str
    marks: str = ""
    bold: bool = False


@dataclass(frozen=True)
class TableInfo:
    """A table before it is rendered.

    Attributes:
        titles: one per column, with the unit.
        numeric: which columns are set flush right.
        rows: cells, one row per arm.
        note: how to read it.
        raw: the same rows as plain numbers for CSV: field -> values.
    """

    titles: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str
    raw: Mapping[str, Sequence[object]]


@dataclass(frozen=True)
class _Column:
    title: Callable[[pd.DataFrame, Metric], str]
    cells: Callable[[pd.DataFrame, Metric], list[Cell]]
    raw: tuple[str, ...]
    numeric: bool = True


def info(table: pd.DataFrame, metric: Metric, columns: Sequence[str] = DEFAULT_COLUMNS) -> TableInfo:
    """The cells of `Sweep.table`, in its order; it may hold more costs, `published_gflops:RULE`.

    Raises:
        UnknownChoice: a column that does not exist, with those that do.
    """
    chosen = [_column(name) for name in columns]
    cells = [column.cells(table, metric) for column in chosen]
    fields = dict.fromkeys(field for column in chosen for field in column.raw)
    control = table.loc[table["is_control"], "label"]
    return TableInfo(
        titles=tuple(column.title(table, metric) for column in chosen),
        numeric=tuple(column.numeric for column in chosen),
        rows=tuple(zip(*cells, strict=True)),
        note=_note(table, control.iloc[0] if len(control) else "the control", metric),
        raw={field: _raw(table[field]) for field in fields},
    )


def _column(name: str) -> _Column:
    if name.startswith(RULE_PREFIX):
        return _cost(find_cost(name))
    if name not in COLUMNS:
        raise UnknownChoice("column", name, [*COLUMNS, f"{RULE_PREFIX}RULE"])
    return COLUMNS[name]


def _note(table: pd.DataFrame, control: str, metric: Metric) -> str:
    """How to read the table, and what in it is not a plain result."""
    diverged = int(table["at_chance"].sum())
    chance = f" {diverged} diverged, counted at chance level." if diverged else ""
    stopped = int(table["stopped"].sum())
    early = f" {stopped} stopped early by a search, not compared." if stopped else ""
    apart = table["data"].nunique() > 1
    lead = NOTE.format(control=control, each=" of each data set" if apart else "")
    return lead + (CUT if metric.cuts(table) else "") + (APART if apart else "") + chance + early


def render(info: TableInfo, kind: str) -> str:
    """The table as text in one of `FORMATS`.

    Raises:
        UnknownChoice: another format.
    """
    renderers = {"markdown": _markdown, "latex": _latex, "csv": _csv, "html": _html}
    if kind not in renderers:
        raise UnknownChoice("table format", kind, FORMATS)
    return renderers[kind](info)


def _markdown(info: TableInfo) -> str:
    def cell(each: Cell) -> str:
        text = _escaped(each.text, r"\|*_`<>[]") + _escaped(each.marks, "*")
        return f"**{text}**" if each.bold else text

    lines = [[_escaped(title, r"\|*_`<>[]") for title in info.titles]]
    lines.append(["--:" if numeric else ":--" for numeric in info.numeric])
    lines += [[cell(each) for each in row] for row in info.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{_escaped(info.note, '*')}\n"


def _latex(info: TableInfo) -> str:
    def cell(each: Cell) -> str:
        text = latex(each.text)
        bold = rf"\textbf{{{text}}}" if each.bold else text
        return bold + (f"$^{{{each.marks}}}$" if each.marks else "")

    lines = [
        "% needs \\usepackage{booktabs}",
        rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in info.numeric)}}}",
        r"\toprule",
        " & ".join(map(latex, info.titles)) + r" \\",
        r"\midrule",
        *(" & ".join(map(cell, row)) + r" \\" for row in info.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {latex(line)}" for line in info.note.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def _csv(info: TableInfo) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(info.raw)
    writer.writerows(zip(*info.raw.values(), strict=True))
    return out.getvalue()


def _html(info: TableInfo) -> str:
    def cell(each: Cell, numeric: bool) -> str:
        text = html.escape(each.text) + (f"<sup>{each.marks}</sup>" if each.marks else "")
        side = ' style="text-align:right"' if numeric else ""
        return f"<td{side}>{f'<b>{text}</b>' if each.bold else text}</td>"

    head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in info.titles)
    body = "\n".join("<tr>" + "".join(map(cell, row, info.numeric)) + "</tr>" for row in info.rows)
    inside = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f"<table>\n{inside}\n</table>\n<p>{html.escape(info.note)}</p>\n"


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "–": "--",
    "∞": r"$\infty$",
    **{each: f"\\{each}" for each in "&%$#_{}"},
}


def latex(text: str) -> str:
    """Plain text as LaTeX."""
    return "".join(_LATEX.get(each, each) for each in text)


def _escaped(text: str, special: str) -> str:
    """Plain text for Markdown; line breaks would end the row."""
    return "".join(f"\\{each}" if each in special else each for each in " ".join(text.split()))


def _raw(values: pd.Series) -> list[object]:
    if values.name == "settings":
        return [settings_line(value) for value in values]
    return ["" if isinstance(value, float) and math.isnan(value) else value for value in values]


def marks(p_holm: float) -> str:
    """Stars of an adjusted p."""
    return next((stars for limit, stars in MARKS if p_holm < limit), "")


def _mean(table: pd.DataFrame, metric: Metric) -> list[Cell]:
    best = table.groupby("data")["mean"].transform("max" if metric.higher_is_better else "min")
    texts = [
        f"{metric.number(mean)} {metric.spread(mean, low, high)}".rstrip()
        for mean, low, high in zip(table["mean"], table["low"], table["high"], strict=True)
    ]
    return [Cell(text, bold=bold) for text, bold in zip(texts, (table["mean"] == best).tolist(), strict=True)]


def _difference(table: pd.DataFrame, metric: Metric) -> list[Cell]:
    found = []
    for row in table.to_dict("records"):
        known = math.isfinite(row["diff_low"])
        span = f" {metric.interval(row['diff_low'], row['diff_high'], sign=True)}" if known else ""
        found.append(Cell(metric.signed(row["difference"]) + span, marks(row["p_holm"])))
    return found


def _cost(cost: Cost) -> _Column:
    def scale(table: pd.DataFrame) -> tuple[float, str]:
        """How many units the column counts in, and what they are called."""
        most = float(table[cost.name].max())
        readable, size = cost.readable(most)
        if not cost.prefixed:
            return size, readable.unit
        return next(((step, f"{prefix}{cost.unit}") for step, prefix in PREFIXES if most >= step), (1.0, cost.unit))

    def title(table: pd.DataFrame, _: Metric) -> str:
        unit = scale(table)[1]
        if unit in cost.title:
            return cost.title
        return f"{cost.title.removesuffix(' per clip')} ({unit})" if unit else cost.title

    def cells(table: pd.DataFrame, _: Metric) -> list[Cell]:
        shown = table[cost.name] / scale(table)[0]
        most = shown.abs().max()
        digits = 2 - math.floor(math.log10(most)) if 0 < most < 1 else 2
        return [Cell(number(value, digits)) for value in shown]

    return _Column(title, cells, (cost.name,))


def _interval(low: str, high: str) -> _Column:
    def cells(table: pd.DataFrame, metric: Metric) -> list[Cell]:
        return [Cell(metric.interval(*ends)) for ends in zip(table[low], table[high], strict=True)]

    title = "95 % bootstrap" if low.startswith("bootstrap") else "95 % interval"
    return _Column(lambda _, metric: metric.heading(title), cells, (low, high))


def _plain(title: str, field: str, show: Callable[[object], str], *, numeric: bool = True) -> _Column:
    return _Column(lambda *_: title, lambda table, _: [Cell(show(value)) for value in table[field]], (field,), numeric)


def _ratio(table: pd.DataFrame, _: Metric) -> list[Cell]:
    pairs = zip(table["executed_macs"], of_reference(table, "executed_macs"), strict=True)
    return [Cell(f"{number(value / reference, 2)} ×" if reference > 0 else MISSING) for value, reference in pairs]


def _decimals(digits: int) -> Callable[[object], str]:
    return lambda value: number(float(value), digits)  # type: ignore[arg-type]


def _failed(table: pd.DataFrame, _: Metric) -> list[Cell]:
    kinds = {"at_chance": "diverged", "missing": "failed", "stopped": "stopped early"}
    rows = frames.records(table[list(kinds)])
    return [Cell("; ".join(f"{row[name]} {said}" for name, said in kinds.items() if row[name]) or "0") for row in rows]


COLUMNS: Mapping[str, _Column] = {
    "arm": _plain("Arm", "label", str, numeric=False),
    "block": _plain("Block", "block", str, numeric=False),
    "data": _plain("Data", "data", str, numeric=False),
    "settings": _plain("Settings", "settings", lambda value: settings_line(value), numeric=False),  # type: ignore[arg-type]
    "n": _plain("n", "n", str),
    "mean": _Column(lambda _, metric: metric.axis, _mean, ("mean", "low", "high")),
    "sd": _plain("sd", "sd", _decimals(2)),
    "interval": _interval("low", "high"),
    "bootstrap": _interval("bootstrap_low", "bootstrap_high"),
    "difference": _Column(
        lambda _, metric: metric.heading("Difference", difference=True),
        _difference,
        ("difference", "diff_low", "diff_high"),
    ),
    "p": _plain("p", "p", lambda value: p_value(float(value))),  # type: ignore[arg-type]
    "p_holm": _plain("p (Holm)", "p_holm", lambda value: p_value(float(value))),  # type: ignore[arg-type]
    "p_bh": _plain("p (BH)", "p_bh", lambda value: p_value(float(value))),  # type: ignore[arg-type]
    "verdict": _plain("Verdict", "verdict", str, numeric=False),
    "reason": _plain("Why", "reason", str, numeric=False),
    **{name: _cost(cost) for name, cost in COSTS.items()},
    "macs_ratio": _Column(lambda *_: "MACs / control", _ratio, ("executed_macs",)),
    "probability": _plain("P(on frontier)", "probability", _decimals(2)),
    "standing": _plain("Frontier", "standing", str, numeric=False),
    "failures": _Column(lambda *_: "Failures", _failed, ("at_chance", "missing", "stopped")),
}
