"""Which sources count for a trial's result: what a changed file changes, and what it does not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator import fingerprint
from orchestrator.fingerprint import DECLARATIONS, code_fingerprint, fingerprint_of
from workloads.spec import TrialSpec


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    for cached in (fingerprint_of, fingerprint._source, fingerprint._file, fingerprint._folder):
        cached.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of somebody's blocks: `mine.block` uses `mine.helper`; `mine.other` is by itself."""
    folder = tmp_path / "mine"
    (folder / "deep").mkdir(parents=True)
    sources = {
        "__init__.py": "",
        "block.py": "def build():\n    from . import helper\n    from .deep.far import thing\n",
        "helper.py": "import math\nimport numpy\n",
        "deep/__init__.py": "",
        "deep/far.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mine.types_only\nthing = 1\n",
        "types_only.py": "",
        "other.py": "",
    }
    for name, text in sources.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("block.py", True),
        ("helper.py", True),
        ("deep/far.py", True),
        ("deep/__init__.py", True),
        ("__init__.py", True),
        ("types_only.py", False),
        ("other.py", False),
    ],
)
def test_a_change_counts_where_the_module_reaches(package: Path, name: str, counts: bool) -> None:
    before = fingerprint_of(("mine.block",))
    (package / name).write_text((package / name).read_text() + "\n# a comment is enough\n")
    assert fingerprint_of(("mine.block",)) == before, "asked once per process"
    _forget()
    assert (fingerprint_of(("mine.block",)) != before) is counts


def test_nothing_is_imported(package: Path) -> None:
    (package / "block.py").write_text("raise SystemExit\n")
    fingerprint_of(("mine.block",))
    assert not [name for name in sys.modules if name.partition(".")[0] == "mine"]


def test_line_ends_do_not_matter(package: Path) -> None:
    before = fingerprint_of(("mine.block",))
    (package / "block.py").write_bytes((package / "block.py").read_bytes().replace(b"\n", b"\r\n"))
    _forget()
    assert fingerprint_of(("mine.block",)) == before


def test_a_single_file_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lonely_block.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    before = fingerprint_of(("lonely_block",))
    (tmp_path / "lonely_block.py").write_text("a = 2\n")
    _forget()
    assert fingerprint_of(("lonely_block",)) != before


def spec(block: str, **changes: Any) -> TrialSpec:
    given = {
        "backbone": {"name": "resnet_tiny"},
        "block": {"name": block},
        "workload": {"name": "digits"},
        "recipe": {"name": "quick"},
        "protocol": {"name": "centre"},
        "seed": 0,
    }
    return TrialSpec.model_validate({**given, **changes})


def _reached(block: str) -> set[str]:
    modules = (f"blocks.{block}", "workloads.backbones.families", "workloads.data.digits_config", fingerprint.BUILDER)
    return fingerprint._closure(modules, frozenset({"blocks", "workloads"}))


def test_a_trial_counts_its_own_block_and_no_other() -> None:
    reached = _reached("rnl")
    assert {
        "blocks.rnl",
        "blocks.base",
        "workloads.train",
        "workloads.backbones.model",
        "workloads.data.digits",
    } <= reached
    assert not {"blocks.pnl", "blocks.bat", "blocks.hgnl", "workloads.data.folder"} & reached
    assert code_fingerprint(spec("rnl")) != code_fingerprint(spec("pnl"))


def test_seed_and_settings_do_not_matter() -> None:
    assert code_fingerprint(spec("rnl")) == code_fingerprint(spec("rnl", seed=3, recipe={"name": "quick", "epochs": 9}))


def test_adding_a_name_to_a_registry_does_not_void_results() -> None:
    assert not DECLARATIONS & _reached("rnl")
    assert {"workloads.recipes", "workloads.protocols", "blocks.configs"} <= _reached("rnl"), "these compute things"
