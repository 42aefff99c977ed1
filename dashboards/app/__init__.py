"""The dashboard: a Dash app on one ledger, read-only. `longrange ui` starts it.

What an address shows is a function of the address and the ledger (`view.py`): one callback renders it, controls only
change the address. So a link reproduces a view, the back button undoes a choice, and when the ledger changes the same
address is rendered again without losing what was chosen.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import dash
from werkzeug.serving import WSGIRequestHandler, make_server

from dashboards.app.forged import refuse_forged
from dashboards.app.layout import build
from dashboards.app.security import check, is_loopback, protect
from dashboards.app.store import Store, warm
from orchestrator.errors import UserError

REFRESH_SECONDS = 3.0
MOST_PORT = 65535
SWITCH_SECONDS = 0.0005


def create(
    ledger: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    auth_token: str | None = None,
    refresh: float = REFRESH_SECONDS,
) -> dash.Dash:
    """The app on `ledger`, ready for any WSGI server (`.server`).

    Args:
        ledger: its file, the run folder that holds it, or a database URL.
        host: what the server will be bound to; anything but loopback needs a token.
        auth_token: what visitors must show.
        refresh: seconds between looks at whether the ledger changed.

    Raises:
        UserError: a host that is not loopback without a token; no ledger there.
        LedgerError: it is locked or cannot be read.
    """
    check(host, auth_token)
    return _guarded(Store(ledger), auth_token, refresh)


def serve(
    ledger: str | os.PathLike[str], *, host: str = "127.0.0.1", port: int = 8050, auth_token: str | None = None
) -> None:
    """Show `ledger` until interrupted.

    Args:
        ledger: its file, the run folder that holds it, or a database URL.
        host: interface to listen on; anything but loopback needs `auth_token`.
        port: where; 0 takes a free one.
        auth_token: what visitors must show.

    Raises:
        UserError: as `create`, or the address cannot be listened on.
    """
    if not 0 <= port <= MOST_PORT:
        raise UserError(f"--port must be between 0 and {MOST_PORT}, given {port}")
    check(host, auth_token)
    store = Store(ledger)
    app = _guarded(store, auth_token, REFRESH_SECONDS)
    server = listen(app, host, port)
    shown = f"[{host}]" if ":" in host else host
    asks = "" if auth_token is None else " (asks for the token)"
    reach = "this machine only" if is_loopback(host) else "every machine that reaches this one"
    print(f"dashboard on http://{shown}:{server.port}/ for {reach}{asks}; Ctrl-C stops it", flush=True)
    # Beside a thread that computes, each read and write of a request waits so long for its turn; Python's 5 ms add up.
    sys.setswitchinterval(SWITCH_SECONDS)
    threading.Thread(target=warm, args=(store,), daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def _guarded(store: Store, auth_token: str | None, refresh: float) -> dash.Dash:
    app = build(store, refresh)
    protect(app.server, auth_token, app.csp_hashes)
    refuse_forged(app)
    return app


def listen(app: dash.Dash, host: str, port: int) -> Any:
    """A server for `app` with a thread per request, not yet running.

    Raises:
        UserError: the address is taken or not this machine's.
    """
    if not is_loopback(host) and not host:
        raise UserError("--host is empty; give an address of this machine")
    try:
        return make_server(host.strip("[]"), port, app.server, threaded=True, request_handler=_Quiet)
    except SystemExit:  # how werkzeug says that the port is taken
        raise UserError(f"port {port} of {host} is taken; choose another with --port (0 takes a free one)") from None
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error


class _Quiet(WSGIRequestHandler):
    """Requests are not logged: a dashboard asks every few seconds."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any, **__: Any) -> None:
        return
