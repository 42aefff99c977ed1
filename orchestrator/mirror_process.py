"""The mirror beside a run: a process of its own, of low priority, that copies while the driver drives.

MLflow takes more processor time per trial than everything else the driver does, and more memory than the driver has
in all. Nothing waits for this process but the end of the run; it ends with the driver, whatever ends that.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Self

from orchestrator.errors import MirrorError

NICENESS = 10


class MirrorProcess:
    """Catches a mirror up from another process. Use as a context manager.

    Args:
        uri: MLflow's tracking URI.
        ledger: path or URL, as for `Ledger.open`.
    """

    def __init__(self, uri: str, ledger: str | Path) -> None:
        # Not on the command line, which everybody on the machine may read: both may hold a password.
        self._task = json.dumps({"uri": uri, "ledger": str(ledger)})
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()  # between two rounds, or in one that its driver no longer wants: no copy is half
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    _of(stream).close()
            self._process = None

    def catch_up(self) -> None:
        """Copy what the ledger has and the store has not; returns when that is done.

        Raises:
            MirrorError: the store does not answer, or the process died; a later call tries again.
        """
        if self._process is None or self._process.poll() is not None:
            self.__exit__()
            self._process = _start()
            self._say(self._task)
        self._say("catch up")
        answer = _of(self._process.stdout).readline()
        if not answer:
            raise MirrorError("the process that fills the mirror ended")
        error = json.loads(answer)["error"]
        if error is not None:
            raise MirrorError(error)

    def _say(self, line: str) -> None:
        assert self._process is not None
        try:
            _of(self._process.stdin).write(line + "\n")
            _of(self._process.stdin).flush()
        except BrokenPipeError as error:
            raise MirrorError("the process that fills the mirror ended") from error


def _start() -> subprocess.Popen[str]:
    # The modules of this very process, not those of a folder that one stands in: that may be another checkout.
    command = [sys.executable, "-P", "-m", "orchestrator.mirror_process"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe = subprocess.PIPE
    # Ctrl-C is for the driver, which lets the copy end; what libraries print is for nobody.
    return subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=environment,
    )


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def serve() -> None:
    """Answer each line of the input with the outcome of one round; the first line says what to copy where."""
    os.nice(NICENESS)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # libraries print there

    from orchestrator.errors import LongrangeError
    from orchestrator.records.ledger import Ledger
    from orchestrator.records.mlflow_mirror import Mirror

    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    task = json.loads(lines.get())
    mirror = None
    while lines.get():
        try:
            mirror = mirror or Mirror(task["uri"], Ledger.open(task["ledger"], create=False))
            mirror.catch_up()
            error = None
        except LongrangeError as problem:
            error = str(problem)
        print(json.dumps({"error": error}), file=answers, flush=True)


def _read(lines: SimpleQueue[str]) -> None:
    """What the driver says; when it is gone, so is this process, whatever it does."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


if __name__ == "__main__":
    serve()
