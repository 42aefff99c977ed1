"""Plans that were saved for review: they run as they were reviewed, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator import api, saved
from orchestrator.cli import cli
from orchestrator.errors import UserError

SWEEP = """
name: reviewed
base: {workload: "scripted:Scripted", insertion: {res3: [0]}}
axes: {grid: {block: [nl, rnl]}}
seeds: 2
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """A saved plan of two of three arms."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    words = ["plan", str(tmp_path / "sweep.yaml"), "--only", "block.name=nl", "--save", str(tmp_path / "plan.json")]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return tmp_path / "plan.json"


def change(plan: Path, path: str, value: Any) -> None:
    document = json.loads(plan.read_text())
    *parents, leaf = path.split(".")
    node = document
    for parent in parents:
        node = node[parent]
    node[leaf] = value
    plan.write_text(json.dumps(document))


def test_a_reviewed_plan_runs_as_it_is(plan: Path, tmp_path: Path) -> None:
    trials = {one["trial_id"] for one in json.loads(plan.read_text())["trials"]}
    (tmp_path / "sweep.yaml").unlink()
    outcome = api.run(plan, out=tmp_path / "run", executor="inline", mlflow="off")
    assert outcome.ran == {"finished": 4}
    assert outcome.left == 0
    made = saved.request(str(plan)).plan(profiled=False)
    assert {trial.trial_id for _, trial in made.ordered()} == trials
    assert api.resume(tmp_path / "run").reused == 4, "its --only is remembered"


def test_what_has_run_since_changes_no_review(plan: Path, tmp_path: Path) -> None:
    """Prices follow the ledger, and with them the order; the trials are the same."""
    api.run(plan, out=tmp_path / "run", executor="inline", mlflow="off")
    made = saved.request(str(plan)).plan(ledger=tmp_path / "run" / "ledger.db")
    assert made.past_error is not None
    assert api.run(plan, out=tmp_path / "run", executor="inline", mlflow="off").reused == 4


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("review.sweep.seeds", [0, 1, 2], "2 trials are new"),
        ("review.sweep.seeds", [0], "2 of its 4 trials are no longer planned"),
        ("review.code", {}, None),
    ],
)
def test_another_plan_than_the_reviewed_is_refused(plan: Path, path: str, value: Any, said: str | None) -> None:
    if said is None:
        code = json.loads(plan.read_text())["review"]["code"]
        value, said = dict.fromkeys(code, "0" * 16), "the code of 2 arms has changed"
    change(plan, path, value)
    with pytest.raises(UserError, match=said) as caught:
        saved.request(str(plan)).plan(profiled=False)
    assert "Nothing was started" in str(caught.value)


def test_a_reviewed_plan_takes_no_overrides(plan: Path) -> None:
    with pytest.raises(UserError, match="runs as it is"):
        api.plan(plan, set=["seeds=1"])
    with pytest.raises(UserError, match="runs as it is"):
        api.plan(plan, only=["block.name=nl"])


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"review": {"format": 1}, "trials": [1]}'])
def test_other_files_are_no_plans(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UserError, match=r"saved plan|another version"):
        saved.request(str(tmp_path / "x.json"))


def test_a_plan_of_another_version_says_so(plan: Path) -> None:
    change(plan, "review.format", 99)
    with pytest.raises(UserError, match="another version"):
        saved.request(str(plan))


def test_two_sweeps_never_share_a_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("实验", "эксперимент", "a b"):
        (tmp_path / "sweep.yaml").write_text(SWEEP.replace("reviewed", name), encoding="utf-8")
        assert api.run("sweep.yaml", executor="inline", mlflow="off", set=["seeds=1"]).ran == {"finished": 3}
    assert len(list((tmp_path / "runs").iterdir())) == 3
    (tmp_path / "sweep.yaml").write_text(SWEEP.replace("reviewed", "a-b"))
    with pytest.raises(UserError, match=r"holds another sweep, 'a b': give 'a-b' its own folder with --out"):
        api.run("sweep.yaml", executor="inline", mlflow="off")
