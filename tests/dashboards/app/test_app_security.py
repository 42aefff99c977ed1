from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from dashboards.app import create, listen, serve
from orchestrator.errors import UserError

TOKEN = "a long random text & more"
HERE = {"base_url": "http://localhost:8050"}


@pytest.fixture(scope="module")
def opened(quickstart_path: Path) -> Callable[..., Any]:
    @cache
    def app(**options: Any) -> Any:
        return create(quickstart_path, **options)

    def client(**options: Any) -> Any:
        return app(**options).server.test_client()

    return client


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "laptop.example", ""])
def test_other_machines_need_a_token(quickstart_path: Path, host: str) -> None:
    with pytest.raises(UserError, match="--auth-token"):
        serve(quickstart_path, host=host, port=0)


@pytest.mark.parametrize("token", ["", "  "])
def test_an_empty_token_is_refused(quickstart_path: Path, token: str) -> None:
    with pytest.raises(UserError, match="empty"):
        create(quickstart_path, auth_token=token)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.9.1"])
def test_loopback_needs_none(quickstart_path: Path, host: str) -> None:
    assert create(quickstart_path, host=host).server.test_client().get("/", **HERE).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8050", "localhost.evil.example", "10.0.0.1", "[::2]:80"]
)
def test_a_name_that_was_made_to_point_here_is_refused(opened: Callable[..., Any], name: str) -> None:
    answer = opened().get("/", headers={"Host": name})
    assert answer.status_code == 421
    assert "--auth-token" in answer.text


@pytest.mark.parametrize("name", ["localhost:9999", "127.0.0.1:8050", "[::1]:8050", "LOCALHOST"])
def test_this_machines_own_names_are_served(opened: Callable[..., Any], name: str) -> None:
    assert opened().get("/", headers={"Host": name}).status_code == 200


def test_headers_of_every_answer(opened: Callable[..., Any]) -> None:
    client = opened()
    for path in ("/", "/_dash-layout", "/assets/app.css", "/look/report.css", "/nowhere"):
        with client.get(path, **HERE) as answer:
            headers = answer.headers
        policy = headers["Content-Security-Policy"]
        assert "unsafe-eval" not in policy
        scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
        assert "unsafe-inline" not in scripts
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert client.get("/_dash-layout", **HERE).headers["Cache-Control"] == "no-store"


def test_nothing_comes_from_elsewhere(opened: Callable[..., Any]) -> None:
    loaded = re.findall(r'(?:src|href)="([^"]*)"', opened().get("/", **HERE).text)
    assert len(loaded) > 5
    assert all(re.match(r"/[^/]", address) for address in loaded)


def test_there_is_no_debugger_and_no_other_door(opened: Callable[..., Any]) -> None:
    client = opened()
    assert client.get("/_reload-hash", **HERE).status_code == 200  # hot reload off: an ordinary page
    assert client.get("/?__debugger__=yes&cmd=resource&f=debugger.js", **HERE).mimetype == "text/html"
    assert client.get("/assets/../security.py", **HERE).status_code in (200, 404)
    assert b"hmac" not in client.get("/assets/..%2fsecurity.py", **HERE).data


def test_strangers_see_a_form_and_nothing_else(opened: Callable[..., Any]) -> None:
    client = opened(host="0.0.0.0", auth_token=TOKEN)
    for path in (
        "/",
        "/sweep?sweep=quickstart",
        "/assets/app.js",
        "/_dash-layout",
        "/_dash-dependencies",
        "/look/report.css",
    ):
        answer = client.get(path)
        assert answer.status_code == 401
        assert "quickstart" not in answer.text
    posted = client.post("/_dash-update-component", json={})
    assert posted.status_code == 401


@pytest.mark.parametrize("given", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ü", "\udcff"])
def test_a_wrong_token_is_told_apart_from_none(opened: Callable[..., Any], given: str) -> None:
    client = opened(auth_token=TOKEN)
    answer = client.post("/sign-in", data={"token": given.encode("utf-8", "surrogateescape")})
    assert answer.status_code == 401
    assert "not the right one" in answer.text
    assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.get("/", headers={"Cookie": "longrange=wrong"}).status_code == 401


def test_a_token_in_the_address_becomes_a_cookie_and_leaves_the_address(opened: Callable[..., Any]) -> None:
    client = opened(host="0.0.0.0", auth_token=TOKEN)
    answer = client.get("/sweep", query_string={"sweep": "a b&c", "token": TOKEN})
    assert answer.status_code == 302
    assert answer.headers["Location"] == "/sweep?sweep=a+b%26c"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert TOKEN not in cookie
    assert client.get(answer.headers["Location"]).status_code == 200
    again = client.get("/", query_string={"token": TOKEN})
    assert again.status_code == 302


def test_the_form_signs_in(opened: Callable[..., Any]) -> None:
    client = opened(auth_token=TOKEN)
    assert client.post("/sign-in", data={"token": TOKEN}).status_code == 302
    assert client.get("/").status_code == 200


@pytest.mark.parametrize("before", ["//", "/\\", "/\t/", "/\r\n/", "/\0/", "/ //", "/.//"], ids=repr)
@pytest.mark.parametrize("given", [TOKEN, "of a link that somebody else made"])
def test_a_redirect_never_leaves(opened: Callable[..., Any], before: str, given: str) -> None:
    """Neither with the token, nor for one who is signed in and follows a link. Browsers drop tabs and line breaks."""
    client = opened(auth_token=TOKEN)
    client.post("/sign-in", data={"token": TOKEN})
    asked = {"PATH_INFO": f"{before}evil.example/x"}
    answer = client.get(query_string={"token": given}, environ_overrides=asked)
    assert answer.status_code == 302
    assert re.match(r"/[^/\\]", answer.headers["Location"])
    assert re.fullmatch(r"[!-~]+", answer.headers["Location"])


def test_scripts_may_use_a_header(opened: Callable[..., Any]) -> None:
    client = opened(auth_token=TOKEN)
    assert client.get("/_dash-layout", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_cookie_is_worth_nothing_to_another_server(opened: Callable[..., Any]) -> None:
    first, second = opened(auth_token=TOKEN), opened(auth_token=TOKEN, refresh=9.0)
    cookie = first.get("/", query_string={"token": TOKEN}).headers["Set-Cookie"].split(";")[0]
    assert first.get("/", headers={"Cookie": cookie}).status_code == 200
    assert second.get("/", headers={"Cookie": cookie}).status_code == 401


def test_ports(quickstart_path: Path) -> None:
    app = create(quickstart_path)
    first = listen(app, "127.0.0.1", 0)
    try:
        with pytest.raises(UserError, match="is taken"):
            listen(app, "127.0.0.1", first.port)
    finally:
        first.server_close()
    with pytest.raises(UserError, match="between 0 and 65535"):
        serve(quickstart_path, port=70_000)
    with pytest.raises(UserError, match="no ledger"):
        serve(quickstart_path.parent / "nothing.db", port=0)
