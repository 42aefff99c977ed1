"""What each paper's cost cells claim to measure, read from `declarations/<paper>.yaml`.

A declaration names models (a `ModelSpec` each, or layers of one block) and says for every row which of them it is,
under which rule, over which baseline, and which settings had to be fitted. It holds no result: values come out of
building and counting.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import Field

from orchestrator.audit.models import Counted
from workloads.frozen import Frozen

PAPERS = ("hgnl", "rnl", "bat", "pnl")


class Claim(Frozen):
    """How one row (or one cell of it) comes about.

    Attributes:
        model: what is counted; None where nothing of ours corresponds.
        rule: the rule that its GFLOPs follow (see `Count`); the paper's usual one if empty.
        over: row whose model and printed cell are the baseline of the increment.
        minus: model subtracted from `model`: the cell prints a difference, judged as such.
        fitted: the setting that the paper does not state, or contradicts; caps the verdict at `explained`.
        instead: what the cell should read; checked against our value at the precision given here.
        plus: cells (`row_id/metric`) whose printed sum, minus those of `less`, is what `states`, or else the cell,
            says: arithmetic of the paper's own numbers; checked.
        less: see `plus`.
        states: see `plus`.
        functional: operations that the rule charges for a layer which is a module in theirs and functional in ours.
        cut: the paper dropped the remaining digits instead of rounding; checked.
        bound: the paper prints a lower bound, as "> 107.9"; checked.
        size: layer whose output size the cell prints.
        stated: model with the settings as the paper states them; its value replaces `{stated}` in `why`.
        why: one line a reader can verify.
    """

    model: str | None = None
    rule: str = ""
    over: str = ""
    minus: str = ""
    fitted: str = ""
    instead: str = ""
    plus: tuple[str, ...] = ()
    less: tuple[str, ...] = ()
    states: str = ""
    functional: int = 0
    cut: bool = False
    bound: bool = False
    size: str = ""
    stated: str = ""
    why: str = ""


class Declaration(Frozen):
    """One paper.

    Attributes:
        paper: `hgnl`, `rnl`, `bat`, `pnl`.
        rule: the rule its GFLOPs follow unless a claim says otherwise.
        models: name -> what is built.
        rows: `row_id` or `row_id/metric` -> claim; a cell's own claim replaces its row's.
    """

    paper: str
    rule: str
    models: dict[str, Counted]
    rows: dict[str, Claim] = Field(default_factory=dict)

    def claim(self, row_id: str, metric: str) -> Claim | None:
        """The claim of one cell; None if nothing is declared for it."""
        return self.rows.get(f"{row_id}/{metric}", self.rows.get(row_id))


@cache
def declaration(paper: str) -> Declaration:
    """The declaration of one paper.

    Raises:
        ValueError: the file names a model or a rule that does not exist.
    """
    text = files("orchestrator.audit").joinpath(f"declarations/{paper}.yaml").read_text(encoding="utf-8")
    given: dict[str, Any] = yaml.safe_load(text)
    given.pop("shared", None)  # YAML anchors only
    declared = Declaration.model_validate(given)
    for key, claim in declared.rows.items():
        for name in (claim.model, claim.minus, claim.stated):
            if name and name not in declared.models:
                raise ValueError(f"{paper}.yaml: {key} names model {name!r}, which is not declared")
    return declared
