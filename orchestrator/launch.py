"""A plan becomes a run: settings of a run folder to ledger, executor, mirror and notifications, then `run_plan`.

No click and no dashboards: the command line and the Python API both start runs here. Settings are what `run.json`
keeps, so that `resume` goes on in the same way; nothing in them is a secret of a notification's address.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast
from urllib.parse import urlsplit, urlunsplit

from orchestrator import paths
from orchestrator.errors import NoLedger, UserError
from orchestrator.mirror_process import MirrorProcess
from orchestrator.paths import CancelFile, RunFolder
from orchestrator.plan import Plan
from orchestrator.planner import plan_sweep, search_planner
from orchestrator.search.planning import refuse_second_driver
from orchestrator.sweep import Sweep, parse_sweep, shipped_sweeps

if TYPE_CHECKING:  # numpy and the database, which planning can do without
    from orchestrator.driver import Observer, Outcome
    from orchestrator.execution.base import Executor
    from orchestrator.records.ledger import Ledger
    from orchestrator.records.mlflow_mirror import Copied, Mirror
    from workloads.spec import TrialSpec

ExecutorName = Literal["auto", "inline", "ray"]
Changed = Literal["ask", "keep"]


class Settings(TypedDict):
    """How a run was started, as `run.json` keeps it."""

    sweep: str
    only: list[str]
    executor: ExecutorName
    address: str | None  # of a Ray cluster
    workers: int | None
    ledger: str | None  # None is ledger.db in the folder
    mlflow: str | None  # None is mlflow.db in the folder; "off"
    changed: Changed
    keep_checkpoints: bool
    notify: str | None  # only what `notify.shown` leaves of it


DEFAULTS = Settings(
    sweep="",
    only=[],
    executor="auto",
    address=None,
    workers=None,
    ledger=None,
    mlflow=None,
    changed="ask",
    keep_checkpoints=False,
    notify=None,
)


STOP_SIGNALS = {number.name: number for number in (signal.SIGINT, signal.SIGTERM)}

# Settings whose URL may hold a password, and where its whole text is found when a run goes on.
WITH_PASSWORD = {"ledger": "LONGRANGE_LEDGER", "mlflow": "LONGRANGE_MLFLOW"}


def remember(folder: RunFolder, settings: Settings) -> None:
    """Write `run.json`: no passwords of URLs, and of a notification's address only what is no secret."""
    from orchestrator.notify import shown

    given = {key: url for key in WITH_PASSWORD if isinstance(url := settings.get(key), str)}
    kept = {key: without_password(url) for key, url in given.items()}
    target = settings["notify"]
    folder.write_settings(
        {
            **settings,
            **kept,
            "without_password": sorted(key for key in kept if kept[key] != given[key]),
            "notify": None if target is None else shown(target),
        }
    )


def remembered(folder: RunFolder) -> Settings:
    """What `remember` wrote; settings that an older version did not know have their defaults.

    Raises:
        UserError: a password is needed that was not kept, and the environment has none.
    """
    known = folder.settings()
    known |= {key: _with_password(key, known[key]) for key in known.get("without_password", ())}
    return cast(Settings, {key: known.get(key, value) for key, value in DEFAULTS.items()})


def without_password(url: str) -> str:
    """A URL without password and other secrets, and for the web without login; anything else as it is.

    Raises:
        UserError: a URL whose server cannot be read.
    """
    from orchestrator.provenance import SECRET_NAME

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UserError(
            f"a URL cannot be read ({error}): it looks like SCHEME://USER:PASSWORD@HOST:PORT/NAME"
        ) from None
    if not parts.netloc:
        return url
    login, _, host = parts.netloc.rpartition("@")
    user = "" if parts.scheme.startswith("http") else login.partition(":")[0]
    query = [item for item in parts.query.split("&") if not SECRET_NAME.search(item.partition("=")[0])]
    return urlunsplit(parts._replace(netloc=f"{user}@{host}" if user else host, query="&".join(query)))


def _with_password(key: str, kept: str) -> str:
    """The URL that was kept without its password, as the environment gives it.

    Without it MLflow and PostgreSQL have variables of their own; that of PostgreSQL is asked for here, since nothing
    goes on without a ledger.
    """
    given = os.environ.get(WITH_PASSWORD[key], "")
    if without_password(given) == kept:
        return given
    own = "PGPASSWORD" in os.environ or "PGPASSFILE" in os.environ or (Path.home() / ".pgpass").exists()
    if key == "ledger" and not own:
        raise UserError(
            f"the password of the ledger {kept} is not kept in run folders: set {WITH_PASSWORD[key]} to the whole URL, "
            "or PGPASSWORD, and try again"
        )
    return kept


