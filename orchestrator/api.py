"""longrange from Python: what `longrange plan | run | resume | status` do, for notebooks and scripts.

    from orchestrator import api

    api.plan("quickstart", set=["seeds=1"]).estimate()
    outcome = api.run("quickstart", set=["seeds=1"], out="runs/x", executor="inline")
    api.status("runs/x").states                       # {"finished": 8}
    api.ensemble(["runs/x::none", "runs/x::nl @res3"]).rating

A sweep is a shipped name, a file, a plan that was saved for review, or a `Sweep`. Runs go into folders that the command
line reads too, and the other way round. Nothing is printed but warnings; trials that fail are counted in the `Outcome`,
not raised. Reports and figures are made by `dashboards`, from the folder's ledger.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator import saved
from orchestrator.driver import Observer, Outcome
from orchestrator.ensemble import Ensemble, ensemble
from orchestrator.errors import UserError
from orchestrator.events import Event
from orchestrator.launch import (
    Changed,
    ExecutorName,
    Settings,
    attach,
    fill_mirror,
    remember,
    remembered,
    replan,
    start,
)
from orchestrator.overview import Overview, overview
from orchestrator.paths import CancelFile, RunFolder
from orchestrator.plan import Plan
from orchestrator.records.ledger import Ledger
from orchestrator.search.planning import refuse_second_driver
from orchestrator.sweep import Sweep

if TYPE_CHECKING:  # mlflow is imported when a mirror is made
    from orchestrator.records.mlflow_mirror import Copied

__all__ = [
    "Ensemble",
    "Outcome",
    "Overview",
    "Plan",
    "Sweep",
    "cancel",
    "ensemble",
    "mirror",
    "plan",
    "resume",
    "run",
    "status",
    "trial",
]


class Quiet:
    """An observer that shows nothing."""

    def planned(self, plan: Plan, todo: int, reused: int) -> None:
        """Nothing to show."""

    def event(self, event: Event) -> None:
        """Nothing to show."""


def plan(
    sweep: str | Path | Sweep,
    *,
    set: Sequence[str] = (),
    only: Sequence[str] = (),
    profiled: bool = True,
    ledger: str | Path | None = None,
) -> Plan:
    """Expand, check and price a sweep. Nothing runs.

        plan("quickstart", set=["seeds=1", "recipe.epochs=2"], only=["block.name=nl"]).to_json()

    Args:
        sweep: a shipped name, a YAML file, or a `Sweep`.
        set: `path=value` texts that override the file.
        only: `path=value` texts; arms for which all hold stay, and the control.
        profiled: count params and MACs of every model; otherwise no torch is imported.
        ledger: price from the trials it has seen.

    Raises:
        SweepError: everything that is wrong with the sweep.
    """
    return _request(sweep, set, only).plan(profiled=profiled, ledger=ledger)


def run(
    sweep: str | Path | Sweep,
    *,
    out: str | Path | None = None,
    set: Sequence[str] = (),
    only: Sequence[str] = (),
    executor: ExecutorName = "auto",
    ray: str | None = None,
    workers: int | None = None,
    ledger: str | None = None,
    mlflow: str | None = None,
    changed: Changed = "ask",
    retry_failed: bool = False,
    keep_checkpoints: bool = False,
    notify: str | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Plan a sweep and run what is not done yet.

        run(Sweep(name="mine", base={"workload": "digits", "insertion": {"res3": [0]}},
                  axes={"grid": {"block": ["nl", "rnl"]}}), out="runs/mine", executor="inline", mlflow="off")

    Args:
        sweep: a shipped name, a YAML file, or a `Sweep`.
        out: run folder; None is `runs/NAME`.
        set: as in `plan`.
        only: as in `plan`.
        executor: `inline` runs here, `ray` under Ray Tune, `auto` under Ray if there is more than one core.
        ray: address of a Ray cluster.
        workers: trials at once on a local Ray.
        ledger: path or URL; None is `ledger.db` in the folder.
        mlflow: tracking URI; None is `mlflow.db` in the folder, `off` is none.
        changed: finished trials that ran under other code: `ask` raises, `keep` reuses them.
        retry_failed: run failed and infeasible trials again.
        keep_checkpoints: do not delete those of finished trials.
        notify: a command or URL that is told of the end, the first failure, and errors.
        observer: is told every event, e.g. `orchestrator.cli.display.Progress()`.

    Raises:
        SweepError: everything that is wrong with the sweep.
        UserError: the data is not ready, or finished trials ran under other code.
        LedgerError: the ledger cannot be written.
    """
    wanted = _request(sweep, set, only)
    folder = RunFolder.of_sweep(wanted.sweep.name, None if out is None else Path(out))
    made = wanted.plan(ledger=ledger or folder.ledger)
    settings: Settings = {
        "sweep": wanted.sweep.name,
        "only": list(wanted.only),
        "executor": executor,
        "address": ray,
        "workers": workers,
        "ledger": ledger,
        "mlflow": mlflow,
        "changed": changed,
        "keep_checkpoints": keep_checkpoints,
        "notify": notify,
    }
    refuse_second_driver(made.sweep, settings["ledger"] or folder.ledger)
    remember(folder, settings)
    return _start(made, folder, settings, observer, retry_failed=retry_failed)


