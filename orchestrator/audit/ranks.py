"""The audit's finding: what the order of cost becomes when everything that runs is counted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from orchestrator.audit.rows import Row
from workloads.frozen import Frozen


class RankChange(Frozen):
    """One model of a table that compares costs, in both orders.

    Attributes:
        paper: `rnl`, `pnl`, `bat`.
        table: the table.
        dataset: of the accuracies beside the costs.
        row_id: the row.
        model: as the paper calls it.
        increment: the costs are what a block adds to its network, not the network's.
        published_gflops: as printed.
        executed_gmacs: multiply-accumulates that really run, in billions, of the same thing.
        top1_percent: as printed beside it; None where the table prints none.
        published_rank: 1 is the cheapest by the printed cost; equal costs share the smallest rank.
        executed_rank: the same by executed MACs, rounded to the printed precision.
        verdict: of the published cost; of what is `not reproduced`, `executed_gmacs` is our closest network.
    """

    paper: str
    table: str
    dataset: str
    row_id: str
    model: str
    increment: bool
    published_gflops: float
    executed_gmacs: float
    top1_percent: float | None
    published_rank: int
    executed_rank: int
    verdict: str

    @property
    def changed(self) -> bool:
        """Whether counting everything moves the model."""
        return self.published_rank != self.executed_rank


def rank_changes(rows: Sequence[Row]) -> list[RankChange]:
    """Published against executed cost of the same points, per table and dataset with at least two costs we can build.

    Costs of networks and costs of blocks alone are ranked apart. Claims in the text are differences, not points, and
    are left out.
    """
    top1 = {row.row_id: float(row.published) for row in rows if row.metric == "top1" and row.published}
    tables: dict[tuple[str, str, str, bool], list[Row]] = defaultdict(list)
    for row in rows:
        if row.metric == "gflops" and row.published and row.executed is not None and not row.table.startswith("text"):
            tables[row.paper, row.table, row.dataset, row.increment].append(row)
    return [change for table in tables.values() if len(table) > 1 for change in _ranked(table, top1)]


def _ranked(table: Sequence[Row], top1: dict[str, float]) -> list[RankChange]:
    decimals = max(len(row.published.partition(".")[2]) for row in table)
    published = [float(row.published) for row in table]
    executed = [round(row.executed or 0.0, decimals) for row in table]
    return [
        RankChange(
            paper=row.paper,
            table=row.table,
            dataset=row.dataset,
            row_id=row.row_id,
            model=row.model,
            increment=row.increment,
            published_gflops=float(row.published),
            executed_gmacs=row.executed or 0.0,
            top1_percent=top1.get(row.row_id),
            published_rank=1 + sum(other < mine for other in published),
            executed_rank=1 + sum(other < ours for other in executed),
            verdict=row.verdict,
        )
        for row, mine, ours in zip(table, published, executed, strict=True)
    ]
