"""Searches: what they may say, that they draw the same again after a kill, whom they stop, and what the ledger says."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from search_runs import run

from orchestrator.cli import cli
from orchestrator.errors import AnotherDriver, SweepError
from orchestrator.launch import write_best
from orchestrator.overview import overview
from orchestrator.paths import RunFolder
from orchestrator.planner import plan_sweep
from orchestrator.records.ledger import Ledger
from orchestrator.records.owners import enter_alone, new_owner
from orchestrator.search.planning import drawn
from orchestrator.search.proposals import Past, Proposals
from orchestrator.search.space import Search
from orchestrator.sweep import Sweep, parse_sweep
from orchestrator.trial import identity

SPACE = {
    "block": {"choice": ["nl", {"name": "rnl", "kernel": [1, 3, 3]}]},
    "recipe.lr": {"log_uniform": [0.001, 0.1]},
    "recipe.batch": {"integer": [8, 32]},
}
BASE = {"workload": {"name": "scripted:Scripted", "script": "rated"}, "insertion": {"res3": [0]}, "block": "nl"}


def a_sweep(**search: Any) -> Sweep:
    base = {**BASE, "recipe": {"epochs": 9}}
    given = {"space": SPACE, "configurations": 8, "concurrent": 1, "metric": "rate", **search}
    return parse_sweep({"name": "searched", "base": base, "search": given, "seeds": 2})


@pytest.mark.parametrize(
    ("given", "place", "said"),
    [
        ({"space": {}}, "search.space", "at least 1 item"),
        (
            {"space": {"recipe.lr": {"uniform": [0.1, 0.01]}}},
            "search.space.recipe.lr",
            "the lower first, given [0.1, 0.01]",
        ),
        ({"space": {"recipe.lr": {"log_uniform": [0, 1]}}}, "search.space.recipe.lr", "above 0"),
        ({"space": {"recipe.lr": {"choice": [1], "uniform": [0, 1]}}}, "search.space.recipe.lr", "exactly one of"),
        ({"space": {"recipi.lr": {"choice": [1]}}}, "search", "did you mean 'recipe'?"),
        ({"space": {"workload.split": {"choice": [1, 2]}}}, "search", "on different data: search on one data set"),
        ({"space": {"workload.keys": {"choice": [2, 3]}}}, "search", "on different data: search on one data set"),
        ({"space": SPACE, "scheduler": "best"}, "search.scheduler", "'median' or 'pbt', given 'best'"),
        ({"space": SPACE, "seed": 1}, "(file)", "search.seed 1 is among the sweep's seeds"),
    ],
)
def test_each_mistake_has_its_place_and_what_is_allowed(given: dict[str, Any], place: str, said: str) -> None:
    with pytest.raises(SweepError) as caught:
        parse_sweep({"name": "x", "base": BASE, "search": given})
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{place}: ")
    assert said in caught.value.problems[0]


def test_a_sweep_lists_or_draws() -> None:
    with pytest.raises(SweepError, match="not both"):
        parse_sweep({"name": "x", "base": BASE, "search": {"space": SPACE}, "axes": {"grid": {"block": ["nl"]}}})


def test_the_plan_shows_the_space_and_the_highest_cost() -> None:
    plan = plan_sweep(a_sweep(), profiled=False)
    assert [(arm.label, arm.is_control, arm.seeds) for arm in plan.arms] == [
        ("none", True, (1000,)),
        ("nl", False, (1000,)),
    ]
    search = plan.to_json()["search"]
    assert search["space"]["recipe.lr"] == {"log_uniform": [0.001, 0.1]}
    assert search["at_most"].keys() == {"seconds_per_trial", "memory_bytes", "cpu_hours", "gpu_hours", "epochs"}


def test_the_highest_cost_is_that_of_the_dearest_end() -> None:
    places = [{"res3": [0]}, {"res3": [0], "res4": [0]}]
    space = {"insertion": {"choice": places}, "recipe.epochs": {"integer": [1, 5]}}
    base = {"workload": "digits", "insertion": {"res3": [0]}, "block": "nl"}
    drawn = parse_sweep({"name": "x", "base": base, "search": {"space": space, "configurations": 10}})
    found = plan_sweep(drawn).to_json()["search"]["at_most"]
    dearest = {**base, "insertion": places[1], "recipe": {"epochs": 5}}
    (arm,) = [arm for arm in plan_sweep(parse_sweep({"name": "y", "base": dearest})).arms if not arm.is_control]
    assert found["seconds_per_trial"] == pytest.approx(arm.price.seconds, rel=1e-2)
    assert found["cpu_hours"] == pytest.approx(10 * (arm.price.seconds or 0) / 3600, rel=1e-2)


@pytest.mark.parametrize(("grace", "scheduler", "said"), [(2, "asha", True), (1, "median", False), (2, "none", False)])
def test_the_plan_says_when_nobody_can_be_stopped(tmp_path: Path, grace: int, scheduler: str, said: bool) -> None:
    search = {"space": {"recipe.lr": {"choice": [0.1, 0.01]}}, "grace_epochs": grace, "scheduler": scheduler}
    base = {"workload": "digits", "insertion": {"res3": [0]}, "block": "nl", "recipe": {"epochs": 2}}
    file = tmp_path / "searched.yaml"
    file.write_text(yaml.safe_dump({"name": "searched", "base": base, "search": search}))
    shown = CliRunner().invoke(cli, ["plan", str(file), "--no-profile"]).output
    assert "0 of 20 configurations drawn" in shown
    assert ("nobody is stopped early: grace_epochs 2 is not below the 2 epochs of a trial" in shown) == said


def drawn_by(search: Search, count: int) -> list[dict[str, Any]]:
    proposals = Proposals(search, epochs=9)
    return [proposals.draw() for _ in range(count)]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_goes_on_drawing_where_it_was_killed(sampler: str) -> None:
    search = Search.model_validate({"space": SPACE, "sampler": sampler})
    whole = Proposals(search, epochs=9)
    settings = []
    for number in range(16):
        settings.append(whole.draw())
        whole.report(number, 1, float(number % 5))
        whole.end(number, "finished", float(number % 5))
    again = Proposals(search, epochs=9)
    for number, setting in enumerate(settings[:13]):
        again.recall(setting, Past({1: float(number % 5)}, "finished", float(number % 5)))
    assert again.draw() == settings[13]


def test_draws_stay_within_their_bounds() -> None:
    for setting in drawn_by(Search.model_validate({"space": SPACE}), 30):
        assert setting["block"] in ("nl", {"name": "rnl", "kernel": [1, 3, 3]})
        assert 0.001 <= setting["recipe.lr"] <= 0.1
        assert setting["recipe.batch"] in range(8, 33)


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_schedulers_stop_the_worst_and_never_the_best(scheduler: str) -> None:
    search = Search.model_validate({"space": SPACE, "scheduler": scheduler})
    proposals = Proposals(search, epochs=9)
    stopped: dict[int, int] = {}
    for number in range(12):  # one after the other, the best first: each is worse than those before
        proposals.draw()
        for epoch in range(1, 10):
            proposals.report(number, epoch, 100.0 - number)
            if proposals.is_stopped(number):
                stopped[number] = epoch
                break
        proposals.end(number, "stopped_early" if number in stopped else "finished", 100.0 - number)
    assert 0 not in stopped
    assert len(stopped) >= 4
    assert min(stopped.values()) >= 1


def quality(number: int, epoch: int) -> float:
    """Of a made-up trial after an epoch: better with time, in no order."""
    return (number * 37) % 101 + epoch / 2


def train(proposals: Proposals, number: int, value: Callable[[int, int], float] = quality) -> Past:
    """Nine epochs of a made-up trial, or fewer."""
    epochs: dict[int, float] = {}
    for epoch in range(1, 10):
        epochs[epoch] = value(number, epoch)
        proposals.report(number, epoch, epochs[epoch])
        if epoch < 9 and proposals.is_stopped(number):
            proposals.end(number, "stopped_early")
            return Past(epochs, "stopped_early")
    proposals.end(number, "finished", epochs[9])
    return Past(epochs, "finished", epochs[9])


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_search_that_was_killed_stops_the_same_trials(scheduler: str, mode: str) -> None:
    search = Search.model_validate({"space": SPACE, "scheduler": scheduler, "mode": mode})
    whole = Proposals(search, epochs=9)
    expected = [(whole.draw(), train(whole, number)) for number in range(24)]
    assert {past.state for _, past in expected} == {"finished", "stopped_early"}
    for killed in (3, 9, 14):
        again = Proposals(search, epochs=9)
        for setting, past in expected[:killed]:
            again.recall(setting, past)
        assert [(again.draw(), train(again, number)) for number in range(killed, 24)] == expected[killed:]


def test_a_rung_compares_what_trials_had_when_they_came_to_it() -> None:
    search = Search.model_validate({"space": SPACE, "scheduler": "asha", "grace_epochs": 2, "reduction": 2})
    proposals = Proposals(search, epochs=9)
    by_hand = [  # rungs after 2, 4 and 8 epochs: the better half of those that came so far goes on, rounded down
        (1, 5, 5, 5, 5, 5, 5, 9, 9),  # the first of all goes on
        (9, 4),  # 4 < 5, one of two
        (0, 6, 6, 4),  # 6 is one of three; then 4 < 5, one of two
        (0, 6, 6, 6, 0, 0, 0, 8),  # as good as the second of four; one of three; then 8 < 9
    ]
    for number, values in enumerate(by_hand):
        proposals.draw()
        past = train(proposals, number, lambda number, epoch: float([*by_hand[number], *[99] * 9][epoch - 1]))
        assert tuple(past.epochs.values()) == values


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
def test_nobody_is_stopped_before_the_grace_is_over(scheduler: str) -> None:
    search = Search.model_validate({"space": SPACE, "scheduler": scheduler, "grace_epochs": 3})
    proposals = Proposals(search, epochs=9)
    lasted = []
    for number in range(12):
        proposals.draw()
        lasted.append(len(train(proposals, number, lambda number, _: 100.0 - number).epochs))
    assert min(lasted) == 3


@pytest.mark.parametrize(("mode", "scheduler"), [("max", "asha"), ("min", "asha"), ("max", "median")])
def test_what_is_no_number_is_as_bad_as_can_be(mode: str, scheduler: str) -> None:
    search = Search.model_validate({"space": SPACE, "scheduler": scheduler, "mode": mode, "reduction": 2})
    proposals = Proposals(search, epochs=9)
    for number in range(4):
        proposals.draw()
        train(proposals, number)
    for wrong in (math.nan, math.inf if mode == "min" else -math.inf):
        proposals.draw()
        proposals.report(len(proposals) - 1, 1, wrong)
        assert proposals.is_stopped(len(proposals) - 1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


def drawn_settings(ledger: Ledger) -> list[Mapping[str, Any]]:
    known = ledger.sweep("searched")
    assert known is not None
    return list(known.definition["drawn"])


@pytest.mark.usefixtures("_support_on_path")
def test_a_search_runs_and_says_of_whom_it_stopped_why(tmp_path: Path, ledger: Ledger) -> None:
    outcome = run(a_sweep(scheduler="median"), ledger, tmp_path)
    assert sum(outcome.ran.values()) == 2 + 8, "the control, the base, and what was drawn"
    assert outcome.ran.keys() == {"finished", "stopped early"}
    assert outcome.left == 0
    seen = overview(ledger, "searched", time.time())
    assert seen.states == outcome.ran, "status says the same"
    assert seen.ended == seen.trials
    trials = {one.trial_id: one for one in ledger.trials_of("searched")}
    for one in trials.values():
        row = ledger.trial(one.trial_id)
        content = {**row["spec"], "seed": 1000}
        assert identity(content) == one.trial_id
        for path, value in one.settings.items():
            if path.startswith("recipe."):
                assert content["recipe"][path.removeprefix("recipe.")] == value, "what ran is what was drawn"
        epochs = {epoch["epoch"] for epoch in row["epochs"]}
        if one.cause == "stopped_early":
            assert one.state == "cancelled"
            assert one.message is not None
            assert one.message.startswith(f"median stopped it after {len(epochs)} epochs at rate ")
            assert not row["results"], "nothing that a table could compare"
            assert epochs < set(range(9))
        else:
            assert epochs == set(range(9))


@pytest.mark.usefixtures("_support_on_path")
def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, ledger: Ledger) -> None:
    sweep = a_sweep(scheduler="asha")
    (tmp_path / "whole").mkdir()
    with Ledger.open(tmp_path / "whole" / "ledger.db") as other:
        run(sweep, other, tmp_path / "whole")
        expected = {one.trial_id: (one.state, one.cause) for one in other.trials_of("searched")}
        settings = drawn_settings(other)
    first = run(sweep, ledger, tmp_path, kill_after=4)
    assert first.left > 0
    second = run(sweep, ledger, tmp_path)
    assert second.left == 0
    assert drawn_settings(ledger) == settings
    assert {one.trial_id: (one.state, one.cause) for one in ledger.trials_of("searched")} == expected
    assert run(sweep, ledger, tmp_path).ran == {}, "all is done"
    more = run(a_sweep(scheduler="asha", configurations=10), ledger, tmp_path)
    assert sum(more.ran.values()) == 2
    assert drawn_settings(ledger)[:8] == settings


@pytest.mark.usefixtures("_support_on_path")
@pytest.mark.parametrize("scheduler", ["asha", "pbt"])
def test_a_second_driver_of_a_search_is_refused_and_spoils_nothing(
    tmp_path: Path, ledger: Ledger, scheduler: str
) -> None:
    """What was drawn is one list: two drivers would each write theirs over the other's."""
    space = {"recipe.lr": SPACE["recipe.lr"]}
    sweep = a_sweep(scheduler=scheduler, space=space, **({"interval": 3} if scheduler == "pbt" else {}))
    (tmp_path / "alone").mkdir()
    with Ledger.open(tmp_path / "alone" / "ledger.db") as other:
        run(sweep, other, tmp_path / "alone")
        expected = drawn_settings(other)
    said = []

    def second() -> None:
        with pytest.raises(AnotherDriver) as refused:
            run(sweep, ledger, tmp_path)
        said.append(str(refused.value))

    assert run(sweep, ledger, tmp_path, then=second).left == 0
    assert len(said) >= 10
    assert all("another driver is searching for 'searched'" in one for one in said)
    assert drawn_settings(ledger) == expected
    assert run(sweep, ledger, tmp_path).ran == {}, "the first is over: nobody is refused"


