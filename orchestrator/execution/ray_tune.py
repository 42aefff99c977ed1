"""Trials under Ray Tune, on this machine or a cluster. With `ray_group`, the only importer of ray.

Tune schedules *jobs*: lists of attempts that one actor runs one after another. Actors are reused between jobs, so a
job costs no process start; short trials share a job, so that Tune's own bookkeeping (a few milliseconds per Tune
trial) stays small beside them. Long trials are jobs of their own. Retries are new jobs, decided by the failure
table here in the driver; Tune's own retry, checkpoint and logging machinery is off, because the ledger is the truth.

Workers need no database: events travel to the driver inside Tune's results and come out of `run` in order.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

from orchestrator.errors import LongrangeError, UserError
from orchestrator.events import AttemptFailed, Ended, Event, Paused, Started
from orchestrator.execution.base import Attempt, Further, Resources, StopFile, follow_up, nothing_further
from orchestrator.execution.group import supervise
from orchestrator.execution.packing import Job, packed
from orchestrator.execution.places import unplaceable
from orchestrator.execution.ray_address import check_answers, check_loopback, loopback
from orchestrator.execution.worker import hang_marker, run_attempt, watched
from orchestrator.failures import Cause

# Before ray is imported: no usage reports, no per-trial log files, no periodic experiment snapshots.
for _name, _value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "4",
    "RAY_AIR_NEW_OUTPUT": "0",
    # After a shutdown a thread of Tune may still ask Ray something: that must not start a second Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.search import Searcher  # noqa: E402

LEAVING = "asked to go"  # says a worker that got SIGTERM, when it has told everything
STEP_SECONDS = 0.25  # how long a worker gathers events before it reports

LOGGER = logging.getLogger("longrange")


class RayExecutor:
    """Runs trials under Ray Tune.

    Args:
        address: `None` starts Ray on this machine and stops it at exit; `auto` or an address joins a cluster.
        workers: trials at once on a local Ray; None is one per CPU core.
    """

    def __init__(self, address: str | None = None, *, workers: int | None = None) -> None:
        self._address = None if address in (None, "local") else address
        self._workers = workers or os.cpu_count() or 1
        self._feed = _Feed()
        self._events: SimpleQueue[Event | BaseException | None] = SimpleQueue()
        self._stop_file: Path | None = None
        self._started = False

    def __enter__(self) -> Self:
        logging.getLogger("ray").setLevel(logging.ERROR)
        # Tune reports as errors what the failure table answers, and misses log files that are off on purpose.
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if self._address:
                check_answers(self._address)
                ray.init(address=self._address, **quiet)
            else:
                check_loopback()
                # Said, since without it Ray would join whatever cluster was started on this machine.
                ray.init("local", num_cpus=self._workers, include_dashboard=False, **loopback(), **quiet)
        except LongrangeError:
            raise
        except Exception as error:  # Ray raises that very class, e.g. where a machine is too busy to start a node
            raise LongrangeError(f"cannot start or reach Ray at {self._address or 'this machine'}: {error}") from error
        self._started = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            ray.shutdown()
            self._started = False

    def run(self, attempts: Sequence[Attempt], further: Further = nothing_further) -> Iterator[Event]:
        attempts = attempts or further() or ()
        if not attempts:
            return
        stop_file = attempts[0].checkpoint_dir.parent / f".stop-{uuid.uuid4().hex}"
        self._stop_file = stop_file

        def jobs(attempts: Sequence[Attempt]) -> list[Job]:
            self._check_places(attempts)
            return packed([replace(attempt, stop_file=stop_file) for attempt in attempts], self._workers)

        self._feed.put(jobs(attempts))
        self._feed.further = lambda: None if (more := further()) is None else jobs(more)
        with tempfile.TemporaryDirectory(prefix="longrange-tune-") as folder:
            tuning = threading.Thread(target=self._tune, args=(folder,), name="tune", daemon=True)
            tuning.start()
            yield from self._drain()
            tuning.join()
        stop_file.unlink(missing_ok=True)

    def _check_places(self, attempts: Sequence[Attempt]) -> None:
        """Refuse what a local Ray can never place; a cluster may still grow, so there it is only said."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        for needs in {attempt.resources for attempt in attempts}:
            if (wrong := unplaceable(needs, nodes)) is None:
                continue
            if self._address is None:
                raise UserError(f"{wrong}: change `resources` in the sweep (--workers says how many CPUs Ray gets)")
            LOGGER.warning("%s: such trials wait until a node that has them joins", wrong)

    def cancel(self) -> None:
        self._feed.cancelled = True
        if self._stop_file is not None:
            self._stop_file.parent.mkdir(parents=True, exist_ok=True)
            self._stop_file.touch()

    def _drain(self) -> Iterator[Event]:
        while (item := self._events.get()) is not None:
            if isinstance(item, BaseException):
                raise LongrangeError(f"Ray Tune stopped: {item}") from item
            yield item

    def _tune(self, folder: str) -> None:
        try:
            self._tuner(folder).fit()
        except BaseException as error:  # carried to the driver's thread and raised there
            self._events.put(error)
        self._events.put(None)

    def _tuner(self, folder: str) -> tune.Tuner:
        return tune.Tuner(
            tune.with_resources(_Worker, _placement),
            tune_config=tune.TuneConfig(
                search_alg=_Searcher(self._feed),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=folder,
                verbose=0,
                callbacks=[_Listener(self._feed, self._events)],
                failure_config=tune.FailureConfig(max_failures=0),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )


class _Unsaved:
    """Tune pickles what it is given, for a resume that we do not use; these stay what they are."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class _Feed:
    """Jobs that wait and jobs that run; Tune's searcher takes from it, failed attempts come back to it."""

    def __init__(self) -> None:
        self._waiting: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._complete = False  # no more jobs will come
        self.further: Callable[[], Sequence[Job] | None] = nothing_further
        self.cancelled = False

    @property
    def finished(self) -> bool:
        return not self._running and (self.cancelled or (self._complete and not self._waiting))

    def put(self, jobs: Sequence[Job]) -> None:
        self._waiting.extend(jobs)

    def put_first(self, job: Job) -> None:
        if job:
            self._waiting.appendleft(job)

    def take(self, tune_id: str) -> Job | None:
        """The next job; None if there is none at the moment."""
        if not (self.cancelled or self._waiting or self._complete):
            more = self.further()
            self._complete = more is None
            self.put(more or ())
        if self.cancelled or not self._waiting:
            return None
        job = self._waiting.popleft()
        self._running[tune_id] = list(job)
        return job

    def settle(self, tune_id: str, trial_id: str) -> Attempt:
        """An attempt of a running job is over."""
        job = self._running[tune_id]
        return job.pop(next(index for index, attempt in enumerate(job) if attempt.trial_id == trial_id))

    def over(self, tune_id: str) -> Job:
        """A job is over; the attempts it did not settle."""
        return self._running.pop(tune_id, [])


class _Searcher(_Unsaved, Searcher):  # type: ignore[misc]
    """Hands the feed's jobs to Tune as configurations."""

    def __init__(self, feed: _Feed) -> None:
        super().__init__()
        self._feed = feed

    def suggest(self, trial_id: str) -> Any:
        job = self._feed.take(trial_id)
        if job is not None:
            return {"job": _Packed(pickle.dumps(job)), "resources": job[0].resources}
        return Searcher.FINISHED if self._feed.finished else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Nothing to learn here: the listener has seen every event."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger knows what is left to do."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Tune's own resume is not used."""


class _Listener(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Turns Tune's results and errors into our events, and failed attempts into new jobs."""

    def __init__(self, feed: _Feed, events: SimpleQueue[Event | BaseException | None]) -> None:
        self._feed = feed
        self._events = events
        self._leaving: set[str] = set()  # jobs whose worker was asked to go, and has told everything

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        # Taken out, since Tune keeps results; it allows callbacks to change them.
        if result.pop(LEAVING):
            self._leaving.add(trial.trial_id)
        for event in pickle.loads(result.pop("events")):
            if isinstance(event, AttemptFailed):
                self._follow(self._feed.settle(trial.trial_id, event.trial_id), event)
                continue
            if isinstance(event, Ended | Paused):
                self._feed.settle(trial.trial_id, event.trial_id)
            self._events.put(event)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        # A cancelled job ends early: what was not begun stays.
        self._feed.put_first(self._feed.over(trial.trial_id))
        _forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """The worker died. A job runs in order: its first open attempt was running, the others had not begun."""
        open_attempts = self._feed.over(trial.trial_id)
        begun = 0 if trial.trial_id in self._leaving else 1
        self._leaving.discard(trial.trial_id)
        self._feed.put_first(open_attempts[begun:])
        for attempt in open_attempts[:begun]:
            cause, message = Cause.LOST, "the worker process or its node was lost"
            if hang_marker(attempt).exists():
                cause, message = Cause.HANGING, f"no progress for {attempt.hang_seconds:g} s; the worker was ended"
            self._follow(attempt, AttemptFailed(attempt.trial_id, attempt.number, time.time(), cause, message))
        _forget(trial)

    def _follow(self, attempt: Attempt, failed: AttemptFailed) -> None:
        events, following = follow_up(attempt, failed)
        for event in events:
            self._events.put(event)
        if following is not None:
            self._feed.put_first([following])


def _forget(trial: Any) -> None:
    """Let go of a Tune trial's job: Tune keeps its trials, thousands of them, to the end of the sweep."""
    trial.config["job"].content = b""
    trial.invalidate_json_state()


class _Worker(tune.Trainable):  # type: ignore[misc]
    """One actor. A job is one Tune trial; each step reports what happened since the last one."""

    def setup(self, config: dict[str, Any]) -> None:
        self._terminated = threading.Event()
        self._leaving = False
        # Preemption says SIGTERM first; Ray's own handler would exit at once and lose the work since the checkpoint.
        signal.signal(signal.SIGTERM, lambda *_: self._terminated.set())
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._leaving:  # by an error, after which Tune uses this process no more; else it would get further jobs
            raise RuntimeError(LEAVING)
        self.config: dict[str, Any] = {}  # else every result would carry the job back to the driver
        events: list[Event] = []
        report_at = time.monotonic() + STEP_SECONDS
        over = True
        for event in self._events:
            events.append(event)
            if time.monotonic() >= report_at or (self._long and isinstance(event, Started)):
                over = False
                break
        self._leaving = over and self._terminated.is_set()
        return {"events": pickle.dumps(events), LEAVING: self._leaving, "done": over and not self._leaving}

    def _begin(self, config: dict[str, Any]) -> None:
        job: Job = pickle.loads(config["job"].content)
        # The next event of a long trial is an epoch away: say at once that it has started.
        self._long = job[0].estimated_seconds is None or job[0].estimated_seconds > 1.0
        self._events = _run_job(job, self._terminated)


class _Packed:
    """Bytes with a short text form: Tune makes names out of the text form of configurations."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __repr__(self) -> str:
        return "job"


def _run_job(job: Job, terminated: threading.Event) -> Iterator[Event]:
    for attempt in job:
        cancelled = StopFile(attempt.stop_file)
        if cancelled() or terminated.is_set():
            return
        if (wrong := misplaced(attempt.resources)) is not None:
            yield AttemptFailed(attempt.trial_id, attempt.number, time.time(), Cause.BUG, wrong)
            continue
        for event in _attempt_events(attempt, lambda: cancelled() or terminated.is_set()):  # noqa: B023
            if isinstance(event, AttemptFailed) and event.cause is Cause.STOPPED and not cancelled():
                # This machine goes away, the trial does not: it resumes elsewhere from what it has just written.
                event = replace(event, cause=Cause.LOST, message="the worker was asked to go (SIGTERM)")
            yield event


def misplaced(needs: Resources) -> str | None:
    """What is wrong with the resources that Ray gave this process; None if they are those of the plan.

    A reused actor must not run a trial that was planned for another kind of place. Members of a crew are placed one by
    one, their watcher holds nothing.
    """
    held = ray.get_runtime_context().get_assigned_resources()
    planned = {"CPU": needs.cpus, "GPU": needs.gpus} if needs.workers == 1 else {}
    if all(abs(held.get(kind, 0.0) - planned.get(kind, 0.0)) < 1e-3 for kind in ("CPU", "GPU")):
        return None
    return f"this worker was given {held}, the plan says {planned}"


def _attempt_events(attempt: Attempt, stop: Callable[[], bool]) -> Iterator[Event]:
    """One attempt in this process, or in a crew of processes that this one watches over."""
    if attempt.resources.workers == 1:
        return watched(attempt, run_attempt(attempt, stop))
    from orchestrator.execution.ray_group import RayCrew

    return supervise(attempt, RayCrew(), stop)


def _placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """One bundle for the worker itself, or an empty one for it and one for each process that it watches over."""
    needs: Resources = config["resources"]
    own = {"CPU": needs.cpus, "GPU": needs.gpus}
    return tune.PlacementGroupFactory([own] if needs.workers == 1 else [{}, *[own] * needs.workers])
