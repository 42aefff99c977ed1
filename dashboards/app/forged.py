"""Requests that no page of ours makes: refused in a line. Dash ends them in tracebacks and answers that it broke."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dash
from dash.exceptions import CallbackException, DependencyException
from flask import Response, request

CALLBACKS = "/_dash-update-component"


def refuse_forged(app: dash.Dash) -> None:
    """Answer 400 to callbacks that `app` does not have, and 404 to scripts; mistakes of ours still end in the log."""

    def guard() -> Response | None:
        if request.path != CALLBACKS or request.method != "POST":
            return None
        return None if _known(request.get_json(silent=True), app.callback_map) else _refused()

    def callback(error: CallbackException) -> Response:
        if type(error) is not CallbackException:  # its subclasses are about what our callbacks return
            raise error
        return _refused()

    def script(_error: DependencyException) -> Response:
        return _said("There is no such script.", 404)

    app.server.before_request(guard)
    app.server.register_error_handler(CallbackException, callback)
    app.server.register_error_handler(DependencyException, script)


def _known(asked: Any, callbacks: Mapping[str, Mapping[str, Any]]) -> bool:
    """Does a request name a callback of the server's, with inputs as pages send them?"""
    if not isinstance(asked, Mapping) or not isinstance(asked.get("output"), str):
        return False
    found = callbacks.get(asked["output"], {})  # those that run in the browser have no function here
    return "callback" in found and all(map(_is_property, _given(asked)))


def _given(asked: Mapping[str, Any]) -> Iterator[Any]:
    """Every input and state; one whose id is a pattern comes as a list."""
    for name in ("inputs", "state"):
        values = asked.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            yield from value if isinstance(value, list) else [value]


def _is_property(value: Any) -> bool:
    return isinstance(value, Mapping) and {"id", "property"} <= set(value)


def _refused() -> Response:
    return _said("This dashboard has no such callback: reload the page.", 400)


def _said(text: str, status: int) -> Response:
    return Response(text + "\n", status, mimetype="text/plain")
