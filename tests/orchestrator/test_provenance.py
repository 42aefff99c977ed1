"""What is recorded of a machine, and that no secret is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import provenance
from orchestrator.provenance import HIDDEN, driver, environment, without_secrets, working_diff


def test_facts_are_json_and_complete() -> None:
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cores"] == os.cpu_count()
    assert facts["versions"]["torch"].startswith("2.")
    assert {"host", "platform", "cpu", "gpus", "gpu_driver", "installed", "constraints", "git_sha"} <= set(facts)
    assert environment() is facts, "asked once per process"


def test_it_imports_neither_torch_nor_ray_nor_mlflow() -> None:
    code = (
        "import sys; from orchestrator.provenance import environment, driver; import orchestrator.fingerprint\n"
        "environment(); driver(); heavy = {'torch', 'ray', 'mlflow'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_of_the_environment_variables_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "s3cr3t-value")
    monkeypatch.setenv("HARMLESS", "harmless-value")
    monkeypatch.setattr(sys, "argv", ["longrange", "run", "x=s3cr3t-value", "sqlite:///a b.db"])
    stored = json.dumps([dict(environment()), dict(driver())])
    assert "s3cr3t-value" not in stored
    assert "harmless-value" not in stored
    assert driver()["command"] == ["longrange", "run", f"x={HIDDEN}", "sqlite:///a b.db"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["run", "quickstart", "--set", "seeds=1"], ["run", "quickstart", "--set", "seeds=1"]),
        (["--ledger", "postgresql://me:pw@host/db"], ["--ledger", "postgresql://***@host/db"]),
        (["--mlflow", "http://me:p@ss@host:5000"], ["--mlflow", "http://***@host:5000"]),
        (["--mlflow=https://tok@host/?a=b&key=c"], ["--mlflow=https://***@host/?a=***&key=***"]),
        (["--token", "abc", "--out", "d"], ["--token", "***", "--out", "d"]),
        (["--token", "--out", "d"], ["--token", "--out", "d"]),
        (["--api-key=abc", "password=abc"], ["--api-key=***", "password=***"]),
        (["AWS_SECRET_ACCESS_KEY=abc", "block.key=3"], ["AWS_SECRET_ACCESS_KEY=***", "block.key=3"]),
        (["a file?x=y", "50%"], ["a file?x=y", "50%"]),
        (["wrapped-hunter2-in-a-word"], ["wrapped-***-in-a-word"]),
    ],
)
def test_secrets_are_hidden(given: list[str], shown: list[str]) -> None:
    assert list(without_secrets(given, {"DB_PASSWORD": "hunter2", "PASS": "xx", "HOME": "quickstart"})) == shown


def test_the_folder_one_stands_in_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells export it as PWD, which reads like a password."""
    words = ["run", "/home/me/study/x.yaml", "sqlite:////home/me/study/mlflow.db"]
    for name in ("PWD", "OLDPWD"):
        monkeypatch.setenv(name, "/home/me/study")
    assert list(without_secrets(words)) == words
    assert list(without_secrets(words, {"DB_PWD": "/home/me/study"}))[1] == f"{HIDDEN}/x.yaml"


def test_no_environment_hides_nothing_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "hunter2")
    assert list(without_secrets(["a-hunter2"], {})) == ["a-hunter2"]


def _repository(folder: Path) -> None:
    (folder / "orchestrator").mkdir(parents=True)
    (folder / "orchestrator" / "provenance.py").write_text("first\n")
    (folder / "notes.txt").write_text("private\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], cwd=folder, check=True)


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """Each test asks for itself; the next module must not see a test's answers."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for cached in (provenance._is_checkout, working_diff, environment):
        cached.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout in the place of longrange's own."""
    folder = tmp_path / "a checkout ü"
    _repository(folder)
    monkeypatch.setattr(provenance, "ROOT", folder)
    return folder


def test_a_clean_checkout_has_a_sha_and_no_diff(checkout: Path) -> None:
    assert len(environment()["git_sha"]) == 40
    assert environment()["git_diff"] is None
    assert working_diff() is None


def test_a_checkout_without_a_commit_has_no_sha(checkout: Path) -> None:
    subprocess.run(["git", "checkout", "-q", "--orphan", "unborn"], cwd=checkout, check=True)
    assert environment()["git_sha"] is None


def test_a_diff_holds_changed_and_new_sources_and_nothing_private(checkout: Path) -> None:
    (checkout / "orchestrator" / "provenance.py").write_text("second\n")
    (checkout / "orchestrator" / "new ü.py").write_text("third\n")
    (checkout / "notes.txt").write_text("very private\n")
    (checkout / ".env").write_text("TOKEN=abc\n")
    found = working_diff()
    assert found is not None
    key, content = found
    text = zlib.decompress(content).decode()
    assert "-first\n+second\n" in text
    assert "+third\n" in text
    assert "private" not in text
    assert "TOKEN" not in text
    assert environment()["git_diff"] == key


def test_an_installed_package_inside_a_repository_is_no_checkout(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.venv/lib/site-packages` of some project: that project's sha says nothing about longrange."""
    installed = checkout / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "ROOT", installed)
    assert (environment()["git_sha"], environment()["git_diff"]) == (None, None)


def test_a_machine_without_git_still_has_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert environment()["git_sha"] is None
    assert environment()["gpus"] == []
