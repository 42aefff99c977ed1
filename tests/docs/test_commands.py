"""Every command of the pages runs, in the order a reader meets them, on shorter trials.

Left out are those that need machines of their own (`tests/cluster` runs the same over real services), those on data
sets, runs or packages that only the reader has (`OWN`), and those that are meant to fail, which `test_docs.py` compares
with the messages the page shows.
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pages import DOCS, OUTSIDE, ROOT, WRITTEN, commands, fences
from videos import make_folder

from orchestrator.cli import cli

OWN = ("kinetics400", "folder-depth", "runs/tsn", "runs/tsm8", "runs/hgnl", "--ray", "block=mean")
# What a reader waits minutes for; the test runs the same with less of it.
SHORT = ["--set", "recipe.epochs=1", "--executor", "inline", "--quiet"]
FEWER_CLIPS = [f"workload.{key}" for key in ("train_clips=64", "validation_clips=40", "still_images=128")]


def runnable(page: Path) -> list[str]:
    """The commands of a page that need nothing the tests do not have."""
    return [command for command in commands(page) if not any(own in command for own in OWN)]


PAGES = [
    pytest.param(page, id=str(page.relative_to(ROOT)))
    for page in [*WRITTEN, *OUTSIDE]
    if page.exists() and page.name != "troubleshooting.md" and runnable(page)
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sweeps of all pages in files of their names, in which the examples can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    for folder in (DOCS / "examples", DOCS / "examples" / "my_block"):
        monkeypatch.syspath_prepend(str(folder))
    for page in [*WRITTEN, ROOT / "README.md"]:
        for text in fences(page, "yaml"):
            if isinstance(document := yaml.safe_load(text), dict) and {"name", "base"} <= set(document):
                (tmp_path / f"{document['name']}.yaml").write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = runnable(page)
    if page.name == "README.md":  # its block is another one than the package's under docs/examples, of the same name
        (own,) = [text for text in fences(page, "python") if "# my_block.py" in text]
        (place / "my_block.py").write_text(own)
        monkeypatch.syspath_prepend(str(place))
    for name in ("my_block", "my_workload"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    if "longrange attention runs/quickstart" in " ".join(told):  # names arms, by labels that need the others
        run("longrange run quickstart --set=seeds=1")
    elif "runs/quickstart" in " ".join(told) and "longrange run quickstart" not in told:
        run("longrange run quickstart")
    if "/data/mine" in " ".join(told):
        make_folder(place / "data")
    for command in told:
        run(command.replace("/data/mine", str(place / "data")).replace("/fast/mine", str(place / "fast")))


def run(command: str) -> None:
    """Run a command as a reader would, `run` with less to train, `ui` until it answers."""
    words = shlex.split(command)[1:]
    if words[0] == "ui":
        serve(words)
        return
    if words[0] == "run":
        words += [*SHORT, *([] if "corners.yaml" in words else ["--set=" + value for value in FEWER_CLIPS])]
        words += ["--set=seeds=1"] if "every-block" in words else []
        whole = "--only" in words or "--set=seeds=1" in words
        words += ["--only", "block.name=se"] if "quickstart" in words and not whole else []
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, (command, result.output, result.exception)
    assert result.output.strip(), command


def serve(words: list[str]) -> None:
    """Start a server, and end it once its first page is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "longrange"), *words, "--port", port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and server.poll() is None:
                with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert page.status == 200
                    return
                time.sleep(0.2)
            server.kill()
            assert server.stdout is not None
            raise AssertionError(f"{words} does not answer: {server.stdout.read()[-2000:]}")
        finally:
            server.kill()


def test_every_page_with_commands_is_run() -> None:
    told = {page for page in [*WRITTEN, *OUTSIDE] if page.exists() and commands(page)}
    left_out = {page.name for page in told} - {page.values[0].name for page in PAGES}  # type: ignore[union-attr]
    assert left_out == {"cluster.md", "ensemble.md", "troubleshooting.md"}
