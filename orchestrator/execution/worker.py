"""What runs a trial, in whatever process: the same function under every executor."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.events import AttemptFailed, Ended, Event, Paused, Progressed, Started, storable
from orchestrator.execution.base import Attempt, StopFile
from orchestrator.failures import Cause
from orchestrator.provenance import environment
from orchestrator.trial import identity
from workloads.progress import BadData, CheckpointWritten, Diverged, EpochDone, Finished, Progress, Stopped
from workloads.spec import RunContext, TrialSpec

HANGING_EXIT = 75
HISTORY_FILE = "history.jsonl"
NAME_LIMIT = 100  # characters of a metric's name; as wide as the ledger's column

# What allocators say when memory ends; they share no exception class.
OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc")


def run_attempt(attempt: Attempt, stop: Callable[[], bool] = lambda: False, *, rank: int = 0) -> Iterator[Event]:
    """Run one attempt to its end.

    Of several processes that train a trial together (see `group`), each runs this, and `rank` 0 keeps the history.

    Yields `Started`, `Progressed` and finally `Ended` (finished), `Paused` or `AttemptFailed` (undecided: the executor
    asks the failure table). Raises nothing that a trial can cause.
    """

    def failed(cause: Cause, error: BaseException) -> AttemptFailed:
        text = "".join(traceback.format_exception(error))
        return AttemptFailed(attempt.trial_id, attempt.number, time.time(), cause, _message(error), text)

    early = StopFile(attempt.early_file)
    try:
        for event in _run(attempt, lambda: early() or stop(), rank):
            yield event
            early.ask_again()  # the driver has just heard of an epoch: it may have decided
    except Stopped as error:
        yield _stopped_early(attempt, error) if early() else failed(Cause.STOPPED, error)
    except Diverged as error:
        yield failed(Cause.DIVERGED, error)
    except BadData as error:
        yield failed(Cause.BAD_DATA, error)
    except Exception as error:  # the trial boundary: whatever a trial does ends that trial and no other
        yield failed(Cause.OUT_OF_MEMORY if is_out_of_memory(error) else Cause.BUG, error)


def _stopped_early(attempt: Attempt, error: Stopped) -> AttemptFailed:
    assert attempt.early_file is not None
    message = f"{attempt.early_file.read_text(encoding='utf-8')}; {error}"
    return AttemptFailed(attempt.trial_id, attempt.number, time.time(), Cause.STOPPED_EARLY, message)


def hang_marker(attempt: Attempt) -> Path:
    """The file by which a worker that ended itself tells the driver why."""
    return attempt.checkpoint_dir / f"hanging-{attempt.number}"


def watched(attempt: Attempt, events: Iterator[Event]) -> Iterator[Event]:
    """`events`, while a thread ends this process if none comes for `attempt.hang_seconds`.

    A trial that hangs holds its thread, often inside a library or a driver: only the process can be ended.
    """
    if attempt.hang_seconds is None:
        yield from events
        return
    alive, over = threading.Event(), threading.Event()

    def watch() -> None:
        while alive.wait(attempt.hang_seconds):
            if over.is_set():
                return
            alive.clear()
        marker = hang_marker(attempt)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        os._exit(HANGING_EXIT)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        for event in events:
            alive.set()
            yield event
    finally:
        over.set()
        alive.set()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ended, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def _run(attempt: Attempt, stop: Callable[[], bool], rank: int) -> Iterator[Event]:
    spec = _planned(attempt)
    context = _context(attempt, stop)
    yield _started(attempt, context.device)
    workload = spec.workload.open()
    workload.prepare(context)
    history = History(attempt.checkpoint_dir / HISTORY_FILE)
    for progress in map(_recordable, workload.run(spec, context)):
        now = time.time()
        for epoch in history.before(progress):
            yield Progressed(attempt.trial_id, attempt.number, now, epoch, replayed=True)
        if isinstance(progress, Finished):
            yield Ended(attempt.trial_id, attempt.number, now, "finished", progress)
            return
        if rank == 0:
            history.add(progress)
        yield Progressed(attempt.trial_id, attempt.number, now, progress)
    if attempt.pause_after is None:
        raise RuntimeError(f"the workload {spec.workload.name!r} ended the trial without a result")
    for epoch in history.rest():
        yield Progressed(attempt.trial_id, attempt.number, time.time(), epoch, replayed=True)
    yield Paused(attempt.trial_id, attempt.number, time.time())


def _planned(attempt: Attempt) -> TrialSpec:
    """What really runs must be what was planned: engines have handed trials the wrong values before."""
    spec = TrialSpec.model_validate(attempt.content)
    actual = identity(spec.to_json())
    if actual != attempt.trial_id:
        raise RuntimeError(
            f"this worker was asked for trial {attempt.trial_id} but was given {actual}; "
            "is another version of longrange installed here?"
        )
    return spec


def _context(attempt: Attempt, stop: Callable[[], bool]) -> RunContext:
    return RunContext(
        cache_dir=attempt.cache_dir,
        checkpoint_dir=attempt.checkpoint_dir,
        device="cuda" if attempt.resources.gpus else "cpu",
        threads=max(1, int(attempt.resources.cpus)),
        data_workers=attempt.resources.loading_threads,
        micro_batch=attempt.micro_batch,
        stop=stop,
        pause_after=attempt.pause_after,
    )


def _started(attempt: Attempt, device: str) -> Started:
    return Started(
        trial_id=attempt.trial_id,
        attempt=attempt.number,
        at=time.time(),
        host=socket.gethostname(),
        device=device,
        micro_batch=attempt.micro_batch,
        environment=_environment(attempt.resources.workers),
    )


def _recordable(progress: Progress) -> Progress:
    """What a workload tells, as the ledger can keep it: a mistake in it is the trial's, not the whole run's.

    Raises:
        ValueError: a metric whose name or value no table could hold.
    """
    if isinstance(progress, CheckpointWritten):
        return progress
    for name, value in progress.metrics.items():
        _check_metric(name, value)
    if not isinstance(progress, Finished):
        return progress
    for name, samples in progress.samples.items():
        for value in samples:
            _check_metric(name, value)
    known = progress.predictions
    if known is not None:  # named after files, whose names need not be UTF-8
        known = replace(known, clips=tuple(map(storable, known.clips)))
    return replace(progress, predictions=known, notes=tuple(map(storable, progress.notes)))


def _check_metric(name: str, value: float) -> None:
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= NAME_LIMIT:
        raise ValueError(f"a metric's name has 1 to {NAME_LIMIT} letters that can be printed, given {name!r}")
    try:
        float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the metric {name!r} must be a number, given {value!r}") from error


def _environment(workers: int) -> Mapping[str, Any]:
    """Where the trial runs; how many train it together is a fact of that too, where it is more than one."""
    return environment() if workers == 1 else {**environment(), "workers": workers}


class History:
    """A trial's epochs, kept beside its checkpoints.

    A worker can die after a checkpoint and before its driver heard of the epochs in it. The next attempt starts
    behind them, so they are told again from here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)

    def before(self, progress: Progress) -> list[EpochDone]:
        """The epochs of earlier attempts on which the first `progress` of this one builds; nothing after that."""
        first = math.inf if isinstance(progress, Finished) else progress.epoch
        known, self._known = self._known, {}
        return [known[epoch] for epoch in sorted(known) if epoch < first]

    def rest(self) -> list[EpochDone]:
        """The epochs of earlier attempts, if this one had nothing to add to them."""
        known, self._known = self._known, {}
        return [known[epoch] for epoch in sorted(known)]

    def add(self, progress: Progress) -> None:
        """Keep an epoch; called before the checkpoint that follows it is written."""
        if isinstance(progress, EpochDone):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"\n{json.dumps(asdict(progress))}\n")  # a line of its own, also after half a one

    def hand_on(self, heir: History, epochs: int) -> None:
        """Give another trial, which goes on from this one's checkpoint, the first `epochs` epochs."""
        for epoch in range(epochs):
            if epoch in self._known and epoch not in heir._known:
                heir.add(self._known[epoch])


def _read(path: Path) -> dict[int, EpochDone]:
    """The newest version of every epoch; a line cut off by a kill is not there yet."""
    epochs = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            epoch = EpochDone(**json.loads(line))
        except ValueError:
            continue
        epochs[epoch.epoch] = epoch
    return epochs


def _message(error: BaseException) -> str:
    return str(error) or type(error).__name__
