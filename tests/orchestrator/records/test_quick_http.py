"""Answers are acknowledged at once, on every connection that is opened from then on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import urllib3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from orchestrator.records.quick_http import QUICK, acknowledge_at_once


class Hello(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.skipif(QUICK is None, reason="this system cannot be asked to acknowledge at once")
def test_every_answer_is_acknowledged_at_once(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for pool in (HTTPConnectionPool, HTTPSConnectionPool):
        monkeypatch.setattr(pool, "ConnectionCls", pool.ConnectionCls)  # to be put back
    seen = []
    answer = HTTPConnection.getresponse

    def noted(self: HTTPConnection) -> Any:
        seen.append(self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))
        return answer(self)

    monkeypatch.setattr(HTTPConnection, "getresponse", noted)
    acknowledge_at_once()
    with urllib3.PoolManager() as pools:
        assert [pools.request("GET", address).data for _ in range(3)] == [b"hello"] * 3
    assert seen == [1, 1, 1]
    assert issubclass(HTTPSConnectionPool.ConnectionCls, HTTPConnection)
