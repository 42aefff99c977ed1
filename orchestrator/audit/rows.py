"""The audit: every printed cell beside what we get under that paper's rule, what really runs, and a verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import floor
from typing import NamedTuple

from orchestrator.audit import symbolic
from orchestrator.audit.declared import Claim, Declaration, declaration
from orchestrator.audit.models import GIGA, Count, Declared, count, map_sizes
from orchestrator.audit.published import ACCURACIES, COSTS, Cell, published_cells
from orchestrator.audit.verdicts import Verdict, agrees, judge
from workloads.frozen import Frozen

NOT_BUILT = "copied from the paper's reference {}; that network is not among ours"
DASH = "the paper prints no value here"


class Row(Frozen):
    """One audited cell.

    Attributes:
        row_id: unique together with `metric`.
        metric: see `Cell`.
        paper: `hgnl`, `rnl`, `pnl`, `bat`.
        table: where it is printed.
        model: as the paper calls it.
        dataset: of the row's accuracy.
        published: as printed; empty for a dash.
        reproduced: ours, in the printed unit (M, G) and under `rule`; an expression for formulas, `TxHxW` for sizes;
            None where nothing of ours corresponds.
        executed: multiply-accumulates that really run, in billions; of the increment where the cell prints one.
        rule: the published rule that `reproduced` follows.
        cited: the paper copied this number from another one.
        increment: the cell prints what a block adds to its network, and `reproduced` and `executed` are that too.
        verdict: see `orchestrator.audit.verdicts`.
        reason: one line.
    """

    row_id: str
    metric: str
    paper: str
    table: str
    model: str
    dataset: str
    published: str
    reproduced: float | str | None
    executed: float | None
    rule: str
    cited: bool
    increment: bool = False
    verdict: Verdict
    reason: str


class Summary(Frozen):
    """How the audit went.

    A paper answers for the cost cells it counted itself. Those it copied from other papers are listed and judged like
    all others where we have the network, and are `not reproduced` where we have not; their share is given apart.

    Attributes:
        cells: all cells.
        accuracy_cells: cells that need training.
        cost_cells: cells with a printed cost (parameters, GFLOPs, formulas, sizes).
        verdicts: verdict -> cells.
        own_cost_cells: cost cells that the papers counted themselves.
        own_accounted_percent: of those, how many are exact, close or explained.
        cited_cost_cells: cost cells copied from other papers.
        cited_accounted_percent: the same for these.
        accounted_percent: the same for all cost cells.
    """

    cells: int
    accuracy_cells: int
    cost_cells: int
    verdicts: dict[str, int]
    own_cost_cells: int
    own_accounted_percent: float
    cited_cost_cells: int
    cited_accounted_percent: float
    accounted_percent: float


def audit() -> list[Row]:
    """Judge all published cells, in the order of the papers' tables. Builds and counts about 90 networks, cached."""
    return [_row(cell) for cell in published_cells()]


def audit_table(paper: str, table: str) -> list[Row]:
    """Judge the cells of one table."""
    return [_row(cell) for cell in table_cells(paper, table)]


def table_cells(paper: str, table: str) -> list[Cell]:
    """The cells of one table, named as sweeps do (`II(a)`, `3`); empty if none of it was copied out."""
    cells = (cell for cell in published_cells() if cell.paper == paper)
    return [cell for cell in cells if cell.table.removeprefix("Table").casefold() == table.casefold()]


def summary(rows: Sequence[Row]) -> Summary:
    """Count the verdicts of `rows`."""
    costs = [row for row in rows if row.metric not in ACCURACIES and row.published]
    own, cited = [row for row in costs if not row.cited], [row for row in costs if row.cited]
    return Summary(
        cells=len(rows),
        accuracy_cells=sum(row.metric in ACCURACIES for row in rows),
        cost_cells=len(costs),
        verdicts=dict(sorted(Counter(row.verdict for row in rows).items())),
        own_cost_cells=len(own),
        own_accounted_percent=_accounted(own),
        cited_cost_cells=len(cited),
        cited_accounted_percent=_accounted(cited),
        accounted_percent=_accounted(costs),
    )