def replan(folder: RunFolder, settings: Settings) -> Plan:
    """The plan of a run that was started before, from the sweep that its ledger holds.

    Raises:
        UserError: there is no ledger yet, or it does not hold the sweep.
    """
    from orchestrator.records.ledger import Ledger

    place = settings["ledger"] or folder.ledger
    try:
        with Ledger.open(place, create=False) as ledger:
            known = ledger.sweep(settings["sweep"])
    except NoLedger:
        known = None
    if known is None:
        raise _never_recorded(folder, settings)
    fields = {key: value for key, value in known.definition.items() if key in Sweep.model_fields}
    source = str(folder.root)
    return plan_sweep(parse_sweep(fields, source=source), settings["only"], ledger=place, source=source)


def _never_recorded(folder: RunFolder, settings: Settings) -> UserError:
    name, place = settings["sweep"], without_password(str(settings["ledger"] or folder.ledger))
    words = ["longrange", "run", name if name in shipped_sweeps() else "FILE", "--out", str(folder.root)]
    words += [word for only in settings["only"] for word in ("--only", only)]
    return UserError(
        f"nothing is recorded of the sweep {name!r}: it was stopped before it reached the ledger {place}, or that was "
        f"moved away. Start it as before, with the same --set if there was one: {shlex.join(words)}"
    )


def data_problems(made: Plan) -> list[str]:
    """What is missing or wrong on disk before this plan can run; planning itself needs no data."""
    return list(dict.fromkeys(problem for arm in made.arms for problem in _on_disk(arm.spec)))


def _on_disk(spec: TrialSpec) -> Iterator[str]:
    yield from spec.workload.problems()
    if spec.start is not None:
        from workloads.starting import start_problems  # with torch, which other plans do not need

        yield from start_problems(spec)


def start(
    made: Plan,
    folder: RunFolder,
    settings: Settings,
    *,
    observer: Observer,
    retry_failed: bool = False,
    say: Callable[[str], object] = lambda text: print(text, file=sys.stderr),
) -> tuple[Outcome, Mirror | None]:
    """Run what is left of a plan into a folder.

    Args:
        made: the plan.
        folder: where everything goes.
        settings: how.
        observer: is told every event.
        retry_failed: run failed and infeasible trials again.
        say: is given what a person should read while it runs.

    Returns:
        How it ended, and the mirror for artifacts, if there is one.

    Raises:
        UserError: the data is not ready, or finished trials ran under other code.
        LedgerError: the ledger cannot be written.
    """
    from orchestrator.records.ledger import Ledger
    from orchestrator.run import run_plan

    refuse_second_driver(made.sweep, settings["ledger"] or folder.ledger)
    _refuse_missing_data(made)
    cancelled = CancelFile(folder.cancel)  # from here on: who asks while Ray starts is heard too
    paths.write_text(folder.plan, json.dumps(made.to_json(), indent=2, sort_keys=True) + "\n")
    with ExitStack() as stack:
        told = stack.enter_context(_notified(made, folder, settings, observer, say))
        ledger = stack.enter_context(Ledger.open(settings["ledger"] or folder.ledger))
        _tell_dropped(made, ledger, say)
        mirror = make_mirror(settings["mlflow"], folder, ledger)
        place = settings["ledger"] or folder.ledger
        beside = mirror and stack.enter_context(MirrorProcess(settings["mlflow"] or folder.mlflow_uri, place))
        executor = stack.enter_context(make_executor(settings))
        heard = stack.enter_context(cancel_on_signals(executor.cancel, say))
        outcome = run_plan(
            made,
            ledger=ledger,
            executor=executor,
            checkpoints=folder.checkpoints,
            cache=paths.cache_dir(),
            observer=told.observer,
            mirror=beside,
            retry_failed=retry_failed,
            reuse_changed=settings["changed"] == "keep",
            keep_checkpoints=settings["keep_checkpoints"],
            asked_to_stop=cancelled,
            replan=search_planner(made.sweep, ledger=place) if made.sweep.search is not None else None,
        )
        if heard and outcome.unfinished:
            outcome.stopped_by = outcome.stopped_by or heard[0]
        told.ended(outcome)
        if made.sweep.search is not None:
            write_best(made, ledger, folder, outcome.population)
    return outcome, mirror


def _refuse_missing_data(made: Plan) -> None:
    if problems := data_problems(made):
        raise UserError("the data is not ready:\n" + "\n".join(f"  - {problem}" for problem in problems))


def _tell_dropped(made: Plan, ledger: Ledger, say: Callable[[str], object]) -> None:
    from orchestrator.dropped import dropped, told

    if gone := dropped(made, ledger):
        say(told(gone))


