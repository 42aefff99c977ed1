"""The mirror against the ledger, row by row."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mirror_world import World, assert_agrees, ended, mlflow_writers

from orchestrator.errors import LongrangeError, MirrorError, UserError
from orchestrator.records.engine import writing
from orchestrator.records.mlflow_mirror import Copied, Mirror
from orchestrator.records.mlflow_runs import data
from orchestrator.records.schema import State


def test_the_store_agrees_with_the_ledger(world: World) -> None:
    assert world.mirror().catch_up() == Copied(runs=5)
    assert_agrees(world)
    status = {run["tags"].get("longrange.state"): run["status"] for run in world.runs().values()}
    assert status == {
        None: "RUNNING",  # the sweep's own: one trial runs, two wait
        "finished": "FINISHED",
        "diverged": "FAILED",
        "failed": "FAILED",
        "cancelled": "KILLED",
    }


def test_both_ways_of_writing_make_the_same_rows(
    world: World, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every column of every table, but for random ids and the place of artifacts."""
    other = World(world.ledger, tmp_path / "other" / "mlflow.db")
    other.file.parent.mkdir()
    shutil.copy(empty_store, other.file)
    world.mirror().catch_up()
    with monkeypatch.context() as changed:
        changed.setattr(mlflow_writers().TableWriter, "of", lambda _: None)
        other.mirror().catch_up()
    assert content(world) == content(other)
    assert len(content(world)["metrics"]) > 10


