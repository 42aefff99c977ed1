"""Ledgers that several tests read; none of them writes."""

from __future__ import annotations

from pathlib import Path

import dashboard_ledgers as ledgers
import pytest

import dashboards


@pytest.fixture(scope="session")
def quickstart_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits table: 21 arms, 5 seeds, one trial diverged and one failed."""
    return ledgers.write(tmp_path_factory.mktemp("quickstart") / "ledger.db")


@pytest.fixture(scope="session")
def quickstart(quickstart_path: Path) -> dashboards.Sweep:
    return dashboards.open(quickstart_path).sweep("quickstart")
