from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import dashboard_ledgers as ledgers
import pytest

import dashboards
from dashboards import report, text
from dashboards.analysis.answer import answer
from orchestrator.errors import LongrangeError
from orchestrator.records.schema import State

LIMIT_BYTES = 5_000_000


@pytest.fixture(scope="module")
def page(quickstart: dashboards.Sweep) -> str:
    return report.render(quickstart)


def test_the_answer_comes_first_with_its_certainty_and_the_caveat(page: str, quickstart: dashboards.Sweep) -> None:
    sentence, certainty = text.unbroken(quickstart.answer().sentence), quickstart.answer().certainty
    assert page.index(certainty) < page.index(sentence) < page.index(ledgers.CAVEAT) < page.index("Every arm")


def test_it_needs_no_network(page: str) -> None:
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)\s*=\s*"', markup)
    assert "@import" not in markup
    assert "url(" not in markup


def test_what_trials_said_cannot_become_markup(page: str) -> None:
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_every_chart_has_its_numbers(page: str) -> None:
    wanted = re.findall(r'data-figure="([\w-]+)"', page)
    assert {"frontier", "curves", "ablation-0"} <= set(wanted)
    for name in wanted:
        found = re.search(rf'id="figure-{name}">(.*?)</script>', page, re.DOTALL)
        assert found is not None
        assert json.loads(found[1])["data"]


def test_rejections_failures_and_provenance_are_told(page: str) -> None:
    for said in ("not divisible by n=3", "loss is nan after step 31", "2.13.0+cpu", "longrange run quickstart.yaml"):
        assert said in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seeds": 1}, "One seed decides nothing"),
        ({"seeds": 2, "state": State.PLANNED}, "No trial has a result yet."),
        ({"seeds": 2, "state": State.FAILED}, "No trial has a result: all 42 ended without one."),
        ({"seeds": 2, "predictions": False}, "over none"),
    ],
)
def test_bad_states_have_a_page_that_says_so(tmp_path: Path, arguments: dict[str, object], said: str) -> None:
    path = ledgers.write(tmp_path / "ledger.db", **arguments)  # type: ignore[arg-type]
    assert said in report.render(dashboards.open(path).sweep("quickstart"))


def test_a_partial_sweep_says_how_much_is_to_come(tmp_path: Path) -> None:
    arms = ledgers.digits_arms()[:3]
    arms[2].states = {1: State.RUNNING, 2: State.PLANNED}
    page = report.render(dashboards.open(ledgers.write(tmp_path / "a.db", arms, seeds=3)).sweep("quickstart"))
    assert "2 trials of 9 to come" in page


def test_one_hundred_arms_stay_below_five_megabytes(tmp_path: Path) -> None:
    arms = [
        ledgers.Arm(
            f"nl {i}", {"name": "nl", "heads": i}, {"res3": [0]}, 80 + i / 20, 1.0, 2_000_000 + i, control=i == 0
        )
        for i in range(100)
    ]
    path = ledgers.write(tmp_path / "ledger.db", arms, predictions=False)
    written = report.write(dashboards.open(path).sweep("quickstart"), tmp_path / "out" / "report.html")
    assert written.stat().st_size < LIMIT_BYTES
    assert [file.name for file in written.parent.iterdir()] == ["report.html"]


def test_a_report_that_cannot_be_made_leaves_nothing_behind(
    tmp_path: Path, quickstart: dashboards.Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LongrangeError, match=r"cannot write .*report\.html: No space left on device"):
        report.write(quickstart, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_a_report_where_no_folder_can_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LongrangeError, match="cannot write"):
        report.write_html(tmp_path / "file" / "report.html", "page")


def test_the_answer_function_reads_the_table_it_is_given(quickstart: dashboards.Sweep) -> None:
    table = quickstart.table()
    table.loc[table["label"] != "none", "verdict"] = "undecided"
    assert answer(table, quickstart.scores()).sentence.startswith("No arm is shown to be better than none")


def test_an_undecided_arm_with_a_higher_mean_is_not_called_worse(quickstart: dashboards.Sweep) -> None:
    table, scores = quickstart.table(), quickstart.scores()
    best = quickstart.answer().best
    runner_up = next(arm for arm in table.index if arm != best and not table.loc[arm, "is_control"])
    values = scores.values.copy()
    values.loc[runner_up] = [float("nan")] * (values.shape[1] - 1) + [99.5]  # one seed: nothing can be said of it
    table.loc[runner_up, ["mean", "n", "verdict"]] = [99.5, 1, "undecided"]
    found = answer(table, replace(scores, values=values))
    assert found.best == best
    assert runner_up in found.leading
    assert "leads among those shown to beat none" in found.sentence
    assert "are not shown to be worse" in found.sentence