@pytest.mark.usefixtures("_support_on_path")
def test_a_driver_that_has_lost_its_search_draws_no_more(tmp_path: Path, ledger: Ledger) -> None:
    """As after a laptop's sleep: its lease ended, and another driver entered."""
    drawn_by_then = []

    def sleep() -> None:
        if not drawn_by_then and drawn_settings(ledger):
            for owner in ledger.drivers(time.time()):
                ledger.release(owner)
            enter_alone(ledger, new_owner(), "searched", {}, lease_seconds=60.0, now=time.time())
            drawn_by_then.extend(drawn_settings(ledger))

    with pytest.raises(AnotherDriver):
        run(a_sweep(scheduler="none"), ledger, tmp_path, then=sleep)
    assert drawn_settings(ledger) == drawn_by_then


@pytest.mark.usefixtures("_support_on_path")
def test_a_command_that_is_refused_leaves_the_run_folder_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(yaml.safe_dump(a_sweep(configurations=1).to_json()))
    words = ["run", "s.yaml", "--out", "run", "--executor", "inline", "--mlflow", "off", "--quiet"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    before = {path.name: path.read_bytes() for path in Path("run").glob("*.json")}
    with Ledger.open(Path("run") / "ledger.db") as ledger:
        enter_alone(ledger, new_owner(), "searched", {}, lease_seconds=60.0, now=time.time())
    for more in (["--workers", "7", "--set", "search.configurations=3"], []):
        refused = CliRunner().invoke(cli, [*words, *more])
        assert isinstance(refused.exception, AnotherDriver)
    assert {path.name: path.read_bytes() for path in Path("run").glob("*.json")} == before


@pytest.mark.usefixtures("_support_on_path")
def test_what_an_older_version_searched_is_another_search(tmp_path: Path, ledger: Ledger) -> None:
    """It may have allowed a space that is refused now."""
    run(a_sweep(configurations=1), ledger, tmp_path)
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        old = "replace(definition, 'recipe.lr', 'workload.keys')"
        database.execute(f"update sweeps set definition = {old}")
    assert drawn(a_sweep(configurations=1), tmp_path / "ledger.db") == []


@pytest.mark.usefixtures("_support_on_path")
def test_a_plan_that_is_older_than_the_search_goes_on_from_what_was_drawn(tmp_path: Path, ledger: Ledger) -> None:
    sweep = a_sweep(scheduler="none", configurations=4)
    old = plan_sweep(sweep, profiled=False)
    run(sweep, ledger, tmp_path, kill_after=4)
    drawn = drawn_settings(ledger)
    assert 2 <= len(drawn) < 4
    outcome = run(sweep, ledger, tmp_path, plan=old)
    assert outcome.left == 0
    assert drawn_settings(ledger)[: len(drawn)] == drawn
    assert len(drawn_settings(ledger)) == 4
    assert len(ledger.trials_of("searched")) == 2 + 4, "what was drawn before did not leave the sweep"


@pytest.mark.usefixtures("_support_on_path")
def test_a_search_may_draw_how_long_its_trials_are(tmp_path: Path, ledger: Ledger) -> None:
    space = {"recipe.epochs": {"choice": [4, 9]}, **SPACE}
    sweep = a_sweep(scheduler="median", grace_epochs=3, space=space, configurations=10)
    base = sweep.model_copy(update={"control": {"block": "none", "recipe": {"epochs": 2}}})
    run(base, ledger, tmp_path)
    lasted = {}
    for one in ledger.trials_of("searched"):
        row = ledger.trial(one.trial_id)
        whole = row["spec"]["recipe"]["epochs"]
        lasted[one.trial_id] = (whole, len({epoch["epoch"] for epoch in row["epochs"]}), one.cause)
    assert {whole for whole, _, _ in lasted.values()} == {2, 4, 9}
    assert all((trained < whole) == (cause == "stopped_early") for whole, trained, cause in lasted.values())
    assert any(cause for _, _, cause in lasted.values()), "beyond the epochs of the control, which trains fewer"


@pytest.mark.usefixtures("_support_on_path")
def test_the_best_go_into_a_sweep_that_compares_them_by_other_seeds(tmp_path: Path, ledger: Ledger) -> None:
    sweep = a_sweep(scheduler="none", confirm=2)
    run(sweep, ledger, tmp_path)
    write_best(plan_sweep(sweep, profiled=False), ledger, RunFolder(tmp_path))
    best = parse_sweep(yaml.safe_load((tmp_path / "best.yaml").read_text()))
    plan = plan_sweep(best, profiled=False)
    rates = {}
    with sqlite3.connect(tmp_path / "ledger.db") as rows:
        rates = dict(rows.execute("select trial_id, value from results where name = 'rate'").fetchall())
    searched = {one.arm_id: rates[one.trial_id] for one in ledger.trials_of("searched") if not one.is_control}
    wanted = sorted(searched, key=searched.__getitem__, reverse=True)[:2]
    assert [arm.arm_id for arm in plan.arms if not arm.is_control] == wanted
    assert all(arm.seeds == (0, 1) for arm in plan.arms)
