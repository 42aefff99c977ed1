"""Where a run keeps its files. Names given by users never decide a path: they are made harmless first."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from orchestrator.errors import LedgerError, UserError

RUNS = Path("runs")


def _is_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(one, str) for one in given)


# What `run.json` may hold under the keys that verbs use before anything else could judge them.
SETTINGS: dict[str, Callable[[Any], bool]] = {
    "sweep": lambda given: isinstance(given, str) and given != "",
    "only": _is_texts,
    "without_password": _is_texts,
    "executor": lambda given: given in ("auto", "inline", "ray"),
    "changed": lambda given: given in ("ask", "keep"),
    "workers": lambda given: given is None or (isinstance(given, int) and given > 0),
    **dict.fromkeys(("ledger", "mlflow", "address", "notify"), lambda given: given is None or isinstance(given, str)),
}


def slug(name: str) -> str:
    """A folder name from any text: letters, digits, `.`, `_`, `-`; never empty, never a way out of its folder.

    Names that lose letters here, or their end, carry a hash of the whole name: two such names share no folder.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if name.isascii() and len(plain) <= 80:
        return plain or "sweep"
    return f"{plain[:73] or 'sweep'}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def cache_dir() -> Path:
    """What sweeps share: prepared data, pre-trained weights, measured costs. `LONGRANGE_CACHE` moves it."""
    given = os.environ.get("LONGRANGE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(home) / "longrange"


@dataclass(frozen=True)
class RunFolder:
    """One sweep's folder: everything that is not in a database server."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> RunFolder:
        """Create the folder.

        Raises:
            UserError: the path is a file, or may not be written.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise UserError(f"{root} is a file: give a folder for the run with --out") from None
        except OSError as error:
            raise UserError(
                f"cannot make the run folder {root}: {error.strerror}; choose another with --out"
            ) from error
        return cls(root.resolve())

    @classmethod
    def of_sweep(cls, name: str, root: Path | None = None) -> RunFolder:
        """The folder given, or else `runs/NAME`, created.

        Raises:
            UserError: as `make`; or no folder was given, and that of the name holds a sweep with another name.
        """
        folder = cls.make(root if root is not None else RUNS / slug(name))
        if root is None and (folder.root / "run.json").is_file() and folder.settings().get("sweep", name) != name:
            other = folder.settings()["sweep"]
            raise UserError(f"{folder.root} holds another sweep, {other!r}: give {name!r} its own folder with --out")
        return folder

    @classmethod
    def find(cls, root: Path) -> RunFolder:
        """A folder that `make` made before.

        Raises:
            UserError: there is no run in this folder.
        """
        if not (root / "run.json").is_file():
            raise UserError(f"there is no run in {root}: give the folder of a `longrange run` (it holds run.json)")
        return cls(root.resolve())

    @property
    def ledger(self) -> Path:
        """The default ledger."""
        return self.root / "ledger.db"

    @property
    def mlflow_uri(self) -> str:
        """The default MLflow store."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def checkpoints(self) -> Path:
        """One folder per trial."""
        return self.root / "checkpoints"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.root / "report.html"

    @property
    def best(self) -> Path:
        """The sweep that compares a search's best configurations with its control."""
        return self.root / "best.yaml"

    @property
    def population(self) -> Path:
        """What population based training decided, and the schedules of its best members."""
        return self.root / "population.json"

    @property
    def figures(self) -> Path:
        """Pictures for MLflow."""
        return self.root / "figures"

    @property
    def artifacts(self) -> list[Path]:
        """What there is to show of the sweep as a whole: plan, report, figures."""
        found = [path for path in (self.plan, self.report) if path.is_file()]
        return found + (sorted(self.figures.iterdir()) if self.figures.is_dir() else [])

    @property
    def plan(self) -> Path:
        """The plan as JSON."""
        return self.root / "plan.json"

    @property
    def cancel(self) -> Path:
        """The file by which `longrange cancel` reaches the driver, from any machine that sees this folder."""
        return self.root / "cancel"

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Remember how this run was started, for `longrange resume`."""
        write_text(self.root / "run.json", json.dumps(settings, indent=2, sort_keys=True) + "\n")

    def settings(self) -> dict[str, Any]:
        """What `write_settings` wrote.

        Raises:
            UserError: the file is damaged, or was written by hand.
        """
        file = self.root / "run.json"
        try:
            settings = json.loads(file.read_text(encoding="utf-8"))
            wrong = _setting_problems(settings)
        except (OSError, ValueError, RecursionError) as error:
            wrong = str(error)
        if wrong:
            raise UserError(
                f"cannot read {file}: {wrong}. The ledger holds the results: move the file away and start the sweep "
                f"again with `longrange run SWEEP --out {shlex.quote(str(self.root))}`, which goes on from there"
            )
        return {"ledger": None, **settings}


def _setting_problems(settings: Any) -> str:
    """What no `write_settings` ever wrote, in words; empty if there is nothing."""
    if not isinstance(settings, dict):
        return "it holds no settings"
    missing = [] if "sweep" in settings else ["sweep is missing"]
    wrong = [key for key, fits in SETTINGS.items() if key in settings and not fits(settings[key])]
    return "; ".join([*missing, *(f"{key} cannot be {settings[key]!r:.60}" for key in wrong)])


class CancelFile:
    """Whether somebody asked the driver of a run to stop since this was made.

    The file is never deleted: each request writes another text, so that an old one cannot stop a later run, and two
    drivers of one folder both hear of a new one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._before = self._read()

    def __call__(self) -> bool:
        found = self._read()
        return found is not None and found != self._before

    def ask(self) -> None:
        """Ask every driver that runs into this folder now to stop."""
        write_text(self._path, uuid4().hex + "\n")

    def _read(self) -> str | None:
        try:
            return self._path.read_text(encoding="utf-8")
        except OSError:
            return None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: aside, then renamed.

    Raises:
        LedgerError: the disk is full or the folder may not be written; the old file is untouched.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):  # a read-only disk refuses this too, also where there is nothing
            aside.unlink()
        raise LedgerError(f"cannot write {path}: {error.strerror}") from error
