"""Where the processes that train one trial find each other.

Torch's own rendezvous listens on every interface of rank 0's machine and asks nobody for anything: whoever reaches it
can disturb the training. Here it listens on `MASTER_ADDR` alone, which is the loopback net on one machine and the
cluster's network elsewhere.
"""

from __future__ import annotations

import os
import socket

from torch import distributed
from torch._C._distributed_c10d import TCPStore
from torch.distributed.constants import default_pg_timeout


def join(backend: str, world: int) -> None:
    """Join the process group that `RANK`, `MASTER_ADDR` and `MASTER_PORT` announce.

    Under torchrun, which has made a meeting point of its own, as torch does it.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        distributed.init_process_group(backend)
        return
    rank = int(os.environ["RANK"])
    store = meeting_point(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank, world)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world)


def meeting_point(address: str, port: int, rank: int, world: int) -> TCPStore:
    """The store at an address, made by rank 0; the others wait for it."""
    if rank != 0:
        return TCPStore(address, port, world, is_master=False, timeout=default_pg_timeout)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, port), family=family)
    return TCPStore(
        address, port, world, is_master=True, timeout=default_pg_timeout, master_listen_fd=listening.detach()
    )
