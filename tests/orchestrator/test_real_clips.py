"""Real clips end to end: plan, train control and NL, report, ensemble; a tiny version of the shipped `folder-depth`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from videos import SHARED

from orchestrator.cli import cli

DEPTH = SHARED / "msr_action3d_depth"
TINY = (
    f"workload.root={DEPTH}",
    "workload.draw_train=4",
    "workload.draw_validation=3",
    "recipe.epochs=2",
    "recipe.warmup_epochs=0.5",
    "seeds=1",
)


def longrange(*words: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not DEPTH.is_dir(), reason="the real depth clips are not on this machine")
def test_control_and_non_local_on_real_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path / "cache"))
    chosen = [word for text in TINY for word in ("--set", text)]
    chosen += ["--only", "block.name=nl"]
    planned = json.loads(longrange("plan", "folder-depth", *chosen, "--json"))
    assert planned["data_problems"] == []
    assert planned["estimate"]["trials"] == 2
    run = tmp_path / "run"
    quiet = ("--executor", "inline", "--mlflow", "off", "--quiet", "--json")
    done = json.loads(longrange("run", "folder-depth", *chosen, "--out", run, *quiet))
    assert done["ran"] == {"finished": 2}
    states = json.loads(longrange("status", run, "--json"))["arms"]
    assert states == {"none": {"finished": 1}, "nl": {"finished": 1}}
    mixed = json.loads(longrange("ensemble", f"{run}::none", f"{run}::nl", "--json"))
    assert mixed["clips"] == 20 * 3
    assert all(0 <= member["rating"]["top1_percent"] <= 100 for member in mixed["members"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "msr-action3d-depth" in page
