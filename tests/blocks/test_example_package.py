"""The example of a third party's block is short, keeps the contract, and is found once installed."""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from blocks import registry
from blocks.contract import check_block, report
from orchestrator.cli import cli
from orchestrator.errors import UserError

FOLDER = Path(__file__).resolve().parents[2] / "docs/examples/my_block"


@pytest.fixture
def importable(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield
    sys.modules.pop("my_block", None)


def test_the_block_has_at_most_thirty_lines():
    lines = (FOLDER / "my_block/__init__.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines[1:] if not line.startswith(("from ", "import "))) <= 30


def test_it_keeps_the_contract(importable):
    found = report("my_block:MeanBlock")
    assert found.findings == []
    assert [note for note in found.notes if "no sweep finds it yet" in note and "make 'mean' an entry point" in note]


def test_its_entry_point_makes_the_name_known(importable, monkeypatch):
    declared = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"]["longrange.blocks"]
    points = [importlib.metadata.EntryPoint(*item, registry.ENTRY_POINT_GROUP) for item in declared.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert registry.parse_config({"name": "mean", "bias": False}).bias is False
    assert check_block("mean") == []


def test_a_default_that_is_not_valid_is_one_line(tmp_path, monkeypatch):
    source = (FOLDER / "my_block/__init__.py").read_text()
    assert "bias: bool = True" in source
    (tmp_path / "bad_default.py").write_text(source.replace("bias: bool = True", "bias: bool = 3"))
    monkeypatch.syspath_prepend(tmp_path)
    answer = CliRunner().invoke(cli, ["check-block", "bad_default:MeanBlock"])
    assert isinstance(answer.exception, UserError)
    assert str(answer.exception) == (
        "bad_default:MeanBlock: its default config is not valid: block 'mean': bias must be bool, given 3"
    )
