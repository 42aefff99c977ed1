"""Answers: analysis of the ledger, figures, tables, report and app.

import dashboards
sweep = dashboards.open("runs/quickstart").sweep("quickstart")
sweep.table(); sweep.frontier()
"""

from __future__ import annotations

import os

import pandas as pd

from dashboards.queries import Reader
from dashboards.sweep import Sweep

__all__ = ["Ledger", "Sweep", "open"]


class Ledger:
    """One ledger, opened read-only."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self._reader = Reader(where)

    def sweeps(self) -> pd.DataFrame:
        """Every sweep with its question and number of trials per state, newest first."""
        return self._reader.sweeps()

    def sweep(self, name: str) -> Sweep:
        """One sweep by name."""
        return Sweep(self._reader, name)


def open(where: str | os.PathLike[str]) -> Ledger:
    """Open the ledger at `where`: its file, the run folder that holds it, or a database URL.

    Raises:
        orchestrator.errors.LongrangeError: there is none, it is locked, or another version wrote it.
    """
    return Ledger(where)
