"""PostgreSQL and MLflow as `docker/` starts them, as processes, and a sweep through both."""

from __future__ import annotations

import base64
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROLES = ("LEDGER_PASSWORD", "LEDGER_READER_PASSWORD", "MLFLOW_DB_PASSWORD")


def program(name: str) -> str:
    """A program of PostgreSQL, which Debian keeps off the path."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(beside[-1]) if beside else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (PostgreSQL) is not installed")
    return found


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def plain_env(**more: str) -> dict[str, str]:
    """The environment without anything of the caller's but paths."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | {"PYTHONPATH": str(ROOT / "tests/support"), "OMP_NUM_THREADS": "1"} | more


@contextmanager
def process(command: list[str], log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of a test."""
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out, **options) as running:  # type: ignore[call-overload]
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    return {name: secrets.token_hex(16) for name in (*ROLES, "ADMIN")}


@pytest.fixture(scope="module")
def postgres(passwords: Mapping[str, str]) -> Iterator[int]:
    """A PostgreSQL that asks for passwords, made by `docker/postgres-init.sh`; gives its port."""
    initdb, server, psql = program("initdb"), program("postgres"), program("psql")
    user: dict[str, object] = {}
    owner = os.geteuid()
    if owner == 0:  # PostgreSQL refuses to run as root
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("there is no user `postgres` to run PostgreSQL as")
        user, owner = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}, account.pw_uid
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as place:
        os.chown(place, owner, -1)
        data, secret, port = f"{place}/data", Path(place) / "password", free_port()
        secret.write_text(secrets.token_hex(16))
        os.chown(secret, owner, -1)
        made = [initdb, "-D", data, "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}"]
        subprocess.run(made, check=True, capture_output=True, cwd=place, **user)  # type: ignore[call-overload]
        command = [server, "-D", data, "-p", str(port), "-k", place, "-c", "listen_addresses=127.0.0.1"]
        with process(command, Path(place) / "log", cwd=place, **user):
            env = plain_env(
                PGHOST="127.0.0.1", PGPORT=str(port), PGPASSWORD=secret.read_text(), POSTGRES_USER="postgres"
            )
            env |= {name: passwords[name] for name in ROLES}
            env["PATH"] = f"{Path(psql).parent}:{env['PATH']}"
            end = time.monotonic() + 60
            while subprocess.run([psql, "-U", "postgres", "-c", "SELECT 1"], env=env, capture_output=True).returncode:
                assert time.monotonic() < end, (Path(place) / "log").read_text()
                time.sleep(0.2)
            subprocess.run(["bash", str(ROOT / "docker/postgres-init.sh")], env=env, check=True, capture_output=True)
            yield port


@pytest.fixture(scope="module")
def mlflow(postgres: int, passwords: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The MLflow server of `docker/mlflow.sh`, with a folder in place of S3; gives its address."""
    pytest.importorskip("flask_wtf", reason="mlflow[auth] is not installed")
    place, port = tmp_path_factory.mktemp("mlflow"), free_port()
    users = (ROOT / "docker/mlflow-auth.ini").read_text()
    (place / "auth.ini").write_text(users.replace("mlflow@postgres/", f"mlflow@127.0.0.1:{postgres}/"))
    env = plain_env(
        PGPASSWORD=passwords["MLFLOW_DB_PASSWORD"],
        MLFLOW_AUTH_CONFIG_PATH=str(place / "auth.ini"),
        MLFLOW_AUTH_ADMIN_USERNAME="admin",
        MLFLOW_AUTH_ADMIN_PASSWORD=passwords["ADMIN"],
        MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.token_hex(16),
        MLFLOW_DATABASE=f"postgresql+psycopg2://mlflow@127.0.0.1:{postgres}/mlflow",
        MLFLOW_ARTIFACTS=str(place / "artifacts"),
        MLFLOW_HOST="127.0.0.1",
        MLFLOW_PORT=str(port),
        MLFLOW_ALLOWED_HOSTS=f"127.0.0.1:{port}",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_DISABLE_TELEMETRY="true",
    )
    env["PATH"] = f"{BIN}:{env['PATH']}"
    with process(["sh", str(ROOT / "docker/mlflow.sh")], place / "log", env=env):
        end = time.monotonic() + 240
        while answer(f"http://127.0.0.1:{port}/health") != 200:
            assert time.monotonic() < end, (place / "log").read_text()[-2000:]
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"


def answer(url: str, user: str = "", password: str = "", host: str = "") -> int:
    """The HTTP status of a request; 0 where nothing listens."""
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status: int = response.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def psql(port: int, role: str, password: str, database: str, statement: str) -> subprocess.CompletedProcess[str]:
    env = plain_env(PGPASSWORD=password, PGCONNECT_TIMEOUT="10")
    command = [program("psql"), "-h", "127.0.0.1", "-p", str(port), "-U", role, "-d", database, "-Atc", statement]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_shell_scripts_refuse_to_start_without_secrets() -> None:
    for script in ("mlflow.sh", "postgres-init.sh"):
        done = subprocess.run(
            ["bash", str(ROOT / "docker" / script)], env=plain_env(POSTGRES_USER="x"), capture_output=True
        )
        assert done.returncode != 0
        assert b"PASSWORD" in done.stderr


@pytest.mark.slow
def test_roles_reach_their_own_database_only(postgres: int, passwords: Mapping[str, str]) -> None:
    ledger, reader = passwords["LEDGER_PASSWORD"], passwords["LEDGER_READER_PASSWORD"]
    assert psql(postgres, "ledger", ledger, "ledger", "SELECT 1").stdout == "1\n"
    assert "password" in psql(postgres, "ledger", "wrong", "ledger", "SELECT 1").stderr
    assert "permission denied" in psql(postgres, "ledger", ledger, "mlflow", "SELECT 1").stderr
    assert "permission denied" in psql(postgres, "ledger_reader", reader, "mlflow_auth", "SELECT 1").stderr


@pytest.mark.slow
def test_mlflow_asks_for_a_password(mlflow: str, passwords: Mapping[str, str]) -> None:
    runs = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert answer(runs) == 401
    assert answer(runs, "admin", "password1234") == 401, "the password that MLflow used to ship"
    assert answer(runs, "admin", passwords["ADMIN"]) == 200
    assert answer(runs, "admin", passwords["ADMIN"], host="evil.example.com") == 403


@pytest.mark.slow
def test_a_sweep_goes_through_both(mlflow: str, postgres: int, passwords: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: services\nbase: {workload: 'scripted:Scripted', insertion: {res3: [0]}}\n"
        "control: {block: none}\naxes: {list: [{block: {name: se, reduction: 4}}]}\nseeds: 2\n"
    )
    ledger = f"postgresql://{{}}@127.0.0.1:{postgres}/ledger"
    env = plain_env(
        PGPASSWORD=passwords["LEDGER_PASSWORD"],
        MLFLOW_TRACKING_USERNAME="admin",
        MLFLOW_TRACKING_PASSWORD=passwords["ADMIN"],
        MLFLOW_DISABLE_TELEMETRY="true",
        LONGRANGE_CACHE=str(tmp_path / "cache"),
    )
    run = [str(BIN / "longrange"), "run", "sweep.yaml", "--executor", "inline", "--out", "run", "--quiet"]
    run += ["--ledger", ledger.format("ledger"), "--mlflow", mlflow]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 finished" in done.stdout
    assert "MLflow lags behind" not in done.stdout, done.stdout
    mirror = [str(BIN / "longrange"), "mirror", "run"]
    copied = subprocess.run(mirror, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert copied.returncode == 0, copied.stderr
    assert "0 trials copied" in copied.stdout, (done.stdout, copied.stdout)

    reader = env | {"PGPASSWORD": passwords["LEDGER_READER_PASSWORD"]}
    table = [str(BIN / "longrange"), "table", "run", "--ledger", ledger.format("ledger_reader"), "--format", "csv"]
    shown = subprocess.run(table, cwd=tmp_path, env=reader, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "se" in shown.stdout
    secret = passwords["LEDGER_READER_PASSWORD"]
    assert "permission denied" in psql(postgres, "ledger_reader", secret, "ledger", "DELETE FROM trials").stderr

    counted = psql(postgres, "mlflow", passwords["MLFLOW_DB_PASSWORD"], "mlflow", "SELECT count(*) FROM runs")
    assert int(counted.stdout) == 5, "four trials under one sweep"
    kept = "".join(path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert [name for name, value in passwords.items() if value in kept + done.stdout + done.stderr] == []
