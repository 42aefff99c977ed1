"""Telling people how a run goes: a command that gets JSON on its standard input, or the same JSON posted to a URL.

A notice is a mapping, the same for both:

    {"event": "finished",                                     one of `EVENTS`
     "sweep": "rnl-table-2a", "folder": "/runs/rnl-table-2a", "host": "box1", "at": 1767225600.0,
     "message": "12 finished; 0 left",                        for people
     "ran": {"finished": 12}, "reused": 0, "left": 0}          trials by state, so far

Notices are delivered by a thread of their own. One that fails is told once, and never stops or delays a run for more
than `LAST_SECONDS` at its end. Addresses may hold secrets (a chat's webhook is one): messages and files show only what
`shown` leaves of them.
"""

from __future__ import annotations

import base64
import http.client
import json
import queue
import shlex
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, unquote, urlsplit

from orchestrator.errors import UserError
from orchestrator.events import Ended, Event
from orchestrator.provenance import HIDDEN

EVENTS = {
    "failure": "the first trial of this run failed; later ones are counted in the notices that follow",
    "budget": "a limit of the sweep's budget was reached, and the run ended",
    "stopped": "the run was asked to stop, and ended",
    "finished": "every trial has ended",
    "error": "the driver could not go on",
}
SECONDS = 20.0  # a command or a server may take so long
LAST_SECONDS = 30.0
FAULTS = ("failed", "infeasible")


class Notifier:
    """Watches a run (`orchestrator.driver.Observer`) and tells `target` about it. A context manager.

    Args:
        target: a command line, run without a shell, or an http(s) URL.
        sweep: named in every notice.
        folder: named in every notice.
        warn: is told once why notices do not arrive.
        seconds: how long one delivery may take.

    Raises:
        UserError: another kind of URL, or a command line that cannot be read.
    """

    def __init__(
        self, target: str, *, sweep: str, folder: Path, warn: Callable[[str], object], seconds: float = SECONDS
    ) -> None:
        self._deliver = _delivery(target, seconds)
        self._name = shown(target)
        self._about = {"sweep": sweep, "folder": str(folder), "host": socket.gethostname()}
        self._warn = warn
        self._ran: Counter[str] = Counter()
        self._reused = self._todo = 0
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._keep_delivering, name="notify", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._tell("error", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        self._queue.put(None)
        self._thread.join(LAST_SECONDS)

    def planned(self, plan: object, todo: int, reused: int) -> None:
        """Take note of what there is to do."""
        self._todo, self._reused = todo, reused

    def event(self, event: Event) -> None:
        """Count ends; the first failure is worth a notice."""
        if not isinstance(event, Ended):
            return
        self._ran[event.state] += 1
        if event.state in FAULTS and sum(self._ran[state] for state in FAULTS) == 1:
            cause = event.cause.value if event.cause else event.state
            self._tell("failure", f"trial {event.trial_id}: {cause}: {event.message}")

    def ended(self, stopped_by: str | None, left: int) -> None:
        """The run is over: `left` trials did not start, because of `stopped_by`."""
        kind = "budget" if (stopped_by or "").startswith("budget") else "stopped" if left else "finished"
        counts = ", ".join(f"{count} {state}" for state, count in sorted(self._ran.items())) or "nothing to run"
        self._tell(kind, f"{counts}; {left} left" + (f" ({stopped_by})" if stopped_by else ""))

    def _tell(self, kind: str, message: str) -> None:
        counts = {"ran": dict(self._ran), "reused": self._reused, "left": self._todo - sum(self._ran.values())}
        self._queue.put({"event": kind, **self._about, "at": time.time(), "message": message, **counts})

    def _keep_delivering(self) -> None:
        warned = False
        while (notice := self._queue.get()) is not None:
            try:
                self._deliver(notice)
            except (OSError, subprocess.SubprocessError, http.client.HTTPException, ValueError) as error:
                if not warned:
                    self._warn(f"the notification {self._name} does not arrive: {_reason(error)}; the run goes on")
                warned = True


class Several:
    """Observers as one."""

    def __init__(self, observers: Sequence[Any]) -> None:
        self._observers = observers

    def planned(self, plan: Any, todo: int, reused: int) -> None:
        for observer in self._observers:
            observer.planned(plan, todo, reused)

    def event(self, event: Event) -> None:
        for observer in self._observers:
            observer.event(event)


def shown(target: str) -> str:
    """A target for files and messages: the server of a URL, the program of a command; nothing that may be secret.

    Raises:
        UserError: it cannot be read.
    """
    if "://" in target.split(" ", 1)[0]:
        parts = _parts(target)
        return f"{parts.scheme}://{parts.hostname or ''}/{HIDDEN}"
    words = _words(target)
    return words[0] if len(words) == 1 else f"{words[0]} {HIDDEN}"


def is_complete(remembered: str | None) -> bool:
    """Whether what `shown` left can still be used: a program without arguments can."""
    return remembered is not None and HIDDEN not in remembered


def _delivery(target: str, seconds: float) -> Callable[[Mapping[str, Any]], None]:
    scheme, separator, _ = target.partition("://")
    if separator and scheme.isalnum():
        if scheme.lower() not in ("http", "https") or not _parts(target).hostname:
            raise UserError(
                f"--notify takes a command, or a URL that begins with https:// or http://, given {scheme}://"
            )
        return lambda notice: _post(target, notice, seconds)
    words = _words(target)
    return lambda notice: _call(words, notice, seconds)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"--notify: the command cannot be read: {error}") from None
    if not words:
        raise UserError("--notify takes a command or a URL, given nothing; leave it out for no notification")
    return words


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise UserError(f"--notify: the URL cannot be read: {error}") from None


def _call(words: Sequence[str], notice: Mapping[str, Any], seconds: float) -> None:
    done = subprocess.run(words, input=json.dumps(notice).encode(), capture_output=True, timeout=seconds, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise ValueError(f"it ended with exit code {done.returncode} {said[0][:200]}".rstrip())


class _Stay(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET somewhere else: it is an error instead."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(url: str, notice: Mapping[str, Any], seconds: float) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "longrange"}
    login, at, server = (parts := urlsplit(url)).netloc.rpartition("@")
    if at:  # urllib takes it for a part of the server's name
        headers["Authorization"] = f"Basic {base64.b64encode(unquote(login).encode()).decode()}"
        url = parts._replace(netloc=server).geturl()
    request = urllib.request.Request(url, json.dumps(notice).encode(), headers, method="POST")
    with urllib.request.build_opener(_Stay).open(request, timeout=seconds):
        pass


def _reason(error: Exception) -> str:
    """Without the address: exceptions of both libraries may quote it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, subprocess.TimeoutExpired | TimeoutError):
        return f"it takes longer than {getattr(error, 'timeout', SECONDS):g} s"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, ValueError) else type(error).__name__
