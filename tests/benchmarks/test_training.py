"""What the training benchmark makes of its cases; the cases themselves need minutes or a GPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2]))  # benchmarks/ is no part of the package

from benchmarks import record, training

CASE: dict[str, Any] = {"block": "nl", "setting": "plain-tf32", "device": "cuda", "batch": 16, "peak_tflops": None}


def named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)


@pytest.mark.parametrize(
    ("device", "percent"),
    [("NVIDIA H100 80GB HBM3", 100.0), ("NVIDIA H200", 100.0), ("NVIDIA A100-SXM4-80GB", 494.7 / 1.56)],
)
def test_mfu_is_six_times_the_macs_over_the_peak(device: str, percent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    named(device, monkeypatch)
    macs = 494_700_000_000 // 6  # of a clip: 16 of them in 16 ms are 494.7 TFLOP/s, the first two devices' whole peak
    found = training._mfu(CASE, training.SETTINGS["plain-tf32"], macs, 16.0)
    assert found == pytest.approx(percent)


@pytest.mark.parametrize("device", ["NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GH200 480GB"])
def test_cards_with_other_peaks_have_no_mfu_until_one_is_given(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named(device, monkeypatch)
    setting = training.SETTINGS["plain-tf32"]
    assert training._mfu(CASE, setting, 10**9, 1.0) is None
    assert training._mfu(CASE | {"peak_tflops": 96.0}, setting, 10**9, 1.0) == pytest.approx(100.0)


def test_a_case_that_does_not_fit_runs_with_fewer_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def spawn(module: str, case: dict[str, Any], seconds: float) -> dict[str, Any]:
        tried.append(case["batch"])
        if case["batch"] > 4:
            return {"error": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."}
        return {"clips_per_second": 8.0, "latency_ms": [500.0]}

    monkeypatch.setattr(record, "spawn", spawn)
    row = training._measured(dict(CASE), time.monotonic() + 60)
    assert tried == [16, 8, 4]
    assert row["batch"] == 4
    assert "error" not in row


def test_other_errors_are_kept_and_nothing_starts_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "spawn", lambda *_: {"error": "no such thing"})
    assert training._measured(dict(CASE), time.monotonic() + 60)["error"] == "no such thing"
    assert training._measured(dict(CASE), time.monotonic() - 1)["error"] == "no time left"


def test_speedups_are_per_clip_and_the_best_is_named() -> None:
    rows: list[dict[str, Any]] = []
    for setting, batch, clips in [("plain-tf32", 4, 10.0), ("auto-tf32", 16, 18.0), ("auto-bf16", 16, 31.0)]:
        rows.append({"block": "nl", "setting": setting, "batch": batch, "clips_per_second": clips})
        training._add_speedup(rows)
    rows.append({"block": "rnl", "setting": "plain-tf32", "error": "no time left"})
    rows.append({"block": "rnl", "setting": "auto-tf32", "batch": 16, "clips_per_second": 5.0})
    training._add_speedup(rows)
    assert [row.get("speedup") for row in rows] == [1.0, 1.8, 3.1, None, None]
    assert training._best(rows) == {"nl": {"setting": "auto-bf16", "speedup": 3.1}}
