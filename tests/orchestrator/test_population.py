"""Population based training: what it may change, who gives way to whom, and that a member is a configuration."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from search_runs import run
from tiny_trial import SPEC

from orchestrator.errors import SweepError
from orchestrator.launch import write_best
from orchestrator.paths import RunFolder
from orchestrator.planner import plan_sweep
from orchestrator.records.ledger import Ledger
from orchestrator.search.population import decisions, schedule, settings_at
from orchestrator.search.space import CHANGES
from orchestrator.sweep import Sweep, parse_sweep

SPACE = {"recipe.lr": {"log_uniform": [0.001, 0.1]}, "recipe.dropout": {"uniform": [0.0, 0.5]}}
BASE = {"workload": {"name": "scripted:Scripted", "script": "rated"}, "insertion": {"res3": [0]}, "block": "nl"}
MEMBERS, EPOCHS = 6, 6


def a_sweep(**search: Any) -> Sweep:
    given = {"scheduler": "pbt", "configurations": MEMBERS, "interval": 2, "quantile": 0.3, "metric": "rate"}
    base = {**BASE, "recipe": {"epochs": EPOCHS}}
    return parse_sweep({"name": "p", "base": base, "search": {"space": SPACE, **given, **search}, "seeds": 2})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"space": {"block.kernel": {"choice": [[1, 3, 3], [3, 3, 3]]}}}, "block.kernel cannot change during training"),
        ({"space": {"recipe.batch": {"integer": [8, 64]}}}, "it can: recipe.lr, recipe.backbone_lr, recipe.momentum"),
        ({"space": {"recipe.epochs": {"integer": [4, 8]}}}, "recipe.epochs cannot change during training"),
        ({"configurations": 1}, "at least 2 for a population, given 1"),
        ({"sampler": "tpe"}, "pbt draws its population at random, given sampler 'tpe'"),
        ({"quantile": 0.6}, "less than or equal to 0.5"),
    ],
)
def test_what_cannot_be_a_population_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SweepError) as caught:
        a_sweep(**given)
    assert len(caught.value.problems) == 1
    assert said in caught.value.problems[0]


@pytest.mark.parametrize(
    ("search", "recipe", "said"),
    [
        ({"interval": EPOCHS}, {}, "search.interval: no decision falls into recipe.epochs=6, given 6"),
        (
            {"space": {"recipe.momentum": {"uniform": [0.5, 0.9]}}},
            {"optimizer": "adamw"},
            "momentum is for optimizer 'sgd'",
        ),
        ({}, {"changes": [{"epoch": 1, "lr": 0.1}]}, "base.recipe.changes: pbt finds out what to change"),
    ],
)
def test_what_the_recipe_does_not_allow_is_said_by_the_plan(
    search: dict[str, Any], recipe: dict[str, Any], said: str
) -> None:
    values = a_sweep(**search).to_json()
    values["base"]["recipe"] |= recipe
    with pytest.raises(SweepError, match=said):
        plan_sweep(parse_sweep(values), profiled=False)


def members(count: int = 8) -> list[dict[str, Any]]:
    return [{"recipe.lr": 0.001 * (number + 1), "recipe.dropout": 0.1} for number in range(count)]


def test_the_worst_give_way_to_changed_copies_of_the_best() -> None:
    search = a_sweep(configurations=8, quantile=0.25).search
    assert search is not None
    scores = [5.0, 1.0, None, 7.0, 8.0, float("nan"), 6.0, 2.0]
    moves = decisions(search, members(), scores, 2)
    assert [move.member for move in moves] == [2, 5], "those that failed are the worst"
    assert {move.parent for move in moves} <= {3, 4}
    for move in moves:
        parent = members()[move.parent]
        assert {path: move.setting[path] for path in SPACE} == parent, "up to there it is its parent"
        (change,) = move.setting[CHANGES]
        assert change["epoch"] == 2
        assert 0.001 <= change["lr"] <= 0.1
        assert settings_at(move.setting, 1) == parent
        assert settings_at(move.setting, 2)["recipe.lr"] == change["lr"] != parent["recipe.lr"]
    assert moves == decisions(search, members(), scores, 2), "decisions are a function of the seed"
    assert moves != decisions(search, members(), scores, 4)
    lowest = decisions(search.model_copy(update={"mode": "min"}), members(), scores, 2)
    assert {move.parent for move in lowest} <= {1, 7}


def test_nobody_goes_on_from_a_failure() -> None:
    search = a_sweep().search
    assert search is not None
    assert decisions(search, members(4), [None, None, None, None], 2) == []
    moves = decisions(search, members(4), [None, 3.0, None, None], 2)
    assert [(move.member, move.parent) for move in moves] == [(0, 1), (2, 1), (3, 1)]


def test_values_are_multiplied_within_their_bounds_or_drawn_anew() -> None:
    search = a_sweep(resample=0.0, perturb=[0.5, 2.0]).search
    assert search is not None
    start = [{"recipe.lr": 0.08, "recipe.dropout": 0.2}, {"recipe.lr": 0.01, "recipe.dropout": 0.2}]
    found = {decisions(search, start, [1.0, 0.0], epoch)[0].setting[CHANGES][0]["lr"] for epoch in range(1, 30)}
    assert found == {0.04, 0.1}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


def told(ledger: Ledger) -> dict[str, Any]:
    """What the ledger says of each trial, without times."""
    found = {}
    for one in ledger.trials_of("p"):
        row = ledger.trial(one.trial_id)
        epochs = sorted((epoch["epoch"], epoch["name"], epoch["value"]) for epoch in row["epochs"])
        found[one.trial_id] = (one.state, one.cause, one.message, dict(one.settings), epochs)
    return found


@pytest.mark.usefixtures("_support_on_path")
def test_every_member_is_a_configuration_of_its_own(tmp_path: Path, ledger: Ledger) -> None:
    sweep = a_sweep()
    outcome = run(sweep, ledger, tmp_path)
    replaced = 2 * 2  # two decisions, round(0.3 * 6) each
    assert outcome.ran == {"finished": 2 + MEMBERS, "stopped early": replaced}
    assert (outcome.left, outcome.elsewhere) == (0, 0)
    for state, cause, message, settings, epochs in told(ledger).values():
        trained = {epoch for epoch, _, _ in epochs}
        if state == "cancelled":
            assert cause == "stopped_early"
            assert message.startswith(f"pbt replaced it after {len(trained)} epochs at rate ")
            assert trained in ({0, 1}, {0, 1, 2, 3})
        else:
            assert (state, trained) == ("finished", set(range(EPOCHS)))
        for change in settings.get(CHANGES, ()):
            assert change["epoch"] in (2, 4)
    assert outcome.population is not None
    assert [one["after_epochs"] for one in outcome.population] == [2, 4]
    assert run(sweep, ledger, tmp_path).ran == {}, "all is done"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The population that nobody stops: what its ledger tells, and its history."""
    folder = tmp_path_factory.mktemp("whole")
    with Ledger.open(folder / "ledger.db") as ledger:
        population = run(a_sweep(), ledger, folder).population
        return told(ledger), population


