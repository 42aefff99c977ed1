"""Processes of a trial meet where only their own machine or network reaches them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workloads import engine_plain

MEETING = """
import socket
import psutil
from workloads.rendezvous import meeting_point

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
store = meeting_point("127.0.0.1", port, 0, 1)
store.set("said", "something")
other = meeting_point("127.0.0.1", port, 1, 1)
open_at = {item.laddr.ip for item in psutil.Process().net_connections("tcp") if item.status == "LISTEN"}
print(other.get("said").decode(), *sorted(open_at))
"""


def test_the_meeting_point_is_open_at_its_address_alone() -> None:
    done = subprocess.run([sys.executable, "-c", MEETING], capture_output=True, text=True)
    assert done.stdout == "something 127.0.0.1\n", done.stderr


@pytest.mark.parametrize(("device", "backend"), [("cuda", "nccl"), ("cuda:1", "nccl"), ("cpu", "gloo")])
def test_gpus_talk_by_nccl_and_processors_by_gloo(monkeypatch: pytest.MonkeyPatch, device: str, backend: str) -> None:
    joined: list[tuple[str, int]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(engine_plain, "join", lambda *group: joined.append(group))
    monkeypatch.setattr(engine_plain.distributed, "get_rank", lambda: 1)
    assert engine_plain.join_group(torch.device(device)) == 1
    assert joined == [(backend, 2)]


JOINING = """
import sys
import torch
from torch import distributed
from workloads.engine_plain import join_group

rank = join_group(torch.device("cpu"))
total = torch.tensor([rank + 1.0])
distributed.all_reduce(total)
sys.stdout.write(f"{rank} {total.item()}\\n")  # in one piece: both write to one pipe, unbuffered
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_of_torchrun_meet_where_it_says(tmp_path: Path) -> None:
    script = tmp_path / "joining.py"
    script.write_text(JOINING)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    own = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"} if sys.platform == "linux" else {}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=180)
    assert sorted(done.stdout.splitlines()) == ["0 3.0", "1 3.0"], done.stderr[-2000:]
