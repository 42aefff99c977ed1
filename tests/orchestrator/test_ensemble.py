"""`longrange ensemble` on ledgers that tests write: who is mixed with whom, what is refused, what is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.ensemble import ensemble
from orchestrator.errors import UserError
from orchestrator.events import Ended, Event, Started
from orchestrator.records.ledger import Ledger
from orchestrator.records.values import PlannedArm, PlannedSweep, PlannedTrial
from workloads import ensemble as mixing
from workloads import metrics
from workloads.progress import Finished, Predictions

CLIPS, CLASSES = 200, 9
NAMES = tuple(f"clip {at}" for at in range(CLIPS))
LABELS = np.random.default_rng(0).integers(0, CLASSES, CLIPS)


def scores(seed: int, strength: float = 2.0) -> np.ndarray:
    logits = np.random.default_rng(100 + seed).normal(0, 1, (CLIPS, CLASSES))
    logits[np.arange(CLIPS), LABELS] += strength
    exponents = np.exp(logits)
    return (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float16)


def write(
    path: Path,
    arms: dict[str, dict[int, Predictions]],
    *,
    sweep: str = "sweep",
    first: int = 0,
) -> Path:
    """A ledger with finished trials: arm's label -> seed -> what it predicted."""
    ids = {label: f"{first + at:016x}" for at, label in enumerate(arms)}
    trials = {(label, seed): f"{first + at:08x}{seed:08x}" for at, label in enumerate(arms) for seed in arms[label]}
    spec = {"workload": {"name": "w"}, "backbone": {"name": "b"}, "block": {"name": "none"}, "insertion": {}}
    plan = PlannedSweep(
        sweep,
        question="",
        definition={},
        arms=[PlannedArm(ids[label], label, spec, is_control=at == 0) for at, label in enumerate(arms)],
        trials=[PlannedTrial(trial, ids[label], seed) for (label, seed), trial in trials.items()],
    )
    with Ledger.open(path) as ledger:
        ledger.record_plan(plan, 1.0)
        ledger.claim(list(trials.values()), "me", 60.0, 2.0)
        events: list[Event] = []
        for (label, seed), trial in trials.items():
            result = Finished({"top1_percent": 1.0}, arms[label][seed])
            started = Started(trial, 1, 3.0, host="here", device="cpu", environment={})
            events += [started, Ended(trial, 1, 4.0, "finished", result)]
        ledger.apply(events, "me")
    return path


def predicted(seed: int, strength: float = 2.0, order: Sequence[int] | None = None) -> Predictions:
    at = np.arange(CLIPS) if order is None else np.array(order)
    return Predictions(tuple(NAMES[n] for n in at), LABELS[at], scores(seed, strength)[at])


