"""What is wrong with data, weights and configuration is found by the plan, all at once, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import api
from orchestrator.errors import SweepError, UserError
from orchestrator.launch import data_problems
from orchestrator.plan import Plan, make_plan
from orchestrator.planner import plan_sweep
from orchestrator.sweep import parse_sweep
from workloads.backbones.weights import save_weights
from workloads.registry import parse_backbone

QUICK = {"name": "quick", "epochs": 1, "freeze": []}
SMALL = {"name": "digits", "train_clips": 32, "validation_clips": 20, "still_images": 0}


def sweep(base: dict[str, Any], **fields: Any) -> Any:
    axes = {"grid": {"block": [{"name": "nl"}]}}
    return parse_sweep({"name": "s", "base": {"insertion": {"res3": [0]}, **base}, "axes": axes, "seeds": 1, **fields})


def weights(path: Path, **fields: Any) -> Path:
    torch.manual_seed(len(fields))
    tiny = {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": 10, "channels": 1}
    save_weights(parse_backbone({**tiny, **fields}).build(), path)
    return path


def listed(root: Path, *rows: str) -> Path:
    """A data set whose files are empty: plans look at names only."""
    root.mkdir()
    (root / "list.csv").write_text("\n".join(("path,label,split", *rows)) + "\n")
    for row in rows:
        (root / row.split(",")[0]).touch()
    return root


def made(base: dict[str, Any], **fields: Any) -> Plan:
    return make_plan(sweep(base, **fields))


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    root = listed(tmp_path / "data", "a.mp4,x,train", "a.mp4,x,train", "b.mp4,y,val")
    base = {
        "workload": {"name": "folder", "root": str(root), "class_count": 3, "annotation": "list.csv"},
        "backbone": {"name": "resnet_tiny", "classes": 2, "frames": 4, "size": 32},
        "recipe": {"freeze": ["stem", "res9"]},
    }
    with pytest.raises(SweepError) as caught:
        plan_sweep(sweep(base), profiled=False)
    told = str(caught.value)
    for part in (
        "backbone.classes=2, but folder has 3 classes",
        "recipe.freeze must name the first of the stages",
        "before it can run: the splits do not have the same classes: y not in training",
        "x not in validation",
        "1 clips are listed more than once: a.mp4",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("recipe", "protocol", "message"),
    [
        ({"schedule": "linear"}, "centre", "recipe.schedule: input should be 'constant', 'step', 'cosine'"),
        ({}, {"crops": "five"}, "protocol.crops: input should be 'centre', 'three' or 'full'"),
        ({}, "views_10x3", "digits has one view per clip"),
    ],
)
def test_recipes_and_protocols_that_cannot_be(recipe: dict[str, Any], protocol: Any, message: str) -> None:
    with pytest.raises(SweepError, match=message):
        made({"workload": "digits", "recipe": {"name": "quick", **recipe}, "protocol": protocol})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("a.mp4,x,train", "b.mp4,y,train"), "no row of the lists has split 'val'"),
        (("a.mp4,x,train", "b.mp4,y,train", "c.mp4,x,val"), "y not in validation"),
        (("a.mp4,x,train", "a.mp4,y,train", "c.mp4,x,val", "d.mp4,y,val"), "listed more than once: a.mp4"),
        (("a.mp4,x,train", "b.mp4,y,train", "a.mp4,x,val", "d.mp4,y,val"), "listed more than once: a.mp4"),
        (("a.mp4,x,train", "b.mp4,y,train", "c.mp4,z,train", "d.mp4,z,val"), "3 classes are on disk, class_count is 2"),
    ],
)
def test_lists_are_judged_by_the_plan(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    root = listed(tmp_path / "data", *rows)
    workload = {"name": "folder", "root": str(root), "annotation": "list.csv", "class_count": 2}
    assert message in "; ".join(data_problems(made({"workload": workload})))


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"workload.root .* does not exist"):
        made({"workload": {"name": "folder", "root": str(tmp_path / "gone")}})
    planned = made({"workload": {"name": "folder", "root": str(tmp_path / "gone"), "class_count": 2}})
    assert "does not exist" in data_problems(planned)[0]


def test_weights_that_are_not_there_stop_the_plan(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"start: .*gone.pt does not exist"):
        made({"workload": "digits", "start": {"path": str(tmp_path / "gone.pt")}})


def test_weights_that_do_not_fit_are_told_before_anything_runs(tmp_path: Path) -> None:
    file = weights(tmp_path / "seven.safetensors", classes=7)
    base = {"workload": SMALL, "recipe": QUICK, "start": {"path": str(file)}}
    (problem,) = data_problems(made(base))
    assert "fc.weight (ours [10, 64], file [7, 64])" in problem
    with pytest.raises(UserError, match=r"fc\.weight"):
        api.run(sweep(base), out=tmp_path / "run", executor="inline", mlflow="off")
    allowed = {**base, "start": {"path": str(file), "allow": ["fc.*"]}}
    assert data_problems(made(allowed)) == []


def test_starting_weights_are_an_axis_and_equal_files_are_one_arm(tmp_path: Path) -> None:
    one, other = weights(tmp_path / "one.safetensors"), weights(tmp_path / "other.safetensors", dropout=0.1)
    (tmp_path / "copy.safetensors").write_bytes(one.read_bytes())
    paths = [str(one), str(tmp_path / "copy.safetensors"), str(other)]
    torch.manual_seed(9)
    axes = {"grid": {"start.path": paths}}
    planned = made({"workload": "digits", "block": "nl", "start": {"path": paths[0]}}, axes=axes)
    assert len(planned.arms) == 3
    assert len(planned.duplicates) == 1


def test_a_trial_runs_from_weights_and_says_so(tmp_path: Path) -> None:
    file = weights(tmp_path / "w.safetensors")
    done = sweep({"workload": SMALL, "recipe": QUICK, "start": {"path": str(file)}})
    outcome = api.run(done, out=tmp_path / "run", executor="inline", mlflow="off")
    assert outcome.ran == {"finished": 2}
    from orchestrator.records.ledger import Ledger

    with Ledger.open(tmp_path / "run" / "ledger.db", create=False) as ledger:
        trials = [ledger.trial(trial.trial_id) for trial in ledger.trials_of("s")]
    assert all(any("started from w.safetensors" in note for note in trial["notes"]) for trial in trials)