@pytest.mark.usefixtures("_support_on_path")
@pytest.mark.parametrize("kill_after", [1, 5, 8, 9, 12, 14])
def test_a_population_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, ledger: Ledger, kill_after: int, undisturbed: tuple[Any, Any]
) -> None:
    sweep = a_sweep()
    first = run(sweep, ledger, tmp_path, kill_after=kill_after)
    assert first.left > 0
    second = run(sweep, ledger, tmp_path)
    assert second.left == 0
    assert (told(ledger), second.population) == undisturbed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_support_on_path")
def test_ray_trains_the_same_population(tmp_path: Path, ledger: Ledger, undisturbed: tuple[Any, Any]) -> None:
    from orchestrator.execution.ray_tune import RayExecutor

    outcome = run(a_sweep(), ledger, tmp_path, executor=RayExecutor(workers=2))
    assert outcome.left == 0
    assert told(ledger) == undisturbed[0]


@pytest.mark.usefixtures("_support_on_path")
def test_the_best_schedules_go_into_a_sweep_of_other_seeds(tmp_path: Path, ledger: Ledger) -> None:
    sweep = a_sweep(confirm=2)
    outcome = run(sweep, ledger, tmp_path)
    write_best(plan_sweep(sweep, profiled=False), ledger, RunFolder(tmp_path), outcome.population)
    best = plan_sweep(parse_sweep(yaml.safe_load((tmp_path / "best.yaml").read_text())), profiled=False)
    searched = {one.arm_id: one for one in ledger.trials_of("p")}
    arms = [arm for arm in best.arms if not arm.is_control]
    assert [searched[arm.arm_id].state for arm in arms] == ["finished", "finished"]
    assert all(arm.seeds == (0, 1) for arm in best.arms)
    found = json.loads((tmp_path / "population.json").read_text())
    assert found["generations"] == outcome.population
    for rows, arm in zip(found["best"], arms, strict=True):
        assert rows == schedule(arm.settings)
        for row in rows:
            assert arm.spec.recipe.at(row["from_epoch"]).lr == row["recipe.lr"]


@pytest.mark.slow
def test_members_really_go_on_from_their_parents_weights(tmp_path: Path, ledger: Ledger) -> None:
    base: Mapping[str, Any] = {key: value for key, value in SPEC.items() if key != "seed"}
    recipe = {"epochs": 3, "batch": 32, "optimizer": "sgd"}
    search = {"scheduler": "pbt", "space": SPACE, "configurations": 3, "interval": 1, "quantile": 0.4}
    sweep = parse_sweep({"name": "p", "base": {**base, "recipe": recipe}, "search": search, "seeds": 2})
    outcome = run(sweep, ledger, tmp_path)
    assert outcome.ran == {"finished": 2 + 3, "stopped early": 2}
    heirs = [one for one in ledger.trials_of("p") if one.settings.get(CHANGES)]
    assert {len(one.settings[CHANGES]) for one in heirs} <= {1, 2}
    for one in heirs:
        row = ledger.trial(one.trial_id)
        taken_over = one.settings[CHANGES][-1]["epoch"]
        assert row["attempts"][0]["first_epoch"] == taken_over, "it trained none of its parent's epochs"
        assert {epoch["epoch"] for epoch in row["epochs"]} >= set(range(taken_over))
    best = plan_sweep(sweep, profiled=False, ledger=tmp_path / "ledger.db")
    finished = {one.trial_id for one in ledger.trials_of("p") if one.state == "finished"}
    (arm,) = [arm for arm in best.arms if arm.settings.get(CHANGES) and arm.trials()[0].trial_id in finished][:1]
    with Ledger.open(tmp_path / "alone.db") as alone:
        listed = {**sweep.to_json(), "search": None, "axes": {"list": [dict(arm.settings)]}, "seeds": [1000]}
        run(parse_sweep(listed), alone, tmp_path / "alone")
        for name in ("top1_percent", "train_loss"):
            values = [
                next(one["value"] for one in where.trial(arm.trials()[0].trial_id)["results"] if one["name"] == name)
                for where in (ledger, alone)
            ]
            assert values[0] == values[1], "trained from its first epoch it is the same to the bit"