def resume(
    folder: str | Path,
    *,
    retry_failed: bool = False,
    changed: Changed | None = None,
    notify: str | None = None,
    observer: Observer | None = None,
) -> Outcome:
    """Continue a run that was stopped, or whose driver died, in the way it was started.

        resume("runs/mine", retry_failed=True)

    Raises:
        UserError, LedgerError: as `run`; or there is no run in the folder.
    """
    found = RunFolder.find(Path(folder))
    settings = remembered(found)
    settings["changed"] = changed or settings["changed"]
    settings["notify"] = notify or settings["notify"]
    return _start(replan(found, settings), found, settings, observer, retry_failed=retry_failed)


def status(folder: str | Path, *, ledger: str | Path | None = None) -> Overview:
    """How far a run is: trials by state and arm, failures, rate, time left, cost. It may be running elsewhere.

        status("runs/mine").to_json()

    Raises:
        UserError: there is no run in the folder.
    """
    found = RunFolder.find(Path(folder))
    settings = remembered(found)
    with Ledger.open(ledger or settings["ledger"] or found.ledger, create=False) as opened:
        return overview(opened, settings["sweep"], time.time())


def trial(folder: str | Path, beginning: str, *, ledger: str | Path | None = None) -> dict[str, Any]:
    """Everything about one trial, by its id or the beginning of it: configuration, attempts with causes, messages and
    tracebacks, results, epochs. What `longrange show` and `longrange logs` tell.

        trial("runs/mine", "3bfe9f1f")["attempts"]

    Raises:
        UserError: there is no run in the folder; no trial, or several, begin so.
    """
    found = RunFolder.find(Path(folder))
    with Ledger.open(ledger or remembered(found)["ledger"] or found.ledger, create=False) as opened:
        return opened.trial(beginning)


def cancel(folder: str | Path) -> None:
    """Ask whoever runs into this folder, on any machine, to stop: trials write a checkpoint, `resume` goes on.

        cancel("runs/mine")

    Raises:
        UserError: there is no run in the folder.
    """
    CancelFile(RunFolder.find(Path(folder)).cancel).ask()


def mirror(folder: str | Path, *, mlflow: str | None = None, rebuild: bool = False) -> Copied:
    """Bring MLflow up to date with the ledger; or throw the sweep's runs away and copy everything again.

        mirror("runs/mine").runs

    Args:
        folder: of the run.
        mlflow: tracking URI; None is that of the run.
        rebuild: start from nothing.

    Raises:
        UserError: there is no run in the folder.
        MirrorError: the store cannot be reached.
    """
    found = RunFolder.find(Path(folder))
    return fill_mirror(found, remembered(found), mlflow=mlflow, rebuild=rebuild)[0]


def _start(
    made: Plan, folder: RunFolder, settings: Settings, observer: Observer | None, *, retry_failed: bool
) -> Outcome:
    outcome, mirror = start(made, folder, settings, observer=observer or Quiet(), retry_failed=retry_failed)
    if mirror is not None and outcome.mirror_error is None:
        attach(mirror, made.sweep.name, folder)
    return outcome


def _request(sweep: str | Path | Sweep, overrides: Sequence[str], only: Sequence[str]) -> saved.Request:
    if not isinstance(sweep, Sweep):
        return saved.request(str(sweep), overrides, only)
    if overrides:
        raise UserError("set= overrides a file; of a Sweep make another: sweep.model_copy(update={'seeds': (0, 1)})")
    return saved.Request(sweep, tuple(only), sweep.name)
