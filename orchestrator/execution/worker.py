"""What runs a trial, in whatever process: the same function under every executor."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterator

from orchestrator.execution.base import Attempt, AttemptFailed, Ended, Event, Progressed, Started
from orchestrator.execution.failures import Cause
from orchestrator.provenance import environment
from orchestrator.trial import identity
from workloads.progress import BadData, Diverged, Finished, Stopped
from workloads.spec import RunContext, TrialSpec

# What allocators say when memory ends; they share no exception class.
OUT_OF_MEMORY_TEXTS = ("can't allocate memory", "out of memory", "not enough memory", "std::bad_alloc")


def run_attempt(attempt: Attempt, stop: Callable[[], bool] = lambda: False) -> Iterator[Event]:
    """Run one attempt to its end.

    Yields `Started`, `Progressed` and finally `Ended` (finished) or `AttemptFailed` (undecided: the executor asks the
    failure table). Raises nothing that a trial can cause.
    """

    def failed(cause: Cause, error: BaseException) -> AttemptFailed:
        text = "".join(traceback.format_exception(error))
        return AttemptFailed(attempt.trial_id, attempt.number, time.time(), cause, _message(error), text)

    try:
        yield from _run(attempt, stop)
    except Stopped as error:
        yield failed(Cause.STOPPED, error)
    except Diverged as error:
        yield failed(Cause.DIVERGED, error)
    except BadData as error:
        yield failed(Cause.BAD_DATA, error)
    except Exception as error:  # the trial boundary: whatever a trial does ends that trial and no other
        yield failed(Cause.OUT_OF_MEMORY if is_out_of_memory(error) else Cause.BUG, error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ended, on any device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in OUT_OF_MEMORY_TEXTS)


def _run(attempt: Attempt, stop: Callable[[], bool]) -> Iterator[Event]:
    spec = TrialSpec.model_validate(attempt.content)
    # What really runs must be what was planned: engines have handed trials the wrong values before.
    actual = identity(spec.to_json())
    if actual != attempt.trial_id:
        raise RuntimeError(
            f"this worker was asked for trial {attempt.trial_id} but was given {actual}; "
            "is another version of longrange installed here?"
        )
    context = RunContext(
        cache_dir=attempt.cache_dir,
        checkpoint_dir=attempt.checkpoint_dir,
        device="cuda" if attempt.resources.gpus else "cpu",
        threads=max(1, int(attempt.resources.cpus)),
        micro_batch=attempt.micro_batch,
        stop=stop,
    )
    yield Started(
        trial_id=attempt.trial_id,
        attempt=attempt.number,
        at=time.time(),
        host=socket.gethostname(),
        device=context.device,
        micro_batch=attempt.micro_batch,
        environment=environment(),
    )
    workload = spec.workload.open()
    workload.prepare(context)
    for progress in workload.run(spec, context):
        now = time.time()
        if isinstance(progress, Finished):
            yield Ended(attempt.trial_id, attempt.number, now, "finished", progress)
        else:
            yield Progressed(attempt.trial_id, attempt.number, now, progress)


def _message(error: BaseException) -> str:
    return str(error) or type(error).__name__