def _accounted(rows: Sequence[Row]) -> float:
    good = sum(row.verdict in ("exact", "close", "explained") for row in rows)
    return round(100 * good / len(rows), 2) if rows else 100.0


def _row(cell: Cell) -> Row:
    if cell.metric in ACCURACIES:
        return _made(cell, "accuracy: needs training", "an accuracy, not a cost" if cell.value else DASH)
    declared = declaration(cell.paper)
    claim = declared.claim(cell.row_id, cell.metric)
    if cell.metric in COSTS:
        return _cost_row(cell, declared, claim)
    if claim is not None and claim.size:
        return _size_row(cell, declared, claim)
    if cell.row_id == "BAT-text-13to31pct":
        return _ratio_row(cell)
    finding = symbolic.check(cell.paper, cell.row_id, cell.value) if cell.value else None
    if finding is None:
        return _made(cell, "explained", DASH) if not cell.value else _made(cell, "not reproduced", "no such formula")
    return _made(cell, finding.verdict, finding.reason, _Values(finding.reproduced, rule="closed form"))


def _cost_row(cell: Cell, declared: Declaration, claim: Claim | None) -> Row:
    if claim is None or claim.model is None:
        if not cell.value:
            return _made(cell, "explained", DASH)
        return _made(
            cell, "not reproduced", NOT_BUILT.format(cell.source) if cell.cited else "nothing of ours corresponds"
        )
    counted = _counted(claim, declared)
    rule = "" if cell.metric == "params_m" else claim.rule or declared.rule
    ours, published = _value(counted, cell.metric, rule) + _functional(claim, cell.metric), cell.number
    values = _Values(ours, counted.executed, rule, increment=bool(claim.minus))
    if published is None:
        return _made(cell, "explained", DASH, values)
    agreement = agrees(published, ours, cell.decimals, _increments(cell, declared, claim, ours))
    explained = _slip(claim, cell, ours)
    verdict = judge(agreement, fitted=bool(claim.fitted), explained=explained)
    reason = _reason(cell, declared, claim, ours, verdict, exact=agreement == "exact")
    return _made(cell, verdict, reason, values)


def _counted(claim: Claim, declared: Declaration) -> Count:
    assert claim.model is not None
    total = count(claim.model, declared.models)
    return total.minus(count(claim.minus, declared.models)) if claim.minus else total


def _value(counted: Count, metric: str, rule: str) -> float:
    return counted.params_m if metric == "params_m" else counted.rules[rule]


def _functional(claim: Claim, metric: str) -> float:
    return claim.functional / GIGA if metric == "gflops" else 0.0


def _increments(cell: Cell, declared: Declaration, claim: Claim, ours: float) -> tuple[float, float] | None:
    """The published and our increment over the row that `claim.over` names."""
    baseline = _cells().get(f"{claim.over}/{cell.metric}")
    of_base = declared.claim(claim.over, cell.metric) if claim.over else None
    if baseline is None or baseline.number is None or cell.number is None or of_base is None:
        return None
    base = _value(_counted(of_base, declared), cell.metric, of_base.rule or declared.rule)
    base += _functional(of_base, cell.metric)
    return cell.number - baseline.number, ours - base


def _slip(claim: Claim, cell: Cell, ours: float) -> bool:
    """Whether the claim's reason for a difference holds: a typo that reads as ours, cut digits, arithmetic."""
    checks = []
    if claim.cut:
        checks.append(floor(ours * 10**cell.decimals) == round(float(cell.value) * 10**cell.decimals))
    if claim.bound:
        checks.append(ours > float(cell.value))
    if claim.plus:
        total = sum(map(_printed, claim.plus)) - sum(map(_printed, claim.less))
        checks.append(abs(total - float(claim.states or cell.value)) < 1e-9)
    if claim.instead:
        decimals = len(claim.instead.partition(".")[2])
        checks.append(agrees(float(claim.instead), ours, decimals) == "exact")
    return bool(checks) and all(checks)


