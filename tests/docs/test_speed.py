"""The page of the blocks' speed says what the benchmark's file says."""

import importlib
import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
MACHINE = {
    "processor": "Some CPU",
    "cores": 2,
    "load_average": [0.25, 0, 0],
    "system": "Linux",
    "packages": {"torch": "9"},
}
ROW = {
    "config": {"name": "nl", "affinity": "gaussian"},
    "map": "res3",
    "shape": [2, 512, 8, 28, 28],
    "dtype": "float32",
    "forward_s_block_auto": [[0.5, 0.9], [0.7, 1.1], [0.6, 1.0]],
    "ratios": {"forward_block": 1.5, "forward_bound": 4.0, "memory_block": 0.3, "memory_map": 0.19},
}
FOUND = {
    "machine": MACHINE,
    "measured_at": "2020-01-01",
    "threads": 2,
    "clock": "wall",
    "rows": [ROW, {**ROW, "forward_s_block_auto": None, "ratios": {}, "error": "killed"}],
    "left_out": [{"config": {"name": "bat"}, "map": "res4", "dtype": "float32"}],
}


@pytest.fixture
def speed(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCS))
    module = importlib.import_module("speed")
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    return module


def test_no_measurement_is_said(speed):
    assert "Nothing has been measured" in speed.speed_page()


@pytest.mark.parametrize(("clock", "milliseconds"), [("wall", "600.0"), ("processor", "1000.0")])
def test_rows_gaps_and_failures(speed, tmp_path, clock, milliseconds):
    (tmp_path / "blocks-cpu.json").write_text(json.dumps({**FOUND, "clock": clock}))
    page = speed.speed_page()
    assert f"| nl gaussian | float32 | {milliseconds} | 1.50 | 4.00 |  |  |  |  | 0.30 | 0.19 |" in page
    assert "| nl gaussian | float32 | failed |" in page
    assert "Some CPU, 2 of 2 cores" in page
    assert "Not measured for want of time: bat on res4." in page
