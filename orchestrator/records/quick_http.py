"""HTTP without waiting for delayed acknowledgements.

A server that sends the head and the body of an answer in two packets, and lets Nagle's algorithm hold back the second
until the first is acknowledged, meets clients whose system delays just that: 40 ms per request on a kept connection.
`mlflow server` with several workers, its default, is such a server: its workers inherit a listening socket on which
asyncio does not switch Nagle's algorithm off.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

QUICK = getattr(socket, "TCP_QUICKACK", None)  # Linux


class _Quick(HTTPConnection):
    def getresponse(self) -> Any:  # what urllib3 and http.client return has no common type
        if QUICK is not None and self.sock is not None:
            with suppress(OSError):  # the kernel forgets it now and then: said before every answer
                self.sock.setsockopt(socket.IPPROTO_TCP, QUICK, 1)
        return super().getresponse()


class _QuickSecure(_Quick, HTTPSConnection):
    """The same over TLS."""


def acknowledge_at_once() -> None:
    """Let every HTTP connection that this process opens from now on by urllib3 acknowledge answers at once."""
    HTTPConnectionPool.ConnectionCls = _Quick
    HTTPSConnectionPool.ConnectionCls = _QuickSecure