def run(*words: object) -> str:
    done = CliRunner().invoke(cli, ["ensemble", *map(str, words)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    arms = {"tsn": {0: predicted(0), 1: predicted(1)}, "hgnl g1=2": {0: predicted(2), 1: predicted(3)}}
    return write(tmp_path / "a.db", arms)


def test_arms_are_mixed_seed_by_seed(ledger: Path) -> None:
    found = ensemble([f"{ledger}::tsn", f"{ledger}::hgnl g1=2"], weights=[1, 3])
    mixed = [mixing.combine([scores(seed), scores(2 + seed)], [1, 3], "softmax") for seed in (0, 1)]
    assert found.seeds == (0, 1)
    assert [member.weight for member in found.members] == [0.25, 0.75]
    for name, measure in (("top1_percent", lambda s: metrics.top_k_percent(s, LABELS, 1)),):
        assert found.rating[name] == pytest.approx(np.mean([measure(one) for one in mixed]))
        assert found.members[0].rating[name] == pytest.approx(np.mean([measure(scores(seed)) for seed in (0, 1)]))
    wanted = np.mean([metrics.averaged_error_percent(one, LABELS) for one in mixed])
    assert found.rating["averaged_error_percent"] == pytest.approx(wanted)
    gain = found.members[0].gains["top1_percent"]
    assert gain.difference == pytest.approx(found.rating["top1_percent"] - found.members[0].rating["top1_percent"])
    assert gain.interval.low < gain.difference < gain.interval.high
    assert gain.verdict == "better"
    assert found.members[0].gains["averaged_error_percent"].verdict == "better"
    assert found.members[0].gains["averaged_error_percent"].difference < 0


def test_trials_of_other_ledgers_and_sweeps_are_put_in_the_same_order(ledger: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(CLIPS).tolist()
    other = write(tmp_path / "b.db", {"stnet": {7: predicted(4, order=order)}}, sweep="other", first=50)
    found = ensemble([f"{ledger}::0000000100000001", f"{other}::00000032"], average="logits")
    wanted = mixing.combine([scores(3), scores(4)], [1, 1], "logits")
    assert [member.trials for member in found.members] == [{1: "0000000100000001"}, {7: "0000003200000007"}]
    assert found.rating["top1_percent"] == pytest.approx(metrics.top_k_percent(wanted, LABELS, 1))


def test_one_trial_goes_with_every_seed_of_an_arm(ledger: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "b.db", {"stnet": {7: predicted(4)}}, first=50)
    found = ensemble([f"{ledger}::tsn", f"{other}::0000003200000007"])
    mixed = [mixing.combine([scores(seed), scores(4)], [1, 1], "softmax") for seed in (0, 1)]
    assert found.rating["top1_percent"] == pytest.approx(np.mean([metrics.top_k_percent(m, LABELS, 1) for m in mixed]))
    with pytest.raises(UserError, match="no finished seed in common"):
        ensemble([f"{ledger}::tsn", f"{other}::stnet"])


def test_searched_weights_are_measured_on_the_other_half(tmp_path: Path) -> None:
    path = write(tmp_path / "a.db", {"good": {0: predicted(0, 3.0)}, "bad": {0: predicted(1, 0.0)}})
    found = ensemble([f"{path}::good", f"{path}::bad"], weights="search", half_seed=4)
    assert (found.weights_from, found.half_seed) == ("searched", 4)
    assert found.clips + found.searched_on == CLIPS
    assert abs(found.clips - found.searched_on) <= CLASSES
    assert found.members[0].weight > 0.8
    searched, shown = mixing.halves(LABELS, 4)
    weights = mixing.search_weights([scores(0, 3.0)[searched], scores(1, 0.0)[searched]], LABELS[searched], "softmax")
    mixed = mixing.combine([scores(0, 3.0)[shown], scores(1, 0.0)[shown]], weights, "softmax")
    assert found.rating["top1_percent"] == pytest.approx(metrics.top_k_percent(mixed, LABELS[shown], 1))
    assert f"weights searched on {len(searched)} other clips" in run(
        f"{path}::good", f"{path}::bad", "--weights=search"
    )


def test_the_table_and_the_json_tell_the_same(ledger: Path) -> None:
    members = (f"{ledger}::tsn", f"{ledger}::hgnl g1=2")
    values = json.loads(run(*members, "--average", "logits", "--json"))
    table = run(*members, "--average", "logits")
    assert "averaged before the softmax; equal weights; 200 clips; means over seeds 0, 1" in table
    assert f"{values['rating']['averaged_error_percent']:.2f}" in table
    for member in values["members"]:
        assert f"{member['rating']['top1_percent']:.2f}" in table
        low, high = member["gains"]["top1_percent"]["interval"]
        assert f"[{low:+.2f}, {high:+.2f}]" in table


def test_other_clips_labels_or_classes_are_refused(ledger: Path, tmp_path: Path) -> None:
    renamed = Predictions(("new", *NAMES[1:]), LABELS, scores(4))
    relabelled = Predictions(NAMES, (LABELS + (np.arange(CLIPS) < 3)) % CLASSES, scores(4))
    wider = Predictions(NAMES, LABELS, np.pad(scores(4), ((0, 0), (0, 1))))
    raw = Predictions(NAMES, LABELS, 10 * scores(4))
    arms = {"renamed": {0: renamed}, "relabelled": {0: relabelled}, "wider": {0: wider}, "raw": {0: raw}}
    other = write(tmp_path / "b.db", arms, first=50)
    for arm, message in {
        "renamed": r"not evaluated on the same clips: 200 and 200, 199 in common; only one has clip 0, new",
        "relabelled": r"disagree on the labels of 3 of 200 clips",
        "wider": r"\[200, 9\] and \[200, 10\]",
        "raw": r"no probabilities",
    }.items():
        with pytest.raises(UserError, match=message):
            ensemble([f"{ledger}::tsn", f"{other}::{arm}"])


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("tsn", "FOLDER::ARM or FOLDER::TRIAL"),
        ("{ledger}::tns", "its arms: hgnl g1=2, tsn; did you mean 'tsn'"),
        ("{ledger}::0000", "4 trials begin with '0000'"),
        ("nowhere::tsn", "no run in nowhere"),
    ],
)
def test_members_that_are_not_there(ledger: Path, member: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ensemble([f"{ledger}::tsn", member.format(ledger=ledger)])


def test_one_label_for_two_arms_asks_for_the_id(ledger: Path) -> None:
    write(ledger, {"tsn": {0: predicted(6)}}, sweep="second", first=50)
    with pytest.raises(UserError, match=r"several arms are called 'tsn'.*0{14}32 in second, 0{16} in sweep"):
        ensemble([f"{ledger}::tsn", f"{ledger}::hgnl g1=2"])
    assert ensemble([f"{ledger}::{'0' * 16}", f"{ledger}::hgnl g1=2"]).seeds == (0, 1)


def test_weights_that_cannot_be_used(ledger: Path) -> None:
    for weights, message in (("1", "2 members need 2 weights"), ("0,0", "not all 0"), ("a,b", "numbers such as")):
        with pytest.raises(UserError, match=message):
            run(f"{ledger}::tsn", f"{ledger}::hgnl g1=2", "--weights", weights)
    with pytest.raises(UserError, match="two members or more"):
        run(f"{ledger}::tsn")


def test_confusion_says_the_classes_names(tmp_path: Path) -> None:
    names = tuple(f"sign {label}" for label in range(CLASSES))
    path = write(tmp_path / "named.db", {"tsn": {0: replace(predicted(0), class_names=names)}})
    done = CliRunner().invoke(cli, ["confusion", f"{path}::tsn", "--json"], standalone_mode=False)
    assert json.loads(done.stdout)["classes"] == list(names)
    table = CliRunner().invoke(cli, ["confusion", f"{path}::tsn"], standalone_mode=False).stdout
    first, *rest = (line.strip() for line in table.splitlines() if "sign" in line)
    assert first.startswith("sign 0")
    assert "sign 0" in first or any("sign 0 (" in line for line in rest)


def test_confusion_counts_the_clips_of_every_seed(ledger: Path) -> None:
    done = CliRunner().invoke(cli, ["confusion", f"{ledger}::tsn", "--json"], standalone_mode=False)
    values = json.loads(done.stdout)
    wanted = sum(metrics.confusion(scores(seed), LABELS) for seed in (0, 1))
    assert values["confusion"] == wanted.tolist()
    assert values["ece"]["1"] == pytest.approx(metrics.expected_calibration_error(scores(1), LABELS))
    table = CliRunner().invoke(cli, ["confusion", f"{ledger}::tsn"], standalone_mode=False).stdout
    right = 100 * wanted[3, 3] / wanted[3].sum()
    assert f"{right:.1f}" in next(line for line in table.splitlines() if line.strip().startswith("3 "))
