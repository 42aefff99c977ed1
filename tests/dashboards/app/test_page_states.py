"""What pages say where something is missing, broken, odd or changing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import pytest
import sqlalchemy as sa
from components import find, texts
from dashboard_ledgers import TWO, change
from sqlalchemy.orm import Session

import dashboards
from dashboards import report
from dashboards.app.layout import PAGES
from dashboards.app.store import Store
from dashboards.app.view import link
from orchestrator.records import schema as s

Show = Callable[..., tuple[list[Any], str]]
SWEEP_PAGES = ["/", "/sweep", "/effects", "/compare", "/failures"]


@pytest.fixture(scope="module")
def store(quickstart_path: Path) -> Store:
    return Store(quickstart_path)


def write(folder: Path, arms: Sequence[ledgers.Arm] = TWO, **options: Any) -> Path:
    return ledgers.write(folder / "ledger.db", arms, **options)


@pytest.mark.parametrize("path", SWEEP_PAGES)
def test_no_sweep_at_all(tmp_path: Path, show: Show, path: str) -> None:
    ledger = tmp_path / "ledger.db"
    s.Base.metadata.create_all(sa.create_engine(f"sqlite:///{ledger}"))
    assert "longrange run quickstart" in show(ledger, path)[1]


@pytest.mark.parametrize(
    ("path", "search", "said"),
    [
        ("/sweep", "sweep=nope", "no sweep named 'nope'; it holds: quickstart"),
        ("/sweep", "arm=nope", "unknown arm 'nope'; use one of: none"),
        ("/sweep", "metric=nope", "unknown metric 'nope'; use one of: top1_percent"),
        ("/sweep", "cost=nope", "unknown cost 'nope'"),
        ("/sweep", "sort=nope", "unknown sort 'nope'"),
        ("/effects", "block=nope", "unknown block 'nope'; use one of: nl"),
        ("/effects", "block=hgnl&first=nope", "unknown first 'nope'; use one of: block.g1"),
        ("/compare", "a=nope", "unknown arm 'nope'"),
        ("/compare", "a=nl%40res2&b=nl%40res2", "Choose two different arms"),
        ("/trial", "trial=nope", "no trial 'nope'"),
        ("/trial", "", "Choose an arm on the answer page"),
        ("/nope", "", "There is no such page"),
        ("/sweep", "page=0&page=x&page=-1", "Every arm"),
        ("/sweep", "page=99999", "Every arm"),
        ("/sweep", "block=nope", "No arm fits these filters"),
    ],
)
def test_addresses_that_name_what_is_not_there(store: Store, show: Show, path: str, search: str, said: str) -> None:
    assert said in show(store, path, f"?{search}")[1]


@pytest.mark.parametrize("path", SWEEP_PAGES)
@pytest.mark.parametrize(
    "state", [s.State.PLANNED, s.State.RUNNING, s.State.FAILED, s.State.DIVERGED, s.State.CANCELLED]
)
def test_sweeps_without_a_finished_trial(tmp_path: Path, show: Show, path: str, state: s.State) -> None:
    _content, said = show(write(tmp_path, state=state), path)
    assert "cannot be shown" not in said
    if path == "/sweep":
        assert {
            s.State.PLANNED: "This page fills itself as trials end",
            s.State.RUNNING: "This page fills itself as trials end",
            s.State.FAILED: "All trials ended without one (10 failed)",
            s.State.DIVERGED: "All 10 trials diverged: training became unstable in every arm, the control among them",
            s.State.CANCELLED: "All trials ended without one (10 cancelled)",
        }[state] in said
    if path == "/" and state == s.State.RUNNING:
        assert "Running now" in said
        assert "0 of 4" in said


def test_a_control_alone_is_no_failure(tmp_path: Path, show: Show) -> None:
    said = show(write(tmp_path, [TWO[0]], seeds=1), "/sweep")[1]
    assert "Only the control, none, has results so far" in said
    assert "The sweep has no other arm" in said
    assert "retry-failed" not in said


def test_what_to_do_is_code_not_backticks(tmp_path: Path, show: Show) -> None:
    content, said = show(write(tmp_path, state=s.State.FAILED), "/sweep")
    assert "longrange resume --retry-failed" in [code.children for code in find(content, "Code")]
    assert "`" not in said


def test_nan_metrics_count_at_chance(tmp_path: Path, show: Show) -> None:
    broken = ledgers.Arm("nl", {"name": "nl"}, {"res3": [0]}, 60.0, 0.5, 1_980_000, values=dict.fromkeys(range(5)))
    path = write(tmp_path, [TWO[0], broken], predictions=False)
    for page in SWEEP_PAGES:
        _content, said = show(path, page)
        assert "cannot be shown" not in said
    assert "5 diverged, counted at chance level" in show(path, "/sweep")[1]
    assert "NaN" in show(path, "/trial", f"?trial={1:08x}{0:08x}")[1]


def test_one_seed_has_no_interval(tmp_path: Path, show: Show) -> None:
    _, said = show(write(tmp_path, seeds=1), "/sweep")
    assert "One seed decides nothing" in said
    assert "one seed: its spread is unknown" in said


def test_a_sweep_of_rejections_only(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path, [])
    assert "32 channels are not divisible" in show(path, "/sweep")[1]
    for page in SWEEP_PAGES:
        assert "cannot be shown" not in show(path, page)[1]


def test_names_are_text_and_addresses_survive_them(tmp_path: Path, show: Show) -> None:
    name = "../<script>alert('1')</script>?a=1&b=%2F#x ü"
    path = write(tmp_path, name=name)
    content, said = show(path, "/")
    assert name in said
    href = next(each.href for each in find(content, "Link") if each.children == name)
    assert name in show(path, *href.split("?", 1))[1] or "Which block" in show(path, *href.split("?", 1))[1]
    assert not find(content, "Markdown")
    assert href == link("/sweep", sweep=name)


def test_long_tables_come_in_pages(tmp_path: Path, show: Show) -> None:
    many = [
        TWO[0],
        *(
            ledgers.Arm(f"nl {i:02}", {"name": "nl", "i": i}, {"res3": [0]}, 60.0 - i, 0.5, 2_000_000 + i)
            for i in range(60)
        ),
    ]
    path = write(tmp_path, many, seeds=2, predictions=False)
    content, said = show(path, "/sweep", "?sort=plan&page=3")
    assert "51–61 of 61 arms" in said
    assert len(find(content, "Img")) == 11
    assert find(content, "Graph")[0].figure.data[0] is not None


def test_a_changed_ledger_is_read_again(tmp_path: Path, show: Show) -> None:
    path, now = write(tmp_path, state=s.State.PLANNED), [0.0]
    store = Store(path, clock=lambda: now[0])
    before = store.version()
    assert "0 / 10 ended" in show(store, "/")[1]
    change(path, "UPDATE trials SET state = 'cancelled'")
    assert "0 / 10 ended" in show(store, "/")[1]
    assert store.version() != before
    assert "10 / 10 ended" in show(store, "/")[1]


def test_a_busy_ledger_is_not_read_more_often_than_it_can_be(tmp_path: Path) -> None:
    path, now = write(tmp_path), [0.0]
    store = Store(path, clock=lambda: now[0])

    def slow() -> None:
        now[0] += 2.0

    store.timed(slow)
    change(path, "UPDATE sweeps SET updated_at = 1")
    first = store.version()
    change(path, "UPDATE sweeps SET updated_at = 2")
    assert store.version() == first
    now[0] += 21.0
    assert store.version() != first


def test_a_locked_ledger_says_so_and_recovers(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.queries.BUSY_SECONDS", 0.05)
    path = write(tmp_path)
    store = Store(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    _, said = show(store, "/sweep")
    assert "The ledger cannot be read now" in said
    assert "tries again by itself" in said
    writer.execute("ROLLBACK")
    writer.close()
    assert "Every arm" in show(store, "/sweep")[1]


def test_the_ledger_goes_away_while_it_is_shown(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    store = Store(path)
    path.unlink()
    store.version()
    assert "The ledger cannot be read now" in show(store, "/sweep")[1]


def test_nothing_is_written(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    for page in PAGES:
        show(path, page)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_trial_of_two_sweeps_is_shown_in_either(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    engine = sa.create_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        row = {"uid": "1" * 16, "question": "Again?", "definition": {}, "created_at": 1.0, "updated_at": 2.0}
        session.add(s.SweepRow(id=2, name="again", **row))
        session.flush()
        session.add(s.SweepTrialRow(sweep_id=2, trial_id=f"{1:08x}{0:08x}", position=0))
        session.commit()
    engine.dispose()
    assert "← quickstart" in show(path, "/trial", f"?trial={1:08x}{0:08x}")[1]
    assert "← again" in show(path, "/trial", f"?trial={1:08x}{0:08x}&sweep=again")[1]


def test_all_diverged_is_an_answer_not_a_missing_one(tmp_path: Path, show: Show) -> None:
    _, said = show(write(tmp_path, state=s.State.DIVERGED), "/sweep")
    assert "No trial has a result yet" not in said
    assert "nothing can be compared" in said
    assert "try a lower learning rate" in said
    assert "5 diverged, counted at chance level" in said
    assert "every trial diverged" in said
    assert "check that the seed changes the run" not in said


def test_trials_that_a_search_stopped_are_not_compared_and_said_so(tmp_path: Path, show: Show) -> None:
    arms = [*TWO, ledgers.Arm("pnl", {"name": "pnl"}, {}, 70.0, 0.5, 1_700_000, states={0: s.State.CANCELLED})]
    path = write(tmp_path, arms)
    change(path, "UPDATE attempts SET cause = 'stopped_early', message = 'asha' WHERE outcome = 'cancelled'")
    _, said = show(path, "/sweep")
    assert "A search ended 1 trial of 15 before the last epoch" in said
    assert "1 stopped early by the search: not compared" in said
    assert "without a result" not in said
    sweep = dashboards.open(path).sweep("quickstart")
    assert list(sweep.table()["n"]) == [5, 5, 4]
    assert "1 stopped early by a search, not compared" in sweep.text_table()
    assert "1 stopped early" in sweep.text_table(columns=["arm", "failures"])
    assert "Stopped early." in report.render(sweep)


def test_a_cancelled_trial_is_not_called_stopped_early(tmp_path: Path, show: Show) -> None:
    arms = [*TWO, ledgers.Arm("pnl", {"name": "pnl"}, {}, 70.0, 0.5, 1_700_000, states={0: s.State.CANCELLED})]
    _, said = show(write(tmp_path, arms), "/sweep")
    assert "topped early" not in said
    assert "1 without a result" in said


OTHER = (
    "UPDATE results SET name = 'psnr_db' WHERE name = 'top1_percent'",
    "UPDATE epoch_metrics SET name = 'psnr_db' WHERE name = 'top1_percent'",
    "DELETE FROM results WHERE name = 'top5_percent'",
)


@pytest.mark.parametrize("path", SWEEP_PAGES)
def test_a_workload_without_top1_is_judged_by_what_it_measures(tmp_path: Path, show: Show, path: str) -> None:
    ledger = write(tmp_path)
    change(ledger, *OTHER)
    _, said = show(ledger, path)
    assert "cannot be shown" not in said
    if path == "/sweep":
        assert "nl is best" in said
        assert "Psnr, per seed" in said
        assert "unknown metric 'psnr'; use one of" in show(ledger, path, "?metric=psnr")[1]


def test_a_report_and_table_without_top1_or_curves(tmp_path: Path) -> None:
    ledger = write(tmp_path)
    change(ledger, *OTHER)
    sweep = dashboards.open(ledger).sweep("quickstart")
    assert "Psnr (dB)" in sweep.text_table()
    assert 'id="figure-curves"' in report.render(sweep)
    change(ledger, "UPDATE epoch_metrics SET name = 'train_loss'")
    page = report.render(dashboards.open(ledger).sweep("quickstart"))
    assert 'id="figure-curves"' not in page
    assert "nl is best" in page


def test_what_trials_noted_is_told_on_every_page_and_in_the_report(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    skipped = '["3 of 90 clips could not be read and were skipped: <a.mp4>"]'
    change(path, f"UPDATE trials SET notes = '{skipped}' WHERE trial_id LIKE '00000001%'")
    said = "3 of 90 clips could not be read and were skipped: <a.mp4>"
    assert f"{said} (5 trials)" in show(path, "/sweep")[1]
    assert said in show(path, "/trial", f"?trial={1:08x}{0:08x}")[1]
    assert "Noted while training" not in show(path, "/trial", f"?trial={0:08x}{0:08x}")[1]
    page = report.render(dashboards.open(path).sweep("quickstart"))
    assert "<li>3 of 90 clips could not be read and were skipped: &lt;a.mp4&gt; (5 trials)</li>" in page


def test_many_different_notes_are_counted(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    change(path, "UPDATE trials SET notes = '[\"seed ' || seed || ' of ' || arm_id || ' skipped\"]'")
    assert "and 5 other notes, on the pages of single trials" in show(path, "/sweep")[1]


def test_a_trial_has_its_log_epoch_by_epoch(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    change(path, f"UPDATE epoch_metrics SET value = NULL WHERE epoch = 3 AND trial_id = '{1:08x}{0:08x}'")
    content, said = show(path, "/trial", f"?trial={1:08x}{0:08x}")
    (log,) = [each for each in find(content, "Details") if each.children[0].children == "Every epoch in numbers"]
    assert len(find(log, "Tr")) == 1 + ledgers.EPOCHS
    assert "NaN" in list(texts(find(log, "Tr")[-1]))
    assert "1.5 s" in said


def test_an_arm_chosen_among_a_blocks_arms_is_shown_there(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path, ledgers.digits_arms()[:3])
    content, _ = show(path, "/effects", "?arm=nl%40res3")
    assert [each for each in find(content, "Section") if "chosen" in (each.className or "")]
    assert "unknown arm 'x'" in show(path, "/effects", "?arm=x")[1]
    (parallel,) = [each for each in find(content, "Graph") if each.id["graph"] == "parallel"]
    assert "nl@res3" in {label for trace in parallel.figure.data for label in trace.customdata}


def test_differences_have_the_unit_and_decimals_of_their_metric(tmp_path: Path, show: Show) -> None:
    ledger = write(tmp_path)
    change(ledger, *OTHER)
    assert " dB [+" in dashboards.open(ledger).sweep("quickstart").answer().sentence
    change(ledger, "UPDATE results SET name = 'validation_loss', value = value / 1000 WHERE name = 'psnr_db'")
    change(ledger, "DELETE FROM results WHERE name = 'train_loss'")
    found = dashboards.open(ledger).sweep("quickstart").answer()
    assert "Nothing pays: every arm is worse" in found.sentence
    _, said = show(ledger, "/sweep", "?metric=validation_loss")
    assert "+0.01" in said
    assert "points" not in said
    assert "()" not in said
