"""A sweep over three hosts, two of which are lost while it runs, ends complete. Also a script: `python PATH`."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PORT = 6391
BIN = Path(sys.executable).parent

SWEEP = """
name: lost-hosts
question: Does a sweep survive its machines?
base:
  workload: {name: "scripted:Scripted", epoch_seconds: 1.0}
  insertion: {res3: [0]}
  recipe: {epochs: 8}
control: {block: none}
axes: {list: [{block: {name: se, reduction: 4}}]}
seeds: 5
"""


def _load_hosts() -> Any:
    spec = importlib.util.spec_from_file_location("longrange_test_hosts", HERE / "hosts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def environment(folder: Path, token: str) -> dict[str, str]:
    """What every process of the cluster is started with."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    file = folder / f"token-{token[:4]}"
    file.write_text(token)
    file.chmod(0o600)
    return kept | {
        "PYTHONPATH": str(ROOT / "tests" / "support"),
        "OMP_NUM_THREADS": "1",
        "LONGRANGE_CACHE": str(folder / "cache"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(file),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONUNBUFFERED": "1",
        # Ray's default takes a lost node for lost after 15 seconds and more.
        "RAY_health_check_initial_delay_ms": "1000",
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "3",
    }


def until(true: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.2)


def ray_start(hosts: Any, name: str, env: dict[str, str], temp: Path) -> Any:
    """A Ray node on a host: the head with its own folder, a worker with two CPUs."""
    common = ["--block", f"--node-ip-address={hosts.address(name)}", "--object-store-memory=80000000"]
    if name == "head":
        place = ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={temp}"]
    else:
        place = [f"--address={hosts.address('head')}:{PORT}", "--num-cpus=2"]
    return hosts.start(name, [str(BIN / "ray"), "start", *place, *common, "--num-gpus=0", "--disable-usage-stats"], env)


def ray_join(hosts: Any, name: str, env: dict[str, str], temp: Path, attempts: int = 3) -> None:
    """Start a worker's node and wait until it has joined; again if it gave up, as a service manager would.

    Two nodes that start at the same moment take each other's ports: the hosts share one folder of sessions here.
    """
    for _ in range(attempts):
        node = ray_start(hosts, name, env, temp)
        log = hosts.log_of(node)
        until(lambda node=node, log=log: "Ray runtime started" in log.read_text() or node.poll() is not None, 90, name)
        if node.poll() is None:
            return
    raise AssertionError(f"{name} does not join the cluster\n{hosts.output()}")


def epochs(run: Path) -> list[int]:
    """The last finished epoch of every trial that has a checkpoint."""
    found = []
    for file in run.glob("checkpoints/*/state.json"):
        try:
            found.append(json.loads(file.read_text())["epoch"])
        except (ValueError, OSError):
            continue  # it is being written
    return found


def lose_hosts(folder: Path, temp: Path) -> dict[str, Any]:
    """Run the sweep, cut one worker's link, switch the other off and replace it.

    Returns:
        `output` of all processes, `states` of the trials, `attempts` per trial, `causes` of lost attempts, and
        how the head answered without the right token (`refused`).
    """
    env = environment(folder, secrets.token_hex(32))
    stranger = environment(folder, secrets.token_hex(32))
    (folder / "sweep.yaml").write_text(SWEEP)
    run = folder / "run"
    hosts = _load_hosts().Hosts(("head", "one", "two"), folder)
    with hosts:
        health = [str(BIN / "ray"), "health-check", "--address", f"{hosts.address('head')}:{PORT}"]
        ray_start(hosts, "head", env, temp)
        until(lambda: hosts.start("head", health, env).wait() == 0, 90, f"the head answers\n{hosts.output()}")
        refused = hosts.start("one", health, stranger).wait() != 0
        for name in ("one", "two"):
            ray_join(hosts, name, env, temp)
        command = [
            *(str(BIN / "longrange"), "run", str(folder / "sweep.yaml"), "--out", str(run), "--mlflow", "off"),
            *("--ray", f"{hosts.address('head')}:{PORT}", "--quiet", "--json"),
        ]
        driver = hosts.start("head", command, env)
        try:
            until(lambda: sum(epoch >= 1 for epoch in epochs(run)) >= 3 or driver.poll() is not None, 180, "trials run")
            hosts.cut("one")
            time.sleep(3)
            hosts.kill("two")
            ray_join(hosts, "two", env, temp)
            code = driver.wait(timeout=300)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            raise AssertionError(f"{error}\n{hosts.output()}") from error
        output = hosts.output()
    assert code == 0, output
    with sqlite3.connect(run / "ledger.db") as ledger:
        states = [row[0] for row in ledger.execute("SELECT state FROM trials")]
        attempts = [row[0] for row in ledger.execute("SELECT count(*) FROM attempts GROUP BY trial_id")]
        causes = {row[0] for row in ledger.execute("SELECT cause FROM attempts WHERE cause IS NOT NULL")}
        scores = len(ledger.execute("SELECT DISTINCT trial_id FROM predictions").fetchall())
    return {
        **{"output": output, "states": states, "attempts": attempts},
        **{"causes": causes, "refused": refused, "predictions": scores},
    }


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_survives_a_cut_link_and_a_lost_machine(tmp_path: Path) -> None:
    reason = _load_hosts().unavailable()
    if reason:
        pytest.skip(reason)
    import tempfile

    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as short:  # Ray's sockets need short paths
        found = lose_hosts(tmp_path, Path(short))
    assert found["refused"], "a stranger's token was accepted"
    assert found["states"] == ["finished"] * 10, found["output"]
    assert found["predictions"] == 10
    assert max(found["attempts"]) >= 2, "no trial was lost: the test lost no host in time"
    assert found["causes"] == {"lost"}, found["output"]


if __name__ == "__main__":
    import tempfile

    why = _load_hosts().unavailable()
    if why:
        sys.exit(why)
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as place:
        (Path(place) / "f").mkdir()
        told = lose_hosts(Path(place) / "f", Path(place) / "r")
    print(told.pop("output")[-3000:])
    print(json.dumps({key: sorted(value) if isinstance(value, set) else value for key, value in told.items()}))
