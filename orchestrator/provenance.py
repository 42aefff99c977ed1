"""What a trial ran on, and which sources could have changed its result. No torch here, and fast after the first call.

`environment` is asked in the worker: its facts are equal on equal machines, so that thousands of trials share one row.
`driver` adds what belongs to the process that runs the sweep. Nothing is read from environment variables except to find
secrets that must not be stored.

Git facts are those of longrange's own source tree, if it is a checkout (an installed wheel has a version instead).
Blocks and workloads that live elsewhere are covered by `code_fingerprint`, which hashes whatever they are made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from typing import Any

from orchestrator.trial import ID_DIGITS
from workloads.processor import processor_name

LIBRARIES = ("longrange", "torch", "numpy", "ray", "mlflow", "deepspeed", "av", "fvcore", "scikit-learn")
SOURCES = ("blocks", "workloads", "orchestrator", "dashboards", "pyproject.toml", "constraints.txt")
ROOT = Path(__file__).resolve().parents[1]

# `--notify` too: whoever knows the address of a chat's webhook can write there.
SECRET_NAME = re.compile(r"token|secret|passw|pwd|credential|api_?-?key|access_?-?key|auth|notify", re.IGNORECASE)
URL_LOGIN = re.compile(r"(?<=://)[^/?#\s]+@")  # up to the last @: some passwords hold one
URL_SECRET = re.compile(r"([?&;][^=&\s]*=)[^&\s]*")
HIDDEN = "***"
FOLDERS = ("PWD", "OLDPWD")  # where a shell is and was: the P is for print, not for pass


@cache
def environment() -> Mapping[str, Any]:
    """Facts about this machine and installation, ready for JSON; computed once per process (about 0.2 s)."""
    gpus, gpu_driver = _gpus()
    return {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "gpus": gpus,
        "gpu_driver": gpu_driver,
        "versions": versions(LIBRARIES),
        "installed": _installed(),
        "constraints": _file_hash(ROOT / "constraints.txt"),
        "git_sha": _git("rev-parse", "-q", "--verify", "HEAD").decode().strip() or None if _is_checkout() else None,
        "git_diff": diff[0] if (diff := working_diff()) else None,
    }


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def driver() -> Mapping[str, Any]:
    """Facts about the process that runs a sweep: its command line without secrets, host and process id."""
    return {"command": list(without_secrets(sys.argv)), "host": socket.gethostname(), "pid": os.getpid()}


@cache
def working_diff() -> tuple[str, bytes] | None:
    """Uncommitted changes of longrange's own sources: their id (16 hex digits) and zlib-compressed text.

    Holds changed and new files of the four packages, nothing else of the folder; None without changes or checkout.
    """
    if not _is_checkout():
        return None
    text = _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--binary", "--", *SOURCES)
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *SOURCES).decode(errors="surrogateescape")
    for name in filter(None, new.split("\0")):
        text += _git("diff", "--no-index", "--no-color", "--no-ext-diff", "--binary", "--", os.devnull, name)
    if not text:
        return None
    return hashlib.sha256(text).hexdigest()[:ID_DIGITS], zlib.compress(text)


def without_secrets(words: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterable[str]:
    """A command line in which logins in URLs, values of URL options, tokens and passwords are replaced by `***`.

    A word is a secret if the option before it, or the name before its `=`, sounds like one, or if it holds the value
    of an environment variable (of `environ`, by default the process's) whose name does.
    """
    given = os.environ if environ is None else environ
    known = [value for name, value in given.items() if _is_secret(name) and len(value) >= 6]
    after_secret_option = False
    for word in words:
        name, equals, _ = word.partition("=")
        if after_secret_option and not word.startswith("-"):
            shown = HIDDEN
        elif equals and SECRET_NAME.search(name) and "://" not in name:
            shown = f"{name}={HIDDEN}"
        else:
            shown = URL_LOGIN.sub(f"{HIDDEN}@", word)
            shown = URL_SECRET.sub(rf"\1{HIDDEN}", shown) if "://" in shown else shown
        for secret in known:
            shown = shown.replace(secret, HIDDEN)
        after_secret_option = word.startswith("-") and not equals and bool(SECRET_NAME.search(word))
        yield shown


def _is_secret(variable: str) -> bool:
    return variable not in FOLDERS and bool(SECRET_NAME.search(variable))


def _installed() -> str:
    """One hash over every installed distribution and its version: equal hashes, equal software."""
    names = {f"{found.metadata['Name']}=={found.version}" for found in distributions()}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:ID_DIGITS]


def _file_hash(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:ID_DIGITS] if file.is_file() else None


def _gpus() -> tuple[list[str], str | None]:
    """Names of the NVIDIA GPUs and the driver's version, without starting CUDA: a driver process must not hold one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [], None
    lines = _run([tool, "--query-gpu=name,driver_version", "--format=csv,noheader"], Path.cwd()).decode(
        errors="replace"
    )
    rows = [line.rsplit(", ", 1) for line in lines.splitlines() if ", " in line]
    return [name for name, _ in rows], rows[0][1] if rows else None


@cache
def _is_checkout() -> bool:
    """Whether this very file is under version control, not just some folder above an installed package."""
    return bool(_git("ls-files", "--", "orchestrator/provenance.py"))


def _git(*words: str) -> bytes:
    git = shutil.which("git")
    return b"" if git is None else _run([git, *words], ROOT)


def _run(command: Sequence[str], folder: Path) -> bytes:
    """The output of a command; empty if it fails, since provenance must never stop a trial."""
    quiet = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=quiet, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout
