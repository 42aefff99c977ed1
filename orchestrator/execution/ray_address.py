"""Where Ray is: the address of a cluster, checked before Ray tries it, and that of a local one."""

from __future__ import annotations

import socket
import sys

from orchestrator.errors import UserError

REACH_SECONDS = 5.0


def check_answers(address: str) -> None:
    """Fail at once where nothing listens; Ray itself would try for minutes.

    Raises:
        UserError: the address of another of Ray's protocols.
        ConnectionError: no connection within `REACH_SECONDS`.
    """
    if "://" in address:
        raise UserError(
            f"--ray {address}: the driver must run on a node of the cluster (`--ray auto` there); from elsewhere, send "
            "the sweep as a job: longrange submit SWEEP --ray http://HOST:8265"
        )
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdigit()):
        return  # `auto`: Ray looks for a node on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConnectionError(f"nothing answers there ({error})") from error


def check_loopback() -> None:
    """Fail where this machine cannot reach itself: a local Ray's processes would wait for each other without end.

    Raises:
        ConnectionError: no connection within `REACH_SECONDS`.
    """
    host = loopback().get("_node_ip_address", "127.0.0.1")
    try:
        with socket.create_server((host, 0)) as listening:
            socket.create_connection(listening.getsockname(), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ConnectionError(
            f"its processes talk over loopback, where {host} does not answer ({error.strerror or error}): "
            "bring it up (ip link set lo up), or use --executor inline"
        ) from error


def loopback() -> dict[str, str]:
    """Keep a local Ray off the network: it would listen on every interface, and its job port runs anyone's code.

    127.0.0.1 is rewritten by Ray to the machine's outer address; any other address of the loopback net is kept, and
    only Linux has those without set-up.
    """
    return {"_node_ip_address": "127.0.0.11"} if sys.platform == "linux" else {}
