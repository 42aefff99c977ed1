"""Who may look: loopback only, or a token; and what browsers are told about every answer.

Without a token the server is bound to loopback and answers only to loopback names: a page elsewhere whose name was
made to point here (DNS rebinding) is refused. With a token each visitor shows it once, as `?token=...`, in the form,
or as `Authorization: Bearer ...`; from then on a cookie says so. The cookie holds a code made from the token and a
secret of this process, never the token, and scripts cannot read it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from flask import Flask, Request, Response, make_response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from orchestrator.errors import UserError

COOKIE = "longrange"
SIGN_IN = "/sign-in"
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title} · longrange</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>body{{font:16px/1.5 system-ui,sans-serif;
max-width:34rem;margin:12vh auto;padding:0 20px;color:#1c2430}}input,button{{font:inherit;padding:6px 10px}}</style>
</head><body><h1>{title}</h1><p>{text}</p>{form}</body></html>"""
FORM = """<form method="post" action="{action}"><label>Token <input type="password" name="token" autofocus required
autocomplete="current-password"></label> <button>Open the dashboard</button></form>"""


def is_loopback(host: str) -> bool:
    """Does only this machine reach a server bound to `host`?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check(host: str, token: str | None) -> None:
    """Refuse to serve strangers.

    Raises:
        UserError: the host is not loopback and there is no token, or the token is blank.
    """
    if token is not None and not token.strip():
        raise UserError("--auth-token is empty; give a long random text, or leave it out to serve this machine only")
    if token is None and not is_loopback(host):
        raise UserError(
            f"--host {host} lets other machines in: add --auth-token TOKEN (or LONGRANGE_UI_TOKEN) to say who may "
            "look, or leave --host out to serve this machine only"
        )


def protect(server: Flask, token: str | None, script_hashes: Callable[[], Sequence[str]]) -> None:
    """Guard every request of `server`, and add the security headers to every answer.

    Args:
        server: what to guard.
        token: what visitors must show; None for loopback names only.
        script_hashes: of the inline scripts that may run (Dash's own).
    """
    secret = secrets.token_bytes(32)

    def guard() -> AnyResponse | None:
        return _only_loopback() if token is None else _only_with(token, secret)

    def finish(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy(script_hashes())
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if response.mimetype in ("text/html", "application/json"):
            response.headers["Cache-Control"] = "no-store"
        return response

    server.before_request(guard)
    server.after_request(finish)


def policy(script_hashes: Sequence[str]) -> str:
    """The content security policy: everything from here, no inline script but Dash's own, no frames around us."""
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src 'self' {' '.join(script_hashes)}".strip(),
            "style-src 'self' 'unsafe-inline'",  # Plotly and React write style elements and attributes
            "img-src 'self' data: blob:",  # strips are data images; Plotly makes a picture through a blob
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def _only_loopback() -> AnyResponse | None:
    name = urlsplit(f"//{request.host}").hostname or ""
    if name in LOOPBACK_NAMES or is_loopback(name):
        return None
    text = (
        "This dashboard answers only to this machine's own names. Open it as http://localhost:PORT; to reach it under "
        "another name, start it with --auth-token."
    )
    return _page("Not under this name", text, 421)


def _only_with(token: str, secret: bytes) -> AnyResponse | None:
    if _same(_bearer(request), token) or _same(request.cookies.get(COOKIE, ""), _code(token, secret)):
        return redirect(_without_token()) if "token" in request.args and request.method == "GET" else None
    given = request.form.get("token") if request.path == SIGN_IN else request.args.get("token")
    if given is not None and _same(given, token):
        answer = make_response(redirect("/" if request.path == SIGN_IN else _without_token()))
        answer.set_cookie(COOKIE, _code(token, secret), httponly=True, samesite="Lax", secure=request.is_secure)
        return answer
    if request.path.startswith("/_dash-"):  # a page left open: its script cannot show a form
        return make_response("sign in again: reload the page", 401)
    wrong = given is not None or "Authorization" in request.headers
    text = "That token is not the right one." if wrong else "This dashboard asks for a token."
    return _page("Token, please", f"{text} Whoever started it with --auth-token can tell you.", 401, form=True)


def _bearer(asked: Request) -> str:
    kind, _, value = asked.headers.get("Authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else ""


def _same(given: str, wanted: str) -> bool:
    """In constant time, so that the answer's delay tells nothing."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


def _code(token: str, secret: bytes) -> str:
    return hmac.new(secret, token.encode(), hashlib.sha256).hexdigest()


def _without_token() -> str:
    kept = [(name, value) for name, value in parse_qsl(request.query_string.decode("latin-1")) if name != "token"]
    path = "/" + quote(request.path.lstrip("/\\"))  # "//elsewhere" is another host, also with a tab in between
    return path + (f"?{urlencode(kept)}" if kept else "")


def _page(title: str, text: str, status: int, *, form: bool = False) -> Response:
    return make_response(PAGE.format(title=title, text=text, form=FORM.format(action=SIGN_IN) if form else ""), status)
