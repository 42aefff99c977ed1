"""Trials whose processes sit on different hosts: they meet on the cluster's network, and outlive the loss of a host."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts
from hosts import unavailable as no_hosts
from ray_hosts import environment, head_address, join, start_head, until
from seen_digits import notes
from services import BIN

EPOCHS = 8
WORKERS = ("one", "two", "three")

# Two processes of one CPU each, on hosts of one CPU.
SWEEP = f"""
name: crews
question: Do processes on two hosts train as two on one?
base:
  workload:
    {{name: "seen_digits:SeenDigits", train_clips: 96, validation_clips: 40, still_images: 128, epoch_seconds: 0.7}}
  insertion: {{res3: [0]}}
  block: nl
  recipe: {{name: custom, epochs: {EPOCHS}, batch: 16, optimizer: adamw, lr: 0.01, schedule: cosine, zero_stage: 2}}
control: {{recipe: {{engine: plain, zero_stage: 0}}}}
axes: {{list: [{{recipe.engine: deepspeed}}]}}
seeds: 1
resources: {{workers: 2}}
"""


def rows(run: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(run / "ledger.db")) as ledger:
        return ledger.execute(query).fetchall()


def losses(run: Path) -> dict[tuple[str, int], float]:
    """(trial, epoch) -> training loss, bit by bit."""
    told = rows(run, "select trial_id, epoch, value from epoch_metrics where name = 'train_loss'")
    return {(trial, epoch): value for trial, epoch, value in told}


def first_crew(cache: Path, number: int) -> list[dict[str, Any]]:
    """What the processes of the `number`th trial noted in its first attempt, by rank; empty before both have."""
    found = notes(cache)
    trials = list(dict.fromkeys(note["trial"] for note in found))
    mine = [note for note in found if note["trial"] in trials[number : number + 1]]
    return sorted(mine[:2], key=lambda note: note["rank"]) if len(mine) >= 2 else []


def host_of(hosts: Hosts, note: dict[str, Any]) -> str:
    return next(name for name in WORKERS if hosts.address(name) in note["addresses"])


def run_on(hosts: Hosts, folder: Path, env: dict[str, str], *options: str) -> subprocess.Popen[bytes]:
    """`longrange run` on the head, with its folder's name as its last option."""
    command = [BIN / "longrange", "run", folder.parent / "sweep.yaml", *options, "--out", folder]
    rest = ["--mlflow", "off", "--keep-checkpoints", "--quiet"]
    return hosts.start("head", [*map(str, command), *rest], env)


def unplug_first(hosts: Hosts, driver: subprocess.Popen[bytes], cache: Path) -> None:
    """Cut off the host of the second trial's first process, once it has a checkpoint and is in a later epoch."""
    until(lambda: first_crew(cache, 1) or driver.poll() is not None, 300, "the second trial trains")
    time.sleep(1.5)
    hosts.cut(host_of(hosts, first_crew(cache, 1)[0]))


@pytest.mark.slow(seconds=130)
@pytest.mark.ray
def test_a_crew_on_two_hosts_trains_as_on_one_and_outlives_the_loss_of_one(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="the extra longrange[deepspeed] is not installed")
    if reason := no_hosts():
        pytest.skip(reason)
    env = environment(tmp_path, secrets.token_hex(32))
    cache = Path(env["LONGRANGE_CACHE"])
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    with (
        tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as short,  # Ray's sockets need short paths
        Hosts(("head", *WORKERS), tmp_path) as hosts,
    ):
        alone = run_on(hosts, tmp_path / "alone", env | {"LONGRANGE_CACHE": f"{cache}-alone"}, "--executor", "inline")
        start_head(hosts, env, Path(short))
        for name in WORKERS:
            join(hosts, name, env, cpus=1)
        assert alone.wait(timeout=300) == 0, hosts.output()
        driver = run_on(hosts, tmp_path / "run", env, "--ray", head_address(hosts))
        unplug_first(hosts, driver, cache)
        assert driver.wait(timeout=300) == 0, hosts.output()
        crews = [first_crew(cache, number) for number in range(2)]

    assert rows(tmp_path / "run", "select state from trials") == [("finished",)] * 2
    assert rows(tmp_path / "run", "select cause from attempts where cause is not null") == [("lost",)]
    undisturbed = losses(tmp_path / "alone")
    assert len(undisturbed) == 2 * EPOCHS
    assert losses(tmp_path / "run") == undisturbed, "as on one host, before and after the loss"
    for history in (tmp_path / "run").glob("checkpoints/*/history.jsonl"):
        trained = len(list(filter(None, history.read_text().splitlines())))
        assert EPOCHS <= trained <= EPOCHS + 1, "a second attempt does not start over"
    for one, two in crews:
        assert host_of(hosts, one) != host_of(hosts, two)
        assert one["met_at"] == two["met_at"] == hosts.address(host_of(hosts, one)), "at the first process's host"
        assert one["opened"], "it holds the meeting point"
        for note in (one, two):
            assert set(note["opened"]) <= {hosts.address(host_of(hosts, note))}, "nothing listens anywhere else"