def write_best(
    made: Plan, ledger: Ledger, folder: RunFolder, population: Sequence[Mapping[str, Any]] | None = None
) -> None:
    """Write the sweep that compares a search's best configurations with its control, if any has finished.

    Of a population also its decisions (`Outcome.population`), and under what its best members were trained, by epoch.
    """
    import yaml

    from orchestrator.search.planning import comparison
    from orchestrator.search.population import schedule
    from orchestrator.search.run import best_of

    best = best_of(made, ledger)
    if best:
        paths.write_text(folder.best, yaml.safe_dump(comparison(made.sweep, best), sort_keys=False))
    if population is not None:
        found = {"generations": population, "best": [schedule(setting) for setting in best]}
        paths.write_text(folder.population, json.dumps(found, indent=2) + "\n")


def make_executor(settings: Mapping[str, Any]) -> Executor:
    """The executor that the settings name."""
    kind = settings["executor"]
    if kind == "auto":
        kind = "ray" if settings["address"] or (os.cpu_count() or 1) > 1 else "inline"
    if kind == "inline":
        from orchestrator.execution.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.execution.ray_tune import RayExecutor

    return RayExecutor(settings["address"], workers=settings["workers"])


def make_mirror(uri: str | None, folder: RunFolder, ledger: Ledger) -> Mirror | None:
    """The MLflow mirror, or None if it is off."""
    if uri == "off":
        return None
    from orchestrator.records.mlflow_mirror import Mirror

    return Mirror(uri or folder.mlflow_uri, ledger)


def attach(mirror: Mirror, sweep: str, folder: RunFolder) -> None:
    """Put plan, report and figures on the sweep's MLflow run."""
    mirror.log_artifacts(sweep, folder.artifacts)


@contextmanager
def cancel_on_signals(cancel: Callable[[], None], say: Callable[[str], object]) -> Iterator[list[str]]:
    """The first SIGINT or SIGTERM asks trials to checkpoint and stop; a second one interrupts at once.

    Yields what was heard: the signal's name, once it came.
    """
    heard: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield heard  # only the main thread may have handlers
        return

    def first(number: int, _: Any) -> None:
        heard.append(signal.Signals(number).name)
        say("\nstopping: running trials write a checkpoint; once more to stop at once")
        signal.signal(number, signal.default_int_handler)
        cancel()

    before = {number: signal.signal(number, first) for number in STOP_SIGNALS.values()}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fill_mirror(
    folder: RunFolder,
    settings: Settings,
    *,
    ledger: str | None = None,
    mlflow: str | None = None,
    rebuild: bool = False,
) -> tuple[Copied, str]:
    """Bring an MLflow store up to date with the ledger of a run, or fill it from nothing.

    Args:
        folder: of the run.
        settings: of the run.
        ledger: another ledger than the run's.
        mlflow: another store than the run's; where that is off, the one in the folder.
        rebuild: throw the sweep's runs away first.

    Returns:
        What was copied, and the store's address.

    Raises:
        MirrorError: the store cannot be reached.
    """
    from orchestrator.records.ledger import Ledger
    from orchestrator.records.mlflow_mirror import Mirror

    store = mlflow or (settings["mlflow"] if settings["mlflow"] != "off" else None) or folder.mlflow_uri
    with Ledger.open(ledger or settings["ledger"] or folder.ledger, create=False) as opened:
        mirror = Mirror(store, opened)
        copied = mirror.rebuild() if rebuild else mirror.catch_up()
        if not copied.busy:
            attach(mirror, settings["sweep"], folder)
    return copied, mirror.store


class _Told:
    """The observer of a run, and who is told of its end."""

    def __init__(self, observer: Observer, notifier: Any = None) -> None:
        self.observer = observer
        self._notifier = notifier

    def ended(self, outcome: Outcome) -> None:
        if self._notifier is not None:
            self._notifier.ended(outcome.stopped_by, outcome.left)


@contextmanager
def _notified(
    made: Plan, folder: RunFolder, settings: Settings, observer: Observer, say: Callable[[str], object]
) -> Iterator[_Told]:
    from orchestrator.notify import Notifier, Several, is_complete

    target = settings["notify"]
    if target is None:
        yield _Told(observer)
        return
    if not is_complete(target):
        say(f"the address of the notification {target} was not kept, since it may be secret: give --notify again")
        yield _Told(observer)
        return
    with Notifier(target, sweep=made.sweep.name, folder=folder.root, warn=say) as notifier:
        yield _Told(Several([observer, notifier]), notifier)
