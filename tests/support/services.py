"""PostgreSQL and MLflow as `docker/` starts them, as processes: of this machine, or of a host of `hosts.py`."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from postgres import binaries

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ROLES = ("LEDGER_PASSWORD", "LEDGER_READER_PASSWORD", "MLFLOW_DB_PASSWORD")

WAIT = """
import sys, time, urllib.request
end = time.monotonic() + 240
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=20).close()
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.5)
"""

Start = Callable[[Sequence[str], Mapping[str, str]], "subprocess.Popen[bytes]"]


def unavailable() -> str | None:
    """Why these services cannot run here; None if they can."""
    if binaries() is None:
        return "PostgreSQL is not installed"
    if importlib.util.find_spec("flask_wtf") is None:
        return "mlflow[auth] is not installed"
    if os.geteuid() == 0 and (_account() is None or shutil.which("setpriv") is None):
        return "PostgreSQL refuses to run as root, and there is no user `postgres` or no `setpriv` to become it"
    return None


def new_passwords() -> dict[str, str]:
    """One for every role, and MLflow's administrator's."""
    return {name: secrets.token_hex(16) for name in (*ROLES, "ADMIN")}


def plain_env(**more: str) -> dict[str, str]:
    """The environment without anything of the caller's but paths."""
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    return kept | {"PYTHONPATH": str(ROOT / "tests/support"), "OMP_NUM_THREADS": "1"} | more


def started_here(log: Path) -> Start:
    """Start processes of this machine, whose output goes to a file."""

    def start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(list(command), env=dict(env), stdout=out, stderr=out)

    return start


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of a test."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Database:
    """A server made by `docker/postgres-init.sh`. Asks for passwords, over its socket as over the network.

    Attributes:
        folder: with its data and its socket, which is reached from every network namespace.
        address: where it listens.
        port: there.
    """

    folder: Path
    address: str
    port: int

    def url(self, role: str, database: str, scheme: str = "postgresql") -> str:
        """Without the password, as `docker/README.md` has it."""
        return f"{scheme}://{role}@{self.address}:{self.port}/{database}"

    def psql(self, role: str, password: str, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        """What psql answers to a statement: rows, without headings."""
        command = [_program("psql"), "-h", str(self.folder), "-p", str(self.port), "-U", role, "-d", database]
        env = plain_env(PGPASSWORD=password, PGCONNECT_TIMEOUT="10")
        return subprocess.run([*command, "-Atc", statement], env=env, capture_output=True, text=True)


@contextmanager
def postgres(start: Start, passwords: Mapping[str, str], *, address: str, port: int) -> Iterator[Database]:
    """A database server for the time of a test; its clients are those that share the first 24 bits of its address."""
    with tempfile.TemporaryDirectory(prefix="lr", dir="/tmp") as place:  # sockets need short paths
        made = Database(Path(place), address, port)
        superuser = _initialise(made)
        listen = ["-p", str(port), "-k", place, "-c", f"listen_addresses={address}"]
        with ended(start([*_become(), _program("postgres"), "-D", f"{place}/data", *listen], plain_env())) as server:
            end = time.monotonic() + 60
            while made.psql("postgres", superuser, "postgres", "SELECT 1").returncode:
                if time.monotonic() > end or server.poll() is not None:
                    raise RuntimeError("PostgreSQL does not start")
                time.sleep(0.2)
            env = plain_env(PGHOST=place, PGPORT=str(port), PGPASSWORD=superuser, POSTGRES_USER="postgres")
            env |= {"PATH": f"{binaries()}:{env['PATH']}"} | {name: passwords[name] for name in ROLES}
            subprocess.run(["bash", str(ROOT / "docker/postgres-init.sh")], env=env, check=True, capture_output=True)
            yield made


@contextmanager
def mlflow(
    start: Start,
    passwords: Mapping[str, str],
    database: Database,
    place: Path,
    port: int,
    store: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The server of `docker/mlflow.sh` beside its database; gives its address.

    It takes a while to answer: see `healthy`. `store` is the environment that names an S3 store; artifacts go into a
    folder without.
    """
    users = (ROOT / "docker/mlflow-auth.ini").read_text()
    users = users.replace("mlflow@postgres/", f"mlflow@{database.address}:{database.port}/")
    (place / "auth.ini").write_text(users)
    env = plain_env(
        PGPASSWORD=passwords["MLFLOW_DB_PASSWORD"],
        MLFLOW_AUTH_CONFIG_PATH=str(place / "auth.ini"),
        MLFLOW_AUTH_ADMIN_USERNAME="admin",
        MLFLOW_AUTH_ADMIN_PASSWORD=passwords["ADMIN"],
        MLFLOW_FLASK_SERVER_SECRET_KEY=secrets.token_hex(16),
        MLFLOW_DATABASE=database.url("mlflow", "mlflow", "postgresql+psycopg2"),
        **({"MLFLOW_ARTIFACTS": str(place / "artifacts")} if store is None else store),
        MLFLOW_HOST=database.address,
        MLFLOW_PORT=str(port),
        MLFLOW_ALLOWED_HOSTS=f"{database.address}:{port}",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_DISABLE_TELEMETRY="true",
    )
    env["PATH"] = f"{BIN}:{env['PATH']}"
    with ended(start(["sh", str(ROOT / "docker/mlflow.sh")], env)):
        yield f"http://{database.address}:{port}"


def healthy(address: str) -> list[str]:
    """A command that ends well as soon as MLflow answers, and fails after four minutes."""
    return [sys.executable, "-c", WAIT, f"{address}/health"]


def _initialise(database: Database) -> str:
    """An empty database in the folder; gives the superuser's password."""
    place, secret = database.folder, database.folder / "password"
    password = secrets.token_hex(16)
    secret.write_text(password)
    if (account := _account()) is not None and os.geteuid() == 0:
        for path in (place, secret):
            os.chown(path, account.pw_uid, account.pw_gid)
    made = [_program("initdb"), "-D", f"{place}/data", "-U", "postgres", "--auth=scram-sha-256", "--no-sync"]
    subprocess.run([*_become(), *made, f"--pwfile={secret}"], check=True, capture_output=True, cwd=place)
    with (place / "data/pg_hba.conf").open("a") as rules:
        rules.write(f"host all all {database.address}/24 scram-sha-256\n")
    return password


def _become() -> list[str]:
    """What to put before a command, so that it runs as a user whom PostgreSQL accepts."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _account() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None


def _program(name: str) -> str:
    folder = binaries()
    assert folder is not None, "see `unavailable`"
    return str(folder / name)
