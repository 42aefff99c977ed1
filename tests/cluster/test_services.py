"""PostgreSQL and MLflow as `docker/` starts them, as processes, before a store in place of S3; a sweep through all."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import services
from fake_s3 import FakeS3
from services import BIN, ROOT, Database, plain_env


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def passwords() -> dict[str, str]:
    return services.new_passwords()


@pytest.fixture(scope="module")
def database(passwords: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if reason := services.unavailable():
        pytest.skip(reason)
    start = services.started_here(tmp_path_factory.mktemp("postgres") / "log")
    with services.postgres(start, passwords, address="127.0.0.1", port=free_port()) as made:
        yield made


@pytest.fixture(scope="module")
def s3() -> Iterator[FakeS3]:
    with FakeS3(secrets.token_hex(16)) as store:
        yield store


@pytest.fixture(scope="module")
def mlflow(
    database: Database, passwords: Mapping[str, str], s3: FakeS3, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Gives its address."""
    place = tmp_path_factory.mktemp("mlflow")
    start = services.started_here(place / "log")
    store = {"MLFLOW_S3_ENDPOINT_URL": s3.address, "AWS_DEFAULT_REGION": "us-east-1"}
    store |= {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    with services.mlflow(start, passwords, database, place, free_port(), store) as address:
        done = subprocess.run(services.healthy(address), capture_output=True, text=True)
        assert done.returncode == 0, (place / "log").read_text()[-2000:]
        yield address


def answer(
    url: str, user: str = "", password: str = "", host: str = "", *, send: object = None, method: str | None = None
) -> int:
    """The HTTP status of a request, which sends JSON if there is any; 0 where nothing listens."""
    request = urllib.request.Request(url, method=method)
    if send is not None:
        request.data = json.dumps(send).encode()
        request.add_header("Content-Type", "application/json")
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


def test_shell_scripts_refuse_to_start_without_secrets() -> None:
    for script in ("mlflow.sh", "postgres-init.sh"):
        done = subprocess.run(
            ["bash", str(ROOT / "docker" / script)], env=plain_env(POSTGRES_USER="x"), capture_output=True
        )
        assert done.returncode != 0
        assert b"PASSWORD" in done.stderr


@pytest.mark.slow
def test_roles_reach_their_own_database_only(database: Database, passwords: Mapping[str, str]) -> None:
    ledger, reader = passwords["LEDGER_PASSWORD"], passwords["LEDGER_READER_PASSWORD"]
    assert database.psql("ledger", ledger, "ledger", "SELECT 1").stdout == "1\n"
    assert "password" in database.psql("ledger", "wrong", "ledger", "SELECT 1").stderr
    assert "permission denied" in database.psql("ledger", ledger, "mlflow", "SELECT 1").stderr
    assert "permission denied" in database.psql("ledger_reader", reader, "mlflow_auth", "SELECT 1").stderr


@pytest.mark.slow
def test_mlflow_asks_for_a_password(mlflow: str, passwords: Mapping[str, str]) -> None:
    runs = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    assert answer(runs) == 401
    assert answer(runs, "admin", "password1234") == 401, "the password that MLflow used to ship"
    assert answer(runs, "admin", passwords["ADMIN"]) == 200
    assert answer(runs, "admin", passwords["ADMIN"], host="evil.example.com") == 403
    one, guest = f"{mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0", ("guest", secrets.token_hex(16))
    made = f"{mlflow}/api/2.0/mlflow/users/create"
    assert (
        answer(made, "admin", passwords["ADMIN"], send=dict(zip(("username", "password"), guest, strict=True))) == 200
    )
    assert (answer(one, *guest), answer(one, "admin", passwords["ADMIN"])) == (403, 200), "a user is permitted nothing"


@pytest.mark.slow
def test_a_changed_password_is_forgotten_at_once(mlflow: str, passwords: Mapping[str, str]) -> None:
    """Although the server remembers for a minute which passwords were right."""
    old, new = secrets.token_hex(16), secrets.token_hex(16)
    runs = f"{mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    admin = passwords["ADMIN"]
    users = f"{mlflow}/api/2.0/mlflow/users"
    assert answer(f"{users}/create", "admin", admin, send={"username": "visitor", "password": old}) == 200
    assert answer(runs, "visitor", old) == 200
    change = {"username": "visitor", "password": new}
    assert answer(f"{users}/update-password", "admin", admin, send=change, method="PATCH") == 200
    assert answer(runs, "visitor", old) == 401
    assert answer(runs, "visitor", new) == 200


@pytest.mark.slow
def test_a_sweep_goes_through_all(
    mlflow: str, database: Database, passwords: Mapping[str, str], s3: FakeS3, tmp_path: Path
) -> None:
    (tmp_path / "sweep.yaml").write_text(
        "name: services\nbase: {workload: 'scripted:Scripted', insertion: {res3: [0]}}\n"
        "control: {block: none}\naxes: {list: [{block: {name: se, reduction: 4}}]}\nseeds: 2\n"
    )
    env = plain_env(
        PGPASSWORD=passwords["LEDGER_PASSWORD"],
        MLFLOW_TRACKING_USERNAME="admin",
        MLFLOW_TRACKING_PASSWORD=passwords["ADMIN"],
        MLFLOW_DISABLE_TELEMETRY="true",
        LONGRANGE_CACHE=str(tmp_path / "cache"),
    )
    run = [str(BIN / "longrange"), "run", "sweep.yaml", "--executor", "inline", "--out", "run", "--quiet"]
    run += ["--ledger", database.url("ledger", "ledger"), "--mlflow", mlflow]
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4 finished" in done.stdout
    assert "MLflow lags behind" not in done.stdout, done.stdout
    mirror = [str(BIN / "longrange"), "mirror", "run"]
    copied = subprocess.run(mirror, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert copied.returncode == 0, copied.stderr
    assert "0 trials copied" in copied.stdout, (done.stdout, copied.stdout)

    reader = env | {"PGPASSWORD": passwords["LEDGER_READER_PASSWORD"]}
    table = [str(BIN / "longrange"), "table", "run", "--format", "csv"]
    table += ["--ledger", database.url("ledger_reader", "ledger")]
    shown = subprocess.run(table, cwd=tmp_path, env=reader, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "se" in shown.stdout
    secret = passwords["LEDGER_READER_PASSWORD"]
    assert "permission denied" in database.psql("ledger_reader", secret, "ledger", "DELETE FROM trials").stderr

    counted = database.psql("mlflow", passwords["MLFLOW_DB_PASSWORD"], "mlflow", "SELECT count(*) FROM runs")
    assert int(counted.stdout) == 5, "four trials under one sweep"
    stored = {name.rpartition("/")[2]: body for name, body in s3.objects.items() if name.startswith("mlflow/")}
    assert stored["report.html"] == (tmp_path / "run" / "report.html").read_bytes()
    kept = "".join(path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert [name for name, value in passwords.items() if value in kept + done.stdout + done.stderr] == []
