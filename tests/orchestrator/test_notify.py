"""Notices arrive as JSON, by command and by post; what goes wrong with them is told once and harms no run."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import LedgerError, UserError
from orchestrator.events import Ended
from orchestrator.failures import Cause
from orchestrator.notify import EVENTS, Notifier, is_complete, shown
from orchestrator.provenance import without_secrets

HOOK = "import sys, pathlib; pathlib.Path(sys.argv[1]).open('a').write(sys.stdin.read() + '\\n')"


class Server(ThreadingHTTPServer):
    """Keeps what is posted; answers with `status` after `delay` seconds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.status, self.delay = 200, 0.0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), json.loads(body)))
        time.sleep(self.server.delay)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers), None))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Not on the tests' output."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def warnings() -> list[str]:
    return []


def notifier(target: str, warnings: list[str], **options: Any) -> Notifier:
    return Notifier(target, sweep="t", folder=Path("/runs/t"), warn=warnings.append, **options)


def failed(number: int) -> Ended:
    return Ended(f"{number:016x}", 1, 1.0, "failed", None, Cause.BUG, "KeyError: 'ü'")


def finished(number: int) -> Ended:
    return Ended(f"{number:016x}", 1, 1.0, "finished")


def test_a_hook_gets_json_on_its_input_without_a_shell(tmp_path: Path, warnings: list[str]) -> None:
    file = tmp_path / "a file; touch pwned"
    with notifier(f'"{sys.executable}" -c "{HOOK}" "{file}"', warnings) as told:
        told.planned(None, 3, 1)
        for event in (finished(1), failed(2), failed(3)):
            told.event(event)
        told.ended(None, 0)
    notices = [json.loads(line) for line in file.read_text().splitlines()]
    assert [notice["event"] for notice in notices] == ["failure", "finished"], "one failure stands for all"
    assert notices[0]["message"] == "trial 0000000000000002: bug: KeyError: 'ü'"
    assert notices[0]["left"] == 1
    last = notices[1]
    assert (last["sweep"], last["folder"], last["ran"]) == ("t", "/runs/t", {"finished": 1, "failed": 2})
    assert (last["reused"], last["left"], last["message"]) == (1, 0, "2 failed, 1 finished; 0 left")
    assert warnings == []
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("stopped_by", "left", "event"),
    [
        ("budget wall_hours: 1 of 1", 2, "budget"),
        ("longrange cancel", 2, "stopped"),
        (None, 2, "stopped"),
        (None, 0, "finished"),
    ],
)
def test_ends_have_names(server: Server, warnings: list[str], stopped_by: str, left: int, event: str) -> None:
    with notifier(f"http://127.0.0.1:{server.server_port}/hook", warnings) as told:
        told.ended(stopped_by, left)
    ((path, headers, notice),) = server.requests
    assert (path, headers["Content-Type"], notice["event"]) == ("/hook", "application/json", event)
    assert event in EVENTS
    assert (stopped_by or "") in notice["message"]


def test_an_error_of_the_driver_is_told_and_still_raised(server: Server, warnings: list[str]) -> None:
    with (
        pytest.raises(LedgerError, match="disk is full"),
        notifier(f"http://127.0.0.1:{server.server_port}/hook", warnings),
    ):
        raise LedgerError("the disk is full")
    assert server.requests[0][2]["message"] == "LedgerError: the disk is full"


def test_a_login_in_the_url_becomes_a_header(server: Server, warnings: list[str]) -> None:
    with notifier(f"http://me:p%40ss@127.0.0.1:{server.server_port}/hook?key=1", warnings) as told:
        told.ended(None, 0)
    path, headers, _ = server.requests[0]
    assert (path, headers["Authorization"]) == ("/hook?key=1", "Basic bWU6cEBzcw==")


def test_a_redirect_is_not_followed(server: Server, warnings: list[str]) -> None:
    server.status = 302
    with notifier(f"http://127.0.0.1:{server.server_port}/hook", warnings) as told:
        told.ended(None, 0)
    assert [path for path, *_ in server.requests] == ["/hook"]
    assert "the server answers 302" in warnings[0]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://127.0.0.1:9/T0/hidden-word", "refused"),
        ("http://me:hidden-word@127.0.0.1:9/", "refused"),
        ("/no/such/program --key hidden-word", "No such file"),
        (f"{sys.executable} -c 'import sys; sys.exit(3)' hidden-word", "exit code 3"),
        (f"{sys.executable} -c 'import time; time.sleep(60)' hidden-word", "longer than 0.5 s"),
    ],
)
def test_what_goes_wrong_is_told_once_without_secrets(target: str, reason: str, warnings: list[str]) -> None:
    with notifier(target, warnings, seconds=0.5) as told:
        told.planned(None, 2, 0)
        told.event(failed(1))
        told.ended(None, 0)
    assert len(warnings) == 1
    assert reason in warnings[0]
    assert "hidden-word" not in warnings[0]


def test_a_slow_server_does_not_hold_up_events(server: Server, warnings: list[str]) -> None:
    server.delay = 5.0
    with notifier(f"http://127.0.0.1:{server.server_port}/hook", warnings, seconds=0.5) as told:
        before = time.monotonic()
        told.event(failed(1))
        assert time.monotonic() - before < 0.4
    assert "longer than" in warnings[0] or "timed out" in warnings[0]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://host/x", "https:///path", "", "  ", "tell 'me"])
def test_other_targets_are_refused_at_once(target: str, warnings: list[str]) -> None:
    with pytest.raises(UserError, match="--notify"):
        notifier(target, warnings)


@pytest.mark.parametrize(
    ("target", "kept", "complete"),
    [
        ("https://hooks.slack.com/services/T0/B0/secret?x=1", "https://hooks.slack.com/***", False),
        ("https://me:pw@host:8443/x", "https://host/***", False),
        ("/usr/bin/tell --token secret", "/usr/bin/tell ***", False),
        ("/usr/bin/tell", "/usr/bin/tell", True),
    ],
)
def test_files_keep_nothing_that_may_be_secret(target: str, kept: str, complete: bool) -> None:
    assert shown(target) == kept
    assert is_complete(kept) is complete


def test_the_ledgers_command_line_does_not_hold_the_address() -> None:
    given = [
        "longrange",
        "run",
        "--notify",
        "https://hooks.slack.com/services/T0",
        "--notify=https://chat/x",
        "--quiet",
    ]
    assert list(without_secrets(given, {})) == ["longrange", "run", "--notify", "***", "--notify=***", "--quiet"]
    environ = {"LONGRANGE_NOTIFY": "https://chat/x"}
    assert list(without_secrets(["curl", "https://chat/x"], environ)) == ["curl", "***"]


@pytest.mark.parametrize("target", ["", "  ", "unclosed 'quote", "https://[::1/hook"])
def test_what_cannot_be_a_target_is_said_before_the_run_is_remembered(target: str) -> None:
    with pytest.raises(UserError, match=r"^--notify"):
        shown(target)
