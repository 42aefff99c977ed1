"""What a reader of the ledger can be told; each message says what was asked, what there is, and what to do."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.errors import UserError


class UnknownSweep(UserError):
    """The ledger holds no sweep of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        listed = f"it holds: {', '.join(known)}" if known else "it holds no sweep yet; run one with `longrange run`"
        super().__init__(f"the ledger has no sweep named {name!r}; {listed}")


class NoResults(UserError):
    """The sweep exists, but nothing of it has a result to show yet."""


class OtherData(UserError):
    """Two arms were judged on different data: there is no difference between them to show."""


class UnknownChoice(UserError):
    """A metric, cost, column or format that does not exist (or that this sweep did not record)."""

    def __init__(self, kind: str, given: str, allowed: Sequence[str]) -> None:
        super().__init__(f"unknown {kind} {given!r}; use one of: {', '.join(allowed) or '(none)'}")