def content(world: World) -> dict[str, list[tuple[Any, ...]]]:
    ids = {run["run_id"]: f"run of {key}" for key, run in world.runs().items()}
    found = {}
    for name, text in world.query("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        if "run_uuid" not in text and name != "experiments":
            continue
        rows = [
            tuple(ids.get(cell, cell if "mlartifacts" not in str(cell) else cell.rpartition("/")[2]) for cell in row)
            for row in world.query(f"SELECT * FROM {name} WHERE '{name}' <> 'experiments'")
        ]
        found[name] = sorted(rows, key=repr)
    found["data"] = sorted(row for run in world.runs().values() for row in run["data"])
    return found


def test_trials_share_the_dataset_of_their_workload(world: World) -> None:
    world.mirror().catch_up(limit=2)
    world.mirror().catch_up()
    assert world.query("SELECT name, digest FROM datasets") == [("digits", "data-1")]
    assert world.query("SELECT count(*) FROM inputs") == [(5,)]
    client = world.mirror()._client
    run = client.get_run(next(run["run_id"] for key, run in world.runs().items() if key != "parent"))
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("digits", "data-1", "training")


def test_data_without_a_fingerprint_is_known_by_its_configuration(world: World) -> None:
    copy = replace(ended(world.ledger)[0], data_fingerprint="")
    other = replace(copy, spec={**copy.spec, "workload": {"name": "digits", "frames": 16}})
    assert len(data(copy).digest) == 36
    assert data(copy) == data(replace(copy, seed=7))
    assert data(copy).digest != data(other).digest


def test_the_client_is_used_where_tables_are_unknown(world: World, through_client: None) -> None:
    assert world.mirror().catch_up() == Copied(runs=5)
    assert_agrees(world)


def test_runs_can_be_searched_and_compared(world: World) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    run = next(run for run in world.runs().values() if run["tags"].get("longrange.control") == "false")
    expected = {
        "longrange.block": "nl",
        "longrange.backbone": "resnet_tiny",
        "longrange.workload": "digits",
        "longrange.stage": "res3",
        "longrange.insertion": '{"res3": [1]}',
        "longrange.sweep": "<script>alert(1)</script> & co",
    }
    assert expected.items() <= run["tags"].items()
    assert {"recipe.epochs": "2", "insertion.res3": "[1]", "backbone.frames": "8"}.items() <= run["params"].items()
    client = mirror._client
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    assert experiment.name == "<script>alert(1)</script> & co"
    best = client.search_runs(
        [experiment.experiment_id], "tags.`longrange.block` = 'none' and metrics.`final/top1_percent` > 70"
    )
    assert [one.data.params["seed"] for one in best] == ["0"]
    assert [point.step for point in client.get_metric_history(best[0].info.run_id, "train_loss")] == [0, 1]


def test_the_question_is_shown_as_text(world: World, sample: Any) -> None:
    plan = replace(sample.plan(name="x"), question="<img src=x> better?")
    world.ledger.record_plan(plan, now=1.0)
    world.ledger.claim(sample.ids(plan), "me", 1e9, now=60.0)
    world.mirror().catch_up()
    notes = world.query("SELECT value FROM tags WHERE key = 'mlflow.note.content'")
    assert any(note.startswith("&lt;img src=x&gt; better?\n\n") for (note,) in notes)


def test_notes_lead_to_the_dashboard(world: World, sample: Any) -> None:
    plan = sample.plan(name="a) [b](x) & c")
    world.ledger.record_plan(plan, now=1.0)
    world.ledger.claim(sample.ids(plan), "me", 1e9, now=60.0)
    world.mirror().catch_up()
    notes = "\n".join(note for (note,) in world.query("SELECT value FROM tags WHERE key = 'mlflow.note.content'"))
    address = "(http://127.0.0.1:8050/sweep?sweep=a%29+%5Bb%5D%28x%29+%26+c)"
    assert f"[This sweep in the dashboard]{address}" in notes
    for copy in ended(world.ledger):
        assert f"&trial={copy.trial_id})" in notes


def test_a_second_time_copies_nothing(world: World) -> None:
    world.mirror().catch_up()
    before = world.runs()
    assert world.mirror().catch_up() == Copied(runs=0)
    assert world.runs() == before


def test_copies_come_in_portions(world: World) -> None:
    mirror = world.mirror()
    assert [mirror.catch_up(limit=2).runs for _ in range(4)] == [2, 2, 1, 0]
    assert_agrees(world)


def test_a_sweep_that_goes_on_is_followed_to_its_end(world: World, sample: Any) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    info = world.ledger.trials_of("<script>alert(1)</script> & co")
    waiting = [one.trial_id for one in info if one.state in (State.PLANNED, State.RUNNING)]
    world.ledger.apply([event for trial_id in waiting for event in sample.whole(trial_id, at=400.0)], "me")
    assert mirror.catch_up() == Copied(runs=3)
    assert_agrees(world)
    assert (world.runs()["parent"]["status"], world.runs()["parent"]["times"]) == ("FINISHED", (50_000, 403_000))


def test_a_trial_that_ran_again_replaces_its_run(world: World, sample: Any) -> None:
    mirror = world.mirror()
    mirror.catch_up()
    (failed,) = [copy for copy in ended(world.ledger) if copy.state is State.FAILED]
    world.ledger.reset([failed.trial_id])
    world.ledger.claim([failed.trial_id], "me", 1e9, now=500.0)
    assert mirror.catch_up() == Copied(runs=0), "the failed run stays until there is a newer end"
    world.ledger.apply(sample.whole(failed.trial_id, attempt=2, at=600.0), "me")
    assert mirror.catch_up() == Copied(runs=1)
    assert_agrees(world)


def test_one_trial_in_two_sweeps_has_a_run_in_each(world: World, sample: Any) -> None:
    world.ledger.record_plan(sample.plan(arms=1, seeds=1, name="another"), now=700.0)
    assert world.mirror().catch_up() == Copied(runs=6)
    names = world.query("SELECT value FROM tags WHERE key = 'longrange.sweep' ORDER BY value")
    assert names.count(("another",)) == 2, "the sweep's own run and the trial's"


def test_rebuilding_from_nothing_gives_the_same(world: World, empty_store: Path) -> None:
    world.mirror().catch_up()

    def bare() -> dict[str, Any]:
        changing = ("run_id", "mlflow.parentRunId")
        return {
            key: {**run, "run_id": "", "tags": {k: v for k, v in run["tags"].items() if k not in changing}}
            for key, run in world.runs().items()
        }

    before = bare()
    assert world.mirror().rebuild() == Copied(runs=5)
    assert bare() == before
    assert_agrees(world)


def test_a_store_that_was_lost_is_filled_anew(world: World, empty_store: Path, tmp_path: Path) -> None:
    world.mirror().catch_up()
    fresh = World(world.ledger, tmp_path / "fresh.db")
    shutil.copy(empty_store, fresh.file)
    with writing(world.ledger.engine) as connection:  # the same address, another file behind it
        connection.exec_driver_sql("UPDATE mirror SET store = ?", (fresh.uri,))
    assert fresh.mirror().catch_up() == Copied(runs=5)
    assert_agrees(fresh)


def test_a_sweeps_run_that_was_deleted_by_hand_is_made_anew_and_gets_its_trials(world: World) -> None:
    world.mirror().catch_up()
    mirror = world.mirror()
    mirror._client.delete_run(world.runs()["parent"]["run_id"])
    mirror.catch_up()
    assert_agrees(world)


def test_a_restored_experiment_brings_nothing_back_twice(world: World) -> None:
    world.mirror().catch_up()
    mirror = world.mirror()
    mirror.rebuild()  # deletes runs, which MLflow restores with the experiment
    (experiment,) = {one for (one,) in world.query("SELECT experiment_id FROM runs")}
    mirror._client.delete_experiment(str(experiment))
    world.mirror().catch_up()
    assert_agrees(world)
    mirror._client.delete_experiment(str(experiment))
    mirror._client.restore_experiment(str(experiment))  # by hand
    world.mirror().catch_up()
    assert_agrees(world)


def test_artifacts_lie_beside_the_store(world: World, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    mirror = world.mirror()
    for text in ("old", "<html>ü</html>"):
        report.write_text(text)
        mirror.log_artifacts("<script>alert(1)</script> & co", [report])
    parent = world.runs()["parent"]["run_id"]
    assert [one.path for one in mirror._client.list_artifacts(parent)] == ["report.html"]
    (stored,) = (world.file.parent / "mlartifacts").rglob("report.html")
    assert stored.read_text() == "<html>ü</html>"
    with pytest.raises(UserError, match="no sweep 'nothing'"):
        mirror.log_artifacts("nothing", [report])
    with pytest.raises(UserError, match=r"are no files: .*none\.html"):
        mirror.log_artifacts("<script>alert(1)</script> & co", [tmp_path / "none.html"])


@pytest.mark.parametrize(
    "uri",
    ["http://me:hunter2@127.0.0.1:9", "postgresql+psycopg2://me:hunter2@127.0.0.1:9/db", "sqlite:////proc/none/m.db"],
)
def test_a_store_that_does_not_answer_is_one_typed_error(
    world: World, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(MirrorError, match="the ledger has everything, `longrange mirror` catches up") as caught:
        Mirror(uri, world.ledger).catch_up()
    assert isinstance(caught.value, LongrangeError)
    assert "hunter2" not in str(caught.value)
    assert world.mirror().catch_up() == Copied(runs=5)


def test_a_file_that_is_no_store(world: World, tmp_path: Path) -> None:
    file = tmp_path / "text.db"
    file.write_text("not a database" * 100)
    with pytest.raises(MirrorError, match="not a database"):
        Mirror(f"sqlite:///{file}", world.ledger).catch_up()