def _printed(key: str) -> float:
    number = _cells()[key].number
    if number is None:
        raise ValueError(f"{key} prints no number")
    return number


def _reason(cell: Cell, declared: Declaration, claim: Claim, ours: float, verdict: Verdict, *, exact: bool) -> str:
    off = "equal at the printed precision" if exact else f"{_off(float(cell.value), ours)} off"
    if verdict == "exact":
        return off
    parts = [f"with {claim.fitted}: {off}" if claim.fitted else off]
    if claim.why:
        parts.append(claim.why.replace("{stated}", _stated(cell, declared, claim)))
    return "; ".join(parts)


def _off(published: float, ours: float) -> str:
    return f"{100 * abs(ours - published) / abs(published):.2f} %"


def _stated(cell: Cell, declared: Declaration, claim: Claim) -> str:
    if not claim.stated:
        return ""
    counted = count(claim.stated, declared.models)
    counted = counted.minus(count(claim.minus, declared.models)) if claim.minus else counted
    return f"{_value(counted, cell.metric, claim.rule or declared.rule):.{max(2, cell.decimals)}f}"


def _size_row(cell: Cell, declared: Declaration, claim: Claim) -> Row:
    assert claim.model is not None
    model = declared.models[claim.model]
    assert isinstance(model, Declared)
    ours = map_sizes(model.spec)[claim.size]
    if not cell.value:
        return _made(cell, "explained", f"{DASH}; the text's layers give {ours}", _Values(ours))
    same = ours == cell.value
    return _made(cell, "exact" if same else "not reproduced", "from a pass on the meta device", _Values(ours))


def _ratio_row(cell: Cell) -> Row:
    """BAT's "only 13 % to 31 % GFLOPs" of NL: the claim on its Table 5."""
    declared = declaration("bat")
    ours, theirs = [], []
    for net in ("18", "50"):
        bat, nl = (f"BAT-T5-ResNet-{net}-{block}" for block in ("BAT", "NL"))
        small, large = (_gflops(row_id, declared) for row_id in (bat, nl))
        ours.append(small / large)
        theirs.append(_printed(f"{bat}/gflops") / _printed(f"{nl}/gflops"))
    own, baseline = _printed("BAT-T5-ResNet-50-BAT/gflops"), _printed("BAT-T4-baseline/gflops")
    reason = (
        f"Table 5 itself gives {theirs[0]:.1%} and {theirs[1]:.1%}; 31 % is the increment over the baseline "
        f"network, {own:.2f} / {baseline:.2f} = {own / baseline:.1%}"
    )
    slipped = round(100 * theirs[0]) == 13 and round(100 * own / baseline) == 31
    verdict: Verdict = "explained" if slipped else "not reproduced"
    values = _Values(f"{ours[0]:.1%} .. {ours[1]:.1%}", rule="thop-1909, thop-1909+matmul")
    return _made(cell, verdict, reason, values)


def _gflops(row_id: str, declared: Declaration) -> float:
    claim = declared.claim(row_id, "gflops")
    assert claim is not None, f"{row_id} is not declared"
    return _counted(claim, declared).rules[claim.rule or declared.rule]


@cache
def _cells() -> Mapping[str, Cell]:
    return {cell.key: cell for cell in published_cells()}


class _Values(NamedTuple):
    """Ours beside one cell; see `Row`."""

    reproduced: float | str | None = None
    executed: float | None = None
    rule: str = ""
    increment: bool = False


NOTHING = _Values()


def _made(cell: Cell, verdict: Verdict, reason: str, values: _Values = NOTHING) -> Row:
    return Row(
        row_id=cell.row_id,
        metric=cell.metric,
        paper=cell.paper,
        table=cell.table,
        model=cell.model,
        dataset=cell.dataset,
        published=cell.value,
        cited=cell.cited,
        verdict=verdict,
        reason=reason,
        **values._asdict(),
    )


def by_paper(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Paper -> its rows, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.paper, []).append(row)
    return found
