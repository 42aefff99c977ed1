"""Every error a user can meet, under one root. A message holds what was given, what is allowed, and the next command.

Exit codes: 2 for the user's mistakes (`UserError`), 1 for failures of trials or of the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep


class LongrangeError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class UserError(LongrangeError):
    """Something the user gave cannot be used."""

    exit_code = 2


class SweepError(UserError):
    """A sweep file is wrong; carries every problem found, each with its place in the file.

    `rest` is the sweep without what is wrong, where that can be told, for a caller that looks for further problems.
    """

    def __init__(self, source: str, problems: Sequence[str], rest: Sweep | None = None) -> None:
        self.source = source
        self.rest = rest
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems))


class AnotherDriver(UserError):
    """Somebody else drives what only one may drive."""

    def __init__(self, sweep: str, owner: str) -> None:
        host, process, *_ = [*owner.split(":"), "?"]
        super().__init__(
            f"another driver is searching for {sweep!r} (process {process} on {host}), and a search has one: let it "
            "finish, or `longrange cancel` it; if that machine is gone, try again in a minute"
        )


class LedgerError(LongrangeError):
    """The ledger cannot be opened or written: locked, full disk, unreachable server."""


class LedgerUnavailable(LedgerError):
    """The ledger does not answer now: server down, file locked. Nothing was written; try the same call later."""


class NoLedger(UserError):
    """There is no ledger where one was said to be; `longrange run` makes them."""


class LedgerVersionError(UserError):
    """The ledger's schema is not this version's; the message names the command that helps."""


class MirrorError(LongrangeError):
    """The MLflow mirror cannot be read or written now. Nothing is lost: it catches up from the ledger later."""


class TrialsFailed(LongrangeError):
    """The sweep ended, but some trials failed."""
