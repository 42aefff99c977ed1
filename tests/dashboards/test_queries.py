from __future__ import annotations

import sqlite3
from pathlib import Path

import dashboard_ledgers as ledgers
import numpy as np
import pytest
from unprivileged import forbid_writing, somebodys_folder

import dashboards
from dashboards.errors import NoResults, UnknownChoice, UnknownSweep
from dashboards.queries import Reader
from orchestrator.errors import LedgerError, LedgerVersionError, UserError
from orchestrator.records import schema as s


@pytest.fixture(scope="module")
def reader(quickstart_path: Path) -> Reader:
    return Reader(quickstart_path)


def test_three_lines_give_frames_and_figures(quickstart_path: Path) -> None:
    sweep = dashboards.open(quickstart_path).sweep("quickstart")
    assert len(sweep.table()) == 21
    assert sweep.frontier().data


def test_sweeps_count_trials_per_state(reader: Reader) -> None:
    row = reader.sweeps().loc["quickstart"]
    assert (row["finished"], row["diverged"], row["failed"], row["planned"]) == (103, 1, 1, 0)


def test_arms_come_in_the_plans_order_with_their_part_in_the_sweep(reader: Reader) -> None:
    arms = reader.arms(1)
    assert list(arms["label"])[:2] == ["none", "nl@res2"]
    assert list(arms.index[arms["is_control"]]) == ["a000000000000000"]
    assert arms["executed_macs"].iloc[0] == 1_620_000


def test_results_are_wide_and_samples_come_as_medians(reader: Reader) -> None:
    results = reader.results(1)
    assert {"top1_percent", "top5_percent", "train_seconds", "latency_ms"} <= set(results)
    assert set(results["latency_ms"]) == {3.1}
    assert len(reader.samples(1, "latency_ms")) == 3 * 103


def test_epochs_are_aggregated_like_pandas_would(reader: Reader) -> None:
    trials = reader.trials(1)
    arm = trials[(trials["arm_id"] == "a000000000000002")]
    values = [reader.trial_epochs(trial)["value"].to_numpy() for trial in arm.index]
    found = reader.epochs(1, "top1_percent")
    found = found[found["arm_id"] == "a000000000000002"]
    assert list(found["n"]) == [5] * ledgers.EPOCHS
    np.testing.assert_allclose(found["mean"], np.mean(values, axis=0))
    np.testing.assert_allclose(found["sd"], np.std(values, axis=0, ddof=1))


def test_predictions_decode_to_what_was_written(reader: Reader) -> None:
    (group,) = reader.predictions(1)
    assert group.clips[3] == "clip0003"
    assert group.labels.shape == (ledgers.CLIPS,)
    trial = next(iter(group.correct))
    scores = reader.scores(trial)
    assert scores is not None
    np.testing.assert_array_equal(scores.argmax(axis=1) == group.labels, group.correct[trial])
    assert reader.scores("nobody") is None


def test_a_run_folder_and_a_url_open_too(quickstart_path: Path) -> None:
    for where in (quickstart_path.parent, f"sqlite:///{quickstart_path}"):
        assert list(dashboards.open(where).sweeps().index) == ["quickstart"]


def test_reading_leaves_the_ledger_untouched(tmp_path: Path) -> None:
    path = ledgers.write(tmp_path / "ledger.db", ledgers.digits_arms()[:2])
    before = path.read_bytes(), sorted(tmp_path.iterdir())
    dashboards.open(path).sweep("quickstart").table()
    assert (path.read_bytes(), sorted(tmp_path.iterdir())) == before


@pytest.mark.parametrize("name", ["50% #1?.db", "spaß & co.db"])
def test_hostile_file_names_open(tmp_path: Path, name: str) -> None:
    assert len(Reader(ledgers.write(tmp_path / name, ledgers.digits_arms()[:1])).sweeps()) == 1


def test_an_unknown_sweep_lists_those_there_are(quickstart_path: Path) -> None:
    with pytest.raises(UnknownSweep, match="it holds: quickstart"):
        dashboards.open(quickstart_path).sweep("quikstart")


def test_no_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no ledger at"):
        Reader(tmp_path / "nothing.db")
    with pytest.raises(UserError, match="holds 0 ledgers"):
        Reader(tmp_path)
    with pytest.raises(UserError, match="cannot be parsed"):
        Reader("postgresql://user@host:port/x")


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_text("hello, this is not a database at all" * 100)
    with pytest.raises(LedgerError, match="not a"):
        Reader(tmp_path / "a.db")


def test_a_database_of_something_else_says_so(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE pets (name TEXT)")
    with pytest.raises(LedgerVersionError, match="not a ledger"):
        Reader(tmp_path / "a.db")


def test_an_older_ledger_names_what_it_lacks(tmp_path: Path) -> None:
    path = ledgers.write(tmp_path / "ledger.db", [])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE trials DROP COLUMN notes")
    with pytest.raises(LedgerVersionError, match=r"lacks trials\.notes"):
        Reader(path)


def test_a_newer_ledger_asks_for_a_newer_longrange(tmp_path: Path) -> None:
    path = ledgers.write(tmp_path / "ledger.db", [])
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(LedgerVersionError, match=f"9999, newer than {s.VERSION}"):
        Reader(path)


def test_a_locked_ledger_says_who_to_wait_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.queries.BUSY_SECONDS", 0.05)
    path = ledgers.write(tmp_path / "ledger.db", [])
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LedgerError, match="locked by another process"):
        Reader(path)
    writer.rollback()
    writer.close()
    assert len(Reader(path).sweeps()) == 1


def test_a_ledger_in_a_read_only_folder_opens() -> None:
    with somebodys_folder() as folder:
        path = ledgers.write(folder / "ledger.db", [])
        forbid_writing(folder)
        assert len(Reader(path).sweeps()) == 1
        folder.chmod(0o700)


def test_wrong_choices_list_the_right_ones(quickstart: dashboards.Sweep) -> None:
    with pytest.raises(UnknownChoice, match="top1_percent"):
        quickstart.table("top1")
    with pytest.raises(UnknownChoice, match="executed_macs"):
        quickstart.frontier(cost="flops")
    with pytest.raises(UnknownChoice, match=r"nl@res3"):
        quickstart.by_clip("nl", "none")
    with pytest.raises(UnknownChoice, match="hgnl"):
        quickstart.ablation("se")
    with pytest.raises(UnknownChoice, match=r"block\.g1"):
        quickstart.heatmap("hgnl", "g1", "g2")


def test_a_text_table_of_nothing_says_what_to_do(tmp_path: Path) -> None:
    path = ledgers.write(tmp_path / "ledger.db", seeds=1, state=s.State.PLANNED)
    with pytest.raises(NoResults, match=r"20 planned, 1 failed.*longrange resume"):
        dashboards.open(path).sweep("quickstart").text_table()
