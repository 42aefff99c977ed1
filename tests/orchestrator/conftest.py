"""Worker and command-line processes of these tests find the scripted workload too; a PostgreSQL server for all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres import PostgreSQL, binaries
from unprivileged import somebodys_folder

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(autouse=True)
def _support_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH", "")])))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    found = binaries()
    if found is None:
        pytest.skip("no PostgreSQL server programs (initdb) on this machine")
    server = PostgreSQL(found)
    yield server
    server.stop()
    shutil.rmtree(server.folder)


@pytest.fixture
def somebody() -> Iterator[Path]:
    """A folder of an unprivileged user, whom this process is for the time of the test: root may write anything."""
    with somebodys_folder() as folder:
        yield folder
