"""The ledger as the app sees it: what was read and computed is kept until somebody writes to it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from dashboards.app.records import PageReader
from dashboards.errors import NoResults
from dashboards.sweep import Sweep
from orchestrator.errors import LongrangeError, UserError

T = TypeVar("T")
AUDIT_FILE = "audit.json"
REST = 10.0  # a live ledger is read again after so many times what reading it took, lest refreshing be all we do
MOST_HELD = 8  # sweeps kept at a time


class NoSweep(NoResults):
    """The ledger holds no sweep."""

    def __init__(self) -> None:
        super().__init__("the ledger holds no sweep yet; start one with `longrange run quickstart`")


class Held(Sweep):
    """A sweep as it was at one version of the ledger, with what pages derived from it."""

    reader: PageReader

    def __init__(self, reader: PageReader, name: str) -> None:
        super().__init__(reader, name)
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.RLock()

    def keep(self, make: Callable[[], T], *key: object) -> T:
        """`make()`, once per key; threads that ask meanwhile wait for it."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            found: T = self._kept[key]
            return found

    def table(self, metric: str = "top1_percent", cost: str = "executed_macs") -> pd.DataFrame:
        """`Sweep.table`, computed by one thread at a time."""
        with self._lock:
            return super().table(metric, cost)


class Store:
    """Sweeps of one ledger, by version.

    Args:
        where: a ledger file, the run folder that holds it, or a database URL.
        clock: seconds, ever rising.

    Raises:
        LongrangeError: there is no ledger, it is locked, or another version wrote it.
    """

    def __init__(self, where: str | os.PathLike[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self.reader = PageReader(where)
        self._clock = clock
        self._lock = threading.RLock()
        self._version = self.reader.version()
        self._not_before = 0.0
        self._spent = 0.0
        self._held: dict[str, Held] = {}
        self._frames: dict[str, Any] = {}

    def version(self) -> str:
        """Changes when the ledger did; a busy ledger is followed only as fast as it can be read."""
        with self._lock:
            if self._clock() >= self._not_before:
                now = self.reader.version()
                if now != self._version:
                    self._version = now
                    self._held.clear()
                    self._frames.clear()
                    self._not_before = self._clock() + REST * self._spent
                    self._spent = 0.0
            return self._version

    def sweeps(self) -> pd.DataFrame:
        """`Reader.sweeps`."""
        frame: pd.DataFrame = self._once("sweeps", self.reader.sweeps)
        return frame

    def running(self) -> pd.DataFrame:
        """`PageReader.running`."""
        frame: pd.DataFrame = self._once("running", self.reader.running)
        return frame

    def newest(self) -> str:
        """The sweep that changed last.

        Raises:
            NoSweep: there is none.
        """
        names = self.sweeps().index
        if not len(names):
            raise NoSweep
        return str(names[0])

    def sweep(self, name: str) -> Held:
        """A sweep as it is now, kept until the ledger changes."""
        with self._lock:
            if name not in self._held:
                found = Held(self.reader, name)
                while len(self._held) >= MOST_HELD:
                    self._held.pop(next(iter(self._held)))
                self._held[name] = found
            return self._held[name]

    def timed(self, make: Callable[[], T]) -> T:
        """`make()`; what it takes sets how soon a busy ledger is read again."""
        begun = self._clock()
        try:
            return make()
        finally:
            self._spent = max(self._spent, self._clock() - begun)

    @property
    def folder(self) -> Path | None:
        """Where the ledger's file lies; None for a database server."""
        return self.reader.file.parent if self.reader.file else None

    def settings(self) -> dict[str, Any]:
        """How the run was started (run.json beside the ledger); empty where that is not known."""
        path = self.folder / "run.json" if self.folder else None
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path else {}
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def audit(self) -> list[dict[str, Any]] | None:
        """Rows of audit.json beside the ledger; None where there is no such file.

        Raises:
            UserError: it is not what `longrange audit --json` writes.
        """
        path = self.folder / AUDIT_FILE if self.folder else None
        if path is None or not path.is_file():
            return None
        again = "write it again with `longrange audit --json -o`"
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} is not an audit: {error}; {again}") from error
        if not _rows(rows):
            raise UserError(f"{path} holds no list of rows; {again}")
        return list(rows)

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._frames:
                self._frames[name] = make()
            return self._frames[name]


def _rows(rows: Any) -> bool:
    return isinstance(rows, Sequence) and not isinstance(rows, str) and all(isinstance(row, dict) for row in rows)


def warm(store: Store) -> None:
    """Compute what the newest sweep's page shows, in the background of a starting server."""
    try:
        held = store.sweep(store.newest())
        store.timed(held.answer)
    except LongrangeError:
        pass  # the page says it better
