"""The verbs that make pictures, on a run of the embedded workload: with kept checkpoints and without."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from orchestrator import api
from orchestrator.cli import cli
from orchestrator.errors import UserError
from orchestrator.sweep import Sweep

SMALL = {"name": "digits", "train_clips": 64, "validation_clips": 32, "still_images": 0}
NL = {"name": "nl", "scale": "sqrt"}
ARMS = [{"block": NL}, {"block": {"name": "pnl", "n": 2}}]


def sweep() -> Sweep:
    base = {"workload": SMALL, "insertion": {"res3": [0]}, "recipe": {"epochs": 1, "batch": 32}}
    return Sweep.model_validate({"name": "tiny", "base": base, "axes": {"list": ARMS}, "seeds": [4]})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose checkpoints were not kept."""
    root = tmp_path_factory.mktemp("pictures") / "run"
    outcome = api.run(sweep(), out=root, executor="inline", mlflow="off")
    assert outcome.ran == {"finished": 3}
    return root


def longrange(*words: object) -> None:
    cli.main([str(word) for word in words], standalone_mode=False)


def test_without_checkpoints_a_trial_is_trained_again_and_gives_the_recorded_scores(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import dashboards
    from dashboards.attention import read

    run = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    page = tmp_path / "attention.html"
    asked = ("attention", run, "nl", "pnl", "none", "--clip", 3, "--clip", 1, "--position", "2,5,6", "-o", page)
    longrange(*asked)
    said = capfd.readouterr()
    assert said.err.count("training it again") == 3
    assert said.out.strip() == str(page)
    text = page.read_text()
    assert "validation-00003" in text
    assert "frame 2, row 5, column 6" in text
    assert "pnl: each scale" in text
    stored = dashboards.open(run).sweep("tiny").top_predictions([3, 1], ["nl"])
    assert list(stored["class_name"]) == [f"digit {label}" for label in stored["class"]]
    maps = [read(path) for path in sorted((run / "attention").glob("*.npz"))]
    assert all(each.classes == tuple(f"digit {label}" for label in range(10)) for each in maps)
    assert any(
        np.array_equal(each.top_classes.ravel(), stored["class"])
        and np.allclose(each.top_scores.ravel(), stored["score"], atol=1e-3)
        for each in maps
    ), "the network that was trained again is the one the ledger knows"
    longrange(*asked)
    assert "training" not in capfd.readouterr().err, "what was made is kept"


def test_kept_checkpoints_are_used(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    api.run(sweep(), out=run, executor="inline", mlflow="off", only=["block.name=nl"], keep_checkpoints=True)
    longrange("attention", run, "nl", "-o", tmp_path / "attention.html")
    assert "training" not in capfd.readouterr().err
    assert not (run / "attention" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rnl",), "unknown arm 'rnl'; use one of: none, nl, pnl"),
        (("nl", "--seed", 9), "no finished trial with seed 9: 4"),
        (("nl", "--position", "1,2"), "frame,row,column, given '1,2'"),
        (("nl", "--position", "9,0,0"), "clip of 4x16x16"),
        (("nl", "--clip", 32), r"validation clips are 0\.\.31"),
    ],
)
def test_what_cannot_be_shown_says_what_can(
    folder: Path, words: tuple[object, ...], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=said):
        longrange("attention", folder, *words, "-o", tmp_path / "attention.html")
    assert not (tmp_path / "attention.html").exists()


def test_a_file_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a folder"):
        longrange("attention", tmp_path / "nowhere", "nl")


def test_figures_are_written_where_they_are_wanted(folder: Path, tmp_path: Path) -> None:
    for kind, words in (("frontier", ("--zoom", "--theme", "dark")), ("curves", ("--arm", "nl", "--width", "page"))):
        longrange("figure", folder, kind, "-o", tmp_path / f"{kind}.svg", *words)
        assert (tmp_path / f"{kind}.svg").read_text().startswith("<?xml")
    with pytest.raises(UserError, match="no block of this sweep has two arms"):
        longrange("figure", folder, "heatmap", "-o", tmp_path / "a.pdf")


def test_attention_is_a_figure_for_a_paper_where_the_file_says_so(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(folder, tmp_path / "run")
    longrange("attention", run, "nl", "pnl", "--clip", 3, "-o", tmp_path / "look.pdf")
    files = [tmp_path / "look.pdf", tmp_path / "look-2.pdf"]  # both blocks, then PNL's scales one by one
    assert capfd.readouterr().out.split() == list(map(str, files))
    assert all(file.read_bytes().startswith(b"%PDF") for file in files)
    with pytest.raises(UserError, match=r"give a page \(.html\) or a figure \(.pdf, .svg, .png\)"):
        longrange("attention", run, "nl", "-o", tmp_path / "look.gif")


def test_a_report_and_a_table_are_judged_by_what_is_asked_for(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    longrange("report", folder, "--metric", "top5_percent", "--cost", "train_seconds", "-o", page)
    text = page.read_text()
    assert "Top-5 accuracy, per seed" in text
    assert "Training time (s)" in text
    with pytest.raises(UserError, match="unknown metric 'top6_percent'; use one of: top1_percent"):
        longrange("report", folder, "--metric", "top6_percent", "-o", tmp_path / "no.html")
    with pytest.raises(UserError, match="unknown cost 'macs'; use one of: executed_macs"):
        longrange("report", folder, "--cost", "macs", "-o", tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()
