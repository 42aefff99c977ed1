"""A sweep that moves: whole between both databases, twice without effect, never over a finished trial, never out of
its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import UserError
from orchestrator.records import archive
from orchestrator.records.archive_rows import OF_TRIAL, SHARED
from orchestrator.records.engine import reading
from orchestrator.records.ledger import Ledger
from orchestrator.records.merging import Merged
from orchestrator.records.schema import Base, LeaseRow, PredictionsRow, SweepArmRow, TrialRow
from orchestrator.records.sql import table

NAME = "which <block>?"


@pytest.fixture
def move(source: Ledger, tmp_path: Path) -> Callable[..., Merged]:
    """Export `source` and import it elsewhere."""

    def moved(target: Ledger, now: float = 1000.0) -> Merged:
        file = tmp_path / "sweep.longrange.tar"
        archive.export(source, NAME, file)
        with archive.opened(file) as content:
            return content.into(target, now)

    return moved


def rows(ledger: Ledger, kind: type[Base]) -> list[dict[str, Any]]:
    with reading(ledger.engine) as connection:
        found = [dict(row) for row in connection.execute(select(table(kind))).mappings()]
    return sorted(found, key=lambda row: json.dumps(row, default=str, sort_keys=True))


def everything(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    return {kind.__tablename__: rows(ledger, kind) for kind in Base.__subclasses__()}


def test_a_moved_sweep_is_the_same_sweep(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 6, "completed": 0, "unchanged": 0}
    ids = sample.ids(sample.plan())
    for kind in (*OF_TRIAL, *SHARED):
        ours = rows(source, kind)
        if kind is LeaseRow:
            ours = [row | {"lease_until": 0.0} for row in ours]
        running = [row for row in ours if row.get("trial_id") == ids[4]]
        assert rows(ledger, kind) == [row for row in ours if row not in running], kind.__tablename__
    states = {trial.trial_id: (trial.state.value, trial.owner) for trial in ledger.trials_of(NAME)}
    assert [states[key][0] for key in ids] == ["finished", "finished", "diverged", "failed", "planned", "planned"]
    assert {owner for _, owner in states.values()} == {None}
    here, there = ledger.sweep(NAME), source.sweep(NAME)
    assert here is not None
    assert there is not None
    assert (here.definition, here.rejections, here.created_at) == (there.definition, there.rejections, 50.0)
    assert len(ledger.claim(ids, "another", 60.0, now=1000.0)) == 2, "what had not ended can go on here"


def test_it_travels_back_from_either_database(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], tmp_path: Path
) -> None:
    move(ledger)
    one, two = tmp_path / "one.tar", tmp_path / "two.tar"
    archive.export(ledger, NAME, one)
    with Ledger.open(tmp_path / "third.db") as third, archive.opened(one) as content:
        content.into(third, 1.0)
        archive.export(third, NAME, two)
    assert one.read_bytes() == two.read_bytes(), "equal rows give equal bytes, whatever database held them"


def test_a_second_time_changes_nothing(ledger: Ledger, move: Callable[..., Merged]) -> None:
    move(ledger)
    before = everything(ledger)
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 0, "completed": 0, "unchanged": 6}
    assert everything(ledger) == before


def test_what_got_further_elsewhere_comes_home(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    source.reset(ids[3:4])
    source.claim(ids[3:], "later", 60.0, now=5000.0)
    source.apply([*sample.whole(ids[3], attempt=2), *sample.whole(ids[4], attempt=2)], "later")
    assert asdict(move(ledger)) == {"sweep": NAME, "added": 0, "completed": 2, "unchanged": 4}
    assert [trial.state.value for trial in ledger.trials_of(NAME)].count("finished") == 4
    assert rows(ledger, PredictionsRow) == rows(source, PredictionsRow)


def test_trials_that_finished_here_outlive_an_older_archive(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    ledger.claim(ids, "here", 60.0, now=1000.0)
    ledger.apply([event for key in ids[4:] for event in sample.whole(key)], "here")
    before = everything(ledger)
    move(ledger)
    assert everything(ledger) == before


def test_a_finished_trial_that_differs_stops_the_whole_import(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    ids = sample.ids(sample.plan())
    with reading(source.engine) as connection:
        uid = connection.exec_driver_sql("SELECT uid FROM sweeps").scalar_one()
    ledger.record_plan(sample.plan(), now=50.0)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE sweeps SET uid = '{uid}'")
    ledger.claim(ids[1:2], "here", 60.0, now=90.0)
    events = sample.whole(ids[1])
    ledger.apply([*events[:-1], sample.ended(ids[1], at=103.0, result=sample.result(top1=76.0))], "here")
    before = everything(ledger)
    with pytest.raises(UserError, match=rf"1 trials finished here and in the archive.*{ids[1]}.*--out"):
        move(ledger)
    assert everything(ledger) == before


def test_another_sweep_of_the_same_name_is_not_mixed_in(
    ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    ledger.record_plan(sample.plan(), now=60.0)
    with pytest.raises(UserError, match="another sweep called"):
        move(ledger)


def test_a_trial_that_runs_here_is_not_overtaken(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    move(ledger)
    ids = sample.ids(sample.plan())
    source.apply([sample.ended(ids[4])], "driver")
    ledger.claim(ids[4:5], "here", 60.0, now=2000.0)
    with pytest.raises(UserError, match=r"running here now.*longrange cancel"):
        move(ledger, now=2030.0)
    assert move(ledger, now=2061.0).completed == 1, "its driver's lease has ended"


def test_the_newer_plan_decides_about_arms(
    source: Ledger, ledger: Ledger, move: Callable[..., Merged], sample: Any
) -> None:
    source.record_plan(sample.plan(arms=2), now=50.0)
    move(ledger)
    source.record_plan(sample.plan(arms=3, seeds=4), now=200.0)
    move(ledger)
    assert len(rows(ledger, SweepArmRow)) == 3
    assert len(ledger.trials_of(NAME)) == 12
    source.record_plan(sample.plan(arms=1, seeds=5), now=300.0)
    move(ledger)
    assert {trial.label for trial in ledger.trials_of(NAME)} == {"arm 0"}
    assert len(rows(ledger, TrialRow)) == 13, "no trial is ever deleted"


def test_artifacts_go_along_but_secrets_links_and_databases_stay(source: Ledger, tmp_path: Path) -> None:
    root = tmp_path / "source"
    for name in ("plan.json", "figures/ü frontier.svg", "run.json", ".hidden", "mlflow.db-wal", "checkpoints/a/s.pt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "outside").symlink_to(tmp_path)
    (root / "link.json").symlink_to(root / "run.json")
    file = tmp_path / "a.tar"
    archive.export(source, NAME, file, artifacts=root)
    target = tmp_path / "target"
    target.mkdir()
    (target / "plan.json").write_text("mine")
    with archive.opened(file) as content:
        assert content.write_files(target) == [target / "plan.json"]
        assert content.write_files(target) == [target / "plan.json"]
    assert (target / "plan.json").read_text() == "mine"
    found = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert found == ["figures/ü frontier.svg", "plan.json"]


def test_a_link_in_the_run_folder_leads_no_file_out_of_it(source: Ledger, tmp_path: Path) -> None:
    (tmp_path / "source" / "figures").mkdir(parents=True)
    (tmp_path / "source" / "figures" / "one.svg").write_text("x")
    file = archive.export(source, NAME, tmp_path / "a.tar", artifacts=tmp_path / "source").archive
    (tmp_path / "outside").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(tmp_path / "outside")
    with archive.opened(file) as content, pytest.raises(UserError, match=r"figures is a link out of .*remove it"):
        content.write_files(tmp_path / "run")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_where_a_file_is_put_aside_is_not_followed(source: Ledger, tmp_path: Path) -> None:
    (tmp_path / "source" / "plan.json").write_text("theirs")
    file = archive.export(source, NAME, tmp_path / "a.tar", artifacts=tmp_path / "source").archive
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run" / ".plan.json.import").symlink_to(tmp_path / "mine")
    with archive.opened(file) as content:
        content.write_files(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "run" / "plan.json").read_text() == "theirs"
    assert not (tmp_path / "run" / "plan.json").is_symlink()
