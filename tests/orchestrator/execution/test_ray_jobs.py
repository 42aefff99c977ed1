"""Sweeps sent to a cluster as jobs: what goes along, what is refused before, and one that really runs."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ray.job_submission import JobStatus

from orchestrator.cli import cli
from orchestrator.errors import LongrangeError, UserError
from orchestrator.execution import ray_jobs

BIN = Path(sys.executable).parent
HOST = "127.0.0.31"
SWEEP = """
name: sent
base: {workload: "scripted:Scripted", insertion: {res3: [0]}, block: nl, recipe: {epochs: 2}}
seeds: 2
"""


def submit(*words: str) -> Exception | None:
    found = CliRunner().invoke(cli, ["submit", *words], standalone_mode=False)
    assert isinstance(found.exception, Exception) or found.exception is None
    return found.exception


def test_mistakes_are_found_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(SWEEP)
    nowhere = ("--ray", "http://127.0.0.1:9")
    for words, said in [
        (("nosuch", *nowhere), "no sweep 'nosuch'"),
        (("mine.yaml", *nowhere, "--workrs", "2"), "No such option"),
        (("mine.yaml", *nowhere, "--ledger", "postgresql://u:pass@db/l"), "an option holds a password"),
        (("mine.yaml", *nowhere, "--ledger=postgresql://u:pass@db/l"), "an option holds a password"),
        (("mine.yaml", *nowhere, "--ledger", "postgresql://u:pass@db/l?sslmode=require"), "an option holds a password"),
        (("mine.yaml", *nowhere, "--ledger=postgresql://u@db/l?password=pass"), "an option holds a password"),
        (("mine.yaml", *nowhere, "--notify", "https://chat.example.com/hooks/abc"), "--notify may hold a secret"),
        ((str(tmp_path / "mine.yaml"), *nowhere), "not in the working directory"),
        (("mine.yaml", "--ray", "ray://127.0.0.1:9"), "jobs go to Ray's dashboard"),
        (("mine.yaml", *nowhere), "cannot reach Ray's dashboard"),
    ]:
        error = submit(*words)
        assert error is not None
        assert said in str(getattr(error, "message", error))


class Cluster:
    """A dashboard that answers as it is told: statuses, or exceptions."""

    def __init__(self, answers: Sequence[JobStatus | Exception]) -> None:
        self._answers = iter(answers)
        self._last: JobStatus | Exception = JobStatus.RUNNING

    def submit_job(self, **_: Any) -> str:
        return "job-1"

    def get_job_status(self, _: str) -> JobStatus:
        self._last = next(self._answers, self._last)
        if isinstance(self._last, Exception):
            raise self._last
        return self._last

    def get_job_logs(self, _: str) -> str:
        return "hello\n"


LOST = RuntimeError("Request failed with status code 500: Traceback\n  aiohttp ...\n.")


@pytest.mark.parametrize(
    ("answers", "said", "told"),
    [
        ([JobStatus.RUNNING, LOST, ConnectionError("refused"), JobStatus.SUCCEEDED], None, ""),
        ([JobStatus.RUNNING, JobStatus.FAILED], "the job job-1 failed", ""),
        ([JobStatus.RUNNING, JobStatus.STOPPED], "the job job-1 was stopped", ""),
        (
            [JobStatus.RUNNING, *[LOST] * 50],
            "no longer answers: Request failed with status code 500: Traceback",
            "end it",
        ),
    ],
)
def test_a_job_is_followed_to_its_end_through_lost_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[JobStatus | Exception], said: str | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray_jobs, "JobSubmissionClient", lambda _: Cluster(answers))
    monkeypatch.setattr(ray_jobs, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(ray_jobs, "LOST_SECONDS", 0.2)
    words = ["submit", "quickstart", "--ray", "http://me:s3cret@head:8265", "--follow"]
    found = CliRunner().invoke(cli, words, standalone_mode=False)
    assert "hello\n" in found.stdout
    assert (None if found.exception is None else str(found.exception)) == said or said in str(found.exception)
    assert (f"{told} with: ray job stop --address http://head:8265 job-1" in found.stderr) == bool(told)
    assert "s3cret" not in found.output


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "http://127.0.0.1:9"])
def test_a_driver_far_from_the_cluster_is_told_what_to_do(address: str) -> None:
    from orchestrator.execution.ray_tune import RayExecutor

    with pytest.raises(UserError, match="longrange submit"), RayExecutor(address):
        pass


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster(_support_on_path: None) -> Iterator[tuple[str, dict[str, str]]]:
    """Ray's dashboard address, and the environment of those who may use it."""
    folder = Path(tempfile.mkdtemp(prefix="lrj", dir="/tmp"))  # Ray's sockets need short paths
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef" * 4)
    env = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "LONGRANGE_CACHE": str(folder / "cache"),
        "LONGRANGE_MLFLOW": "off",
    }
    dashboard = free_port()
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--node-ip-address={HOST}", f"--port={free_port()}"]
    command += [f"--dashboard-agent-listen-port={free_port()}"]  # the default may be another cluster's
    command += ["--num-cpus=2", f"--dashboard-host={HOST}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}/ray"]
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield f"http://{HOST}:{dashboard}", env
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)
        subprocess.run(["rm", "-rf", str(folder)], check=False)


@pytest.mark.slow
@pytest.mark.ray
def test_a_sweep_runs_as_a_job_with_its_file_and_without_data_and_secrets(
    tmp_path: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    address, env = cluster
    work, out = tmp_path / "work", tmp_path / "out"
    (work / "data").mkdir(parents=True)
    (work / "data" / "clip.txt").write_text("x")
    (work / "clip.mp4").write_bytes(b"x")
    (work / "notes.txt").write_text("x")
    for secret in (".env", ".env.production", "server.pem", ".pgpass", ".ssh/config", ".mlflow/credentials"):
        (work / secret).parent.mkdir(exist_ok=True)
        (work / secret).write_text("secret")
    (work / "mine.yaml").write_text(SWEEP)
    command = [str(BIN / "longrange"), "submit", "mine.yaml", "--ray", address, "--follow", "--exclude", "notes.txt"]
    command += ["--out", str(out), "--quiet"]
    until_up(address)
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 finished" in done.stdout
    with sqlite3.connect(out / "ledger.db") as ledger:
        states = ledger.execute("select state, count(*) from trials group by state").fetchall()
    assert states == [("finished", 4)]
    sent = list(Path(env["RAY_AUTH_TOKEN_PATH"]).parent.glob("ray/session_*/runtime_resources/working_dir_files/*"))
    files = {file.name for folder in sent if folder.is_dir() for file in folder.iterdir()}
    assert files == {"mine.yaml"}
    stranger = {key: value for key, value in env.items() if not key.startswith("RAY_AUTH")} | {"HOME": str(tmp_path)}
    refused = subprocess.run(command, cwd=work, env=stranger, capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1
    assert "cannot reach Ray's dashboard" in refused.stderr


def until_up(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise LongrangeError("the head did not start")
