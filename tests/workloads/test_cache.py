"""Shared files are made once and are whole or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from workloads.cache import content_key, made_once, write_aside


def test_made_once_makes_once(tmp_path):
    calls = []

    def make(path):
        calls.append(path)
        path.write_text("content")

    target = tmp_path / "a folder with spaces é" / "file.bin"
    assert made_once(target, make) == made_once(target, make) == target
    assert len(calls) == 1
    assert target.read_text() == "content"


def test_a_failing_maker_leaves_nothing_and_the_next_one_may_try(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    target = tmp_path / "file.bin"
    with pytest.raises(OSError, match="No space left"):
        made_once(target, fail)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    made_once(target, lambda path: path.write_text("whole"))
    assert target.read_text() == "whole"


def test_a_failing_rewrite_keeps_the_old_file(tmp_path):
    target = tmp_path / "file.bin"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_aside(target, lambda path: path.write_text(str(1 / 0)))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_racing_processes_make_one_file(tmp_path):
    code = """
import sys, time
from pathlib import Path
from workloads.cache import made_once
def make(path):
    (Path(sys.argv[1]) / f"made-{sys.argv[2]}").touch()
    time.sleep(0.3)
    path.write_text("x")
made_once(Path(sys.argv[1]) / "file.bin", make)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen([*command, str(number)], cwd=root) for number in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("made-*"))) == 1


def test_content_key_is_stable_and_tells_values_apart():
    assert content_key("a", {"x": 1, "y": 2}) == content_key("a", {"y": 2, "x": 1})
    assert content_key("a", 1) != content_key("a", 2)
    assert len(content_key()) == 16
