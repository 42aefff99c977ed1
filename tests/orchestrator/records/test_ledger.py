"""The ledger's promises about plans and events, one suite over SQLite and PostgreSQL; the tests say what time it is."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ledger_rows import claimed, everything, failed, rows, series, states

from orchestrator.errors import UserError
from orchestrator.events import Ended, Event, Paused, Progressed
from orchestrator.failures import Cause
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import (
    ArmRow,
    AttemptRow,
    ClipSetRow,
    DiffRow,
    EnvironmentRow,
    EpochMetricRow,
    PredictionsRow,
    ResultRow,
    SamplesRow,
    State,
    TrialRow,
)
from orchestrator.records.values import Checkpoint, PlannedTrial, Refused, Standing
from workloads.progress import CheckpointWritten, EpochDone


class TestPlan:
    def test_a_plan_is_there_after_reopening(self, ledger: Ledger, location: str | Path, sample: Any) -> None:
        ledger.record_plan(sample.plan(), now=1.0)
        with Ledger.open(location, create=False) as again:
            sweep = again.sweep("which <block>?")
            assert sweep is not None
            assert (sweep.question, sweep.definition, sweep.created_at) == ("Which block?", {"seeds": 3}, 1.0)
            assert sweep.states == {State.PLANNED: 6}
            assert [one.reason for one in sweep.rejections] == ["7 does not divide 64 channels"]
            trials = again.trials_of(sweep.name)
        assert [(one.label, one.seed) for one in trials] == [
            (f"arm {arm}", seed) for seed in range(3) for arm in (0, 1)
        ]
        assert [one.is_control for one in trials[:2]] == [True, False]

    def test_numbers_beyond_32_bits_survive(self, ledger: Ledger, sample: Any) -> None:
        plan = sample.plan(arms=1, seeds=0)
        ledger.record_plan(replace(plan, trials=[PlannedTrial("f" * 16, plan.arms[0].arm_id, 2**40)]), now=1.0)
        assert [(row["params"], row["executed_macs"]) for row in rows(ledger, ArmRow)] == [(10**10, 10**13)]
        assert [row["seed"] for row in rows(ledger, TrialRow)] == [2**40]

    def test_recording_twice_changes_nothing(self, ledger: Ledger, sample: Any) -> None:
        ledger.record_plan(sample.plan(), now=1.0)
        before = everything(ledger)
        ledger.record_plan(sample.plan(), now=2.0)
        after = everything(ledger)
        for refused in (before["rejections"][0], after["rejections"][0]):
            del refused["id"]  # rejections are written anew
        assert after == before

    def test_what_a_plan_leaves_out_stays_rejected(self, ledger: Ledger, sample: Any) -> None:
        def rejected() -> list[tuple[str, str]]:
            known = ledger.sweep("which <block>?")
            assert known is not None
            return [(one.label, one.reason) for one in known.rejections]

        first = Refused("big", {}, "needs 80 GiB")
        ledger.record_plan(replace(sample.plan(), rejections=[first, Refused("g1=7", {}, "old")]), now=1.0)
        ledger.record_plan(replace(sample.plan(), left_out=["big"]), now=2.0)
        assert rejected() == [("big", "needs 80 GiB"), ("g1=7", "7 does not divide 64 channels")]
        ledger.record_plan(sample.plan(), now=3.0)
        assert rejected() == [("g1=7", "7 does not divide 64 channels")], "the whole was judged"

    def test_adding_seeds_and_arms_keeps_what_ran(self, ledger: Ledger, sample: Any) -> None:
        first, *_ = claimed(ledger, sample, arms=1, seeds=1)
        ledger.apply(sample.whole(first), "driver")
        kept = [row for row in rows(ledger, TrialRow) if row["trial_id"] == first]
        ledger.record_plan(sample.plan(arms=3, seeds=2), now=50.0)
        assert ledger.sweep("which <block>?").states == {State.FINISHED: 1, State.PLANNED: 5}  # type: ignore[union-attr]
        assert [row for row in rows(ledger, TrialRow) if row["trial_id"] == first] == kept

    def test_fewer_seeds_keep_what_ran_but_nothing_that_waits(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=1, seeds=3)
        ledger.apply(sample.whole(ids[1]), "driver")
        ledger.release("driver")
        ledger.record_plan(sample.plan(arms=1, seeds=1), now=50.0)
        assert {one.trial_id for one in ledger.trials_of("which <block>?")} == {ids[0], ids[1]}
        assert states(ledger, ids) == [State.PLANNED, State.FINISHED, State.PLANNED], "no trial is ever deleted"

    def test_arms_that_left_the_plan_leave_the_sweep(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=2, seeds=1)
        ledger.apply(sample.whole(ids[1]), "driver")
        ledger.record_plan(sample.plan(arms=1, seeds=1), now=50.0)
        assert [one.label for one in ledger.trials_of("which <block>?")] == ["arm 0"]
        assert states(ledger, ids) == [State.PLANNED, State.FINISHED]

    def test_arms_that_a_plan_leaves_out_for_now_stay_if_they_ran(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=4, seeds=1)
        ledger.apply(sample.whole(ids[1]), "driver")
        ledger.apply(sample.whole(ids[3]), "driver")
        ledger.release("driver")
        part, whole = sample.plan(arms=1, seeds=1), [arm.arm_id for arm in sample.plan(arms=3).arms]
        for now in (50.0, 51.0):
            ledger.record_plan(replace(part, whole=whole), now)
            found = [(one.label, one.state) for one in ledger.trials_of("which <block>?")]
            assert found == [("arm 0", State.PLANNED), ("arm 1", State.FINISHED)], "arm 2 waits, arm 3 left the sweep"

    def test_waiting_trials_take_new_fingerprints_and_others_keep_theirs(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=1, seeds=2)
        ledger.apply(sample.whole(ids[0]), "driver")
        ledger.release("driver")
        plan = sample.plan(arms=1, seeds=2)
        changed = [replace(one, code_fingerprint="code-2", data_fingerprint="data-2") for one in plan.trials]
        ledger.record_plan(replace(plan, trials=changed), now=50.0)
        assert ledger.standing(ids) == {
            ids[0]: Standing(State.FINISHED, "code-1", "data-1"),
            ids[1]: Standing(State.PLANNED, "code-2", "data-2"),
        }

    def test_a_plan_without_profiles_keeps_the_old_ones(self, ledger: Ledger, sample: Any) -> None:
        ledger.record_plan(sample.plan(arms=1), now=1.0)
        ledger.record_plan(replace(sample.plan(arms=1), arms=[sample.arm(0, profile=None)]), now=2.0)
        assert [row["params"] for row in rows(ledger, ArmRow)] == [10**10]

    def test_one_trial_may_serve_several_sweeps(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=1, seeds=1)
        ledger.apply(sample.whole(ids[0]), "driver")
        ledger.record_plan(sample.plan(arms=1, seeds=1, name="another"), now=60.0)
        assert [one.name for one in ledger.sweeps()] == ["another", "which <block>?"]
        assert [one.state for one in ledger.trials_of("another")] == [State.FINISHED]

    def test_a_trial_without_its_arm_is_refused_whole(self, ledger: Ledger, sample: Any) -> None:
        plan = sample.plan()
        with pytest.raises(ValueError, match="arms it does not list: ffff"):
            ledger.record_plan(replace(plan, trials=[*plan.trials, PlannedTrial("a" * 16, "ffff", 0)]), now=1.0)
        assert ledger.sweeps() == []

    def test_unknown_names_are_empty_not_errors(self, ledger: Ledger) -> None:
        assert ledger.sweep("nothing") is None
        assert ledger.trials_of("nothing") == []
        assert ledger.standing(["nothing"]) == {}
        assert ledger.checkpoint("nothing") is None


class TestEvents:
    def test_a_trial_leaves_everything_it_said(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        assert ledger.apply(sample.whole(trial_id), "driver") == frozenset()
        trial = next(row for row in rows(ledger, TrialRow) if row["trial_id"] == trial_id)
        assert (trial["state"], trial["owner"], trial["started_at"], trial["ended_at"]) == ("finished", None, 100, 103)
        assert trial["notes"] == ["skipped 1 clip"]
        (attempt,) = rows(ledger, AttemptRow)
        assert (attempt["outcome"], attempt["first_epoch"], attempt["host"]) == ("finished", 0, "here")
        (environment,) = rows(ledger, EnvironmentRow)
        assert environment["facts"] == {"python": "3.11", "cores": 2}
        assert environment["environment_id"] == attempt["environment_id"]
        assert series(ledger, trial_id) == {0: 0.5, 1: 0.5}
        assert [(row["name"], row["value"]) for row in rows(ledger, ResultRow)] == [("top1_percent", 75.0)]
        assert [row["samples"] for row in rows(ledger, SamplesRow)] == [[1.0, 2.0, 1.5]]

    def test_predictions_come_back_bit_for_bit(self, ledger: Ledger, sample: Any) -> None:
        first, second, *_ = claimed(ledger, sample)
        ledger.apply([*sample.whole(first), *sample.whole(second)], "driver")
        (clips,) = rows(ledger, ClipSetRow)
        assert json.loads(zlib.decompress(clips["names"])) == ["clip a", "clip ß", "c"]
        assert np.frombuffer(clips["labels"], "<i4").tolist() == [1, 0, 0]
        kept = rows(ledger, PredictionsRow)
        assert len(kept) == 2
        assert list(kept[0]["correct"]) == [1, 1, 0]
        scores = np.frombuffer(zlib.decompress(kept[0]["scores"]), "<f2").reshape(3, clips["classes"])
        np.testing.assert_array_equal(scores, sample.result().predictions.scores)

    def test_names_of_classes_come_back_with_the_predictions(self, ledger: Ledger, sample: Any) -> None:
        first, second, *_ = claimed(ledger, sample)
        told = sample.result()
        named = replace(told, predictions=replace(told.predictions, class_names=("left", "räght")))
        ledger.apply([*sample.whole(first)[:-1], sample.ended(first, result=named)], "driver")
        assert ledger.predictions([first])[first].class_names == ("left", "räght")
        assert ledger.predictions([first])[first].clips == ("clip a", "clip ß", "c")
        ledger.apply(sample.whole(second), "driver")  # evaluated on the same clips: they are kept once, with names
        assert ledger.predictions([second])[second].class_names == ("left", "räght")

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_batches_of_any_size_say_the_same(self, ledger: Ledger, sample: Any, size: int) -> None:
        trial_id, *_ = claimed(ledger, sample)
        events = [
            sample.started(trial_id, 1),
            sample.epoch(trial_id, 0, 1),
            failed(trial_id, Cause.LOST),
            *sample.whole(trial_id, attempt=2, at=200.0),
        ]
        for start in range(0, len(events), size):
            ledger.apply(events[start : start + size], "driver")
        tried = [(row["number"], row["outcome"], row["cause"]) for row in rows(ledger, AttemptRow)]
        assert tried == [(1, "retried", "lost"), (2, "finished", None)]
        assert series(ledger, trial_id) == {0: 0.5, 1: 0.5}

    def test_a_batch_applied_again_changes_nothing(self, ledger: Ledger, sample: Any) -> None:
        one, two, three, *_ = claimed(ledger, sample)
        batch: list[Event] = [
            *sample.whole(one),
            sample.started(two),
            sample.epoch(two, 0),
            failed(two, Cause.LOST),
            sample.started(three),
            Progressed(three, 1, 104.0, CheckpointWritten(0, Path("/there"))),
        ]
        ledger.apply(batch, "driver")
        before = everything(ledger)
        assert ledger.apply(batch, "driver") == frozenset()
        assert everything(ledger) == before

    def test_a_finished_trial_never_changes(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        ledger.apply(sample.whole(trial_id), "driver")
        before = everything(ledger)
        late = [
            sample.epoch(trial_id, 1, loss=9.0),
            failed(trial_id, Cause.BUG),
            sample.started(trial_id, 2),
            sample.epoch(trial_id, 0, attempt=2, loss=9.0),
            sample.ended(trial_id, attempt=2, at=999.0, result=sample.result(1.0)),
        ]
        ledger.apply(late, "driver")
        assert everything(ledger) == before

    def test_a_resumed_series_is_that_of_one_training(self, ledger: Ledger, sample: Any) -> None:
        """Attempt 1 reached epoch 3 and wrote a checkpoint after epoch 1; attempt 2 goes on from there and diverges."""
        trial_id, *_ = claimed(ledger, sample)
        first = [sample.epoch(trial_id, epoch, loss=1.0) for epoch in range(4)]
        ledger.apply([sample.started(trial_id), *first, failed(trial_id, Cause.LOST)], "driver")
        ledger.apply([sample.started(trial_id, 2), sample.epoch(trial_id, 2, attempt=2, loss=2.0)], "driver")
        assert series(ledger, trial_id) == {0: 1.0, 1: 1.0, 2: 2.0}, "epoch 3 belongs to a training that is void"
        ledger.apply([sample.epoch(trial_id, 3, attempt=2, loss=3.0)], "driver")
        assert series(ledger, trial_id) == {0: 1.0, 1: 1.0, 2: 2.0, 3: 3.0}
        assert [row["first_epoch"] for row in rows(ledger, AttemptRow)] == [0, 2]

    def test_a_metric_that_is_not_finite_is_kept_as_none(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        bad = {"train_loss": math.nan, "grad_norm": math.inf, "lr": 0.1}
        progress = Progressed(trial_id, 1, 101.0, EpochDone(0, bad, 1.0))
        end = sample.ended(trial_id, state="diverged", result=None, cause=Cause.DIVERGED, message="loss is nan")
        ledger.apply([sample.started(trial_id), progress, end], "driver")
        found = {row["name"]: row["value"] for row in rows(ledger, EpochMetricRow)}
        assert found == {"train_loss": None, "grad_norm": None, "lr": 0.1}
        (attempt,) = rows(ledger, AttemptRow)
        assert (attempt["outcome"], attempt["cause"], attempt["message"]) == ("diverged", "diverged", "loss is nan")

    def test_a_worker_that_died_before_it_began_is_an_attempt(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        end = sample.ended(trial_id, state="failed", result=None)
        ledger.apply([failed(trial_id, Cause.BUG, retried=False), end], "driver")
        (attempt,) = rows(ledger, AttemptRow)
        assert (attempt["outcome"], attempt["cause"], attempt["traceback"]) == ("failed", "bug", "Traceback ...")
        assert states(ledger, [trial_id]) == [State.FAILED]
        (info,) = [one for one in ledger.trials_of("which <block>?") if one.trial_id == trial_id]
        assert (info.attempts, info.cause, info.message) == (1, "bug", "because bug")

    def test_a_batch_with_a_bad_event_leaves_nothing(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        before = everything(ledger)
        with pytest.raises(ValueError, match="record the plan first"):
            ledger.apply([*sample.whole(trial_id), sample.started("f" * 16)], "driver")
        with pytest.raises(ValueError, match="a finished trial has a result"):
            ledger.apply([sample.started(trial_id), sample.ended(trial_id, result=None)], "driver")
        assert everything(ledger) == before

    def test_an_error_in_the_middle_of_writing_leaves_nothing(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        before = everything(ledger)
        twice = replace(sample.result(), metrics={"name": "not a number"})  # only the last statements meet it
        with pytest.raises(ValueError, match="could not convert"):
            ledger.apply([*sample.whole(trial_id)[:-1], sample.ended(trial_id, result=twice)], "driver")
        assert everything(ledger) == before

    def test_checkpoints_lead_back_until_the_trial_finishes(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        path = Path("/tmp/ckpt <1> ü.pt")
        written = [Progressed(trial_id, 1, 102.0 + epoch, CheckpointWritten(epoch, path)) for epoch in range(2)]
        ledger.apply([sample.started(trial_id), *written], "driver")
        assert ledger.checkpoint(trial_id) == Checkpoint(1, str(path))
        ledger.apply([sample.ended(trial_id)], "driver")
        assert ledger.checkpoint(trial_id) is None

    def test_timings_are_those_of_whole_trainings(self, ledger: Ledger, sample: Any) -> None:
        whole, resumed, running, *_ = claimed(ledger, sample)
        events = [*sample.whole(whole, at=100.0), sample.started(resumed, at=100.0), failed(resumed, Cause.LOST)]
        ledger.apply([*events, *sample.whole(resumed, attempt=2, at=200.0), sample.started(running)], "driver")
        (timing,) = ledger.past_seconds("cpu")
        assert (timing.arm_id, timing.seconds, timing.estimated_seconds) == (f"{0:016x}", 3.0, 8.5)
        assert (timing.workload, timing.spec["recipe"]) == ("digits", {"epochs": 2, "batch": 32})
        assert timing.profile == {"params": 10**10, "executed_macs": 10**13}
        assert ledger.past_seconds("NVIDIA H200") == []
        assert ledger.past_seconds(arm_ids=["f" * 16]) == []
        assert len(ledger.past_seconds(arm_ids=[timing.arm_id])) == 1

    def test_timings_are_not_of_trials_that_took_over_epochs_and_say_how_many_workers(
        self, ledger: Ledger, sample: Any
    ) -> None:
        heir, shared, *_ = claimed(ledger, sample)
        begun, *rest = sample.whole(heir)
        taken_over = Progressed(heir, 1, 101.0, EpochDone(0, {"train_loss": 1.0}, 1.0), replayed=True)
        rest = [event for event in rest if not (isinstance(event, Progressed) and event.progress.epoch == 0)]
        first, *others = sample.whole(shared)
        two = replace(first, environment={**first.environment, "workers": 2})
        ledger.apply([begun, taken_over, *rest, two, *others], "driver")
        (timing,) = ledger.past_seconds("cpu")
        assert (timing.workers, timing.seconds) == (2, 3.0)

    def test_a_paused_trial_goes_on_or_ends(self, ledger: Ledger, sample: Any) -> None:
        goes_on, ends, lost, *_ = claimed(ledger, sample)
        for trial_id in (goes_on, ends, lost):
            ledger.apply([sample.started(trial_id), Paused(trial_id, 1, 102.0)], "driver")
            (attempt,) = ledger.trial(trial_id)["attempts"]
            assert (attempt["outcome"], attempt["ended_at"], attempt["cause"]) == ("paused", 102.0, None)
            assert ledger.standing([trial_id])[trial_id].state == State.RUNNING
        ledger.apply([sample.started(goes_on, attempt=2, at=200.0)], "driver")
        assert [one["number"] for one in ledger.trial(goes_on)["attempts"]] == [1, 2]
        ledger.apply(
            [Ended(ends, 1, 300.0, "cancelled", None, Cause.STOPPED_EARLY, "another took its place")], "driver"
        )
        (attempt,) = ledger.trial(ends)["attempts"]
        assert (attempt["outcome"], attempt["cause"], attempt["ended_at"]) == ("cancelled", "stopped_early", 102.0)
        ledger.release("driver")
        (claim,) = ledger.claim([lost], "other", 60.0, 1000.0)
        assert (claim.attempt, claim.earlier) == (2, {})

    def test_a_trial_is_found_by_the_beginning_of_its_id(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample, arms=1, seeds=2)
        ledger.apply(sample.whole(trial_id), "driver")
        found = ledger.trial(trial_id)
        assert (found["trial_id"], found["seed"], found["spec"]["block"]) == (trial_id, 0, {"name": "none"})
        assert [row["number"] for row in found["attempts"]] == [1]
        assert {(row["name"], row["epoch"]) for row in found["epochs"]} >= {("train_loss", 0), ("train_loss", 1)}
        for beginning, says in (("00000000", "2 trials begin with"), ("f", "no trials begin with"), ("%", "no trials")):
            with pytest.raises(UserError, match=says):
                ledger.trial(beginning)

    def test_a_diff_is_stored_once(self, ledger: Ledger) -> None:
        for _ in range(2):
            ledger.keep_diff("0" * 16, b"compressed")
        assert rows(ledger, DiffRow) == [{"diff_id": "0" * 16, "content": b"compressed"}]


def test_names_too_long_for_one_database_are_refused_by_both(ledger: Ledger, sample: Any) -> None:
    plan = sample.plan()
    arm = replace(plan.arms[1], spec={**plan.arms[1].spec, "block": {"name": f"{'m' * 97}:Mine"}})
    with pytest.raises(
        UserError, match=r"the block's name has 102 letters, a ledger takes 100: m+:Mine; give its module"
    ):
        ledger.record_plan(replace(plan, arms=[plan.arms[0], arm]), now=1.0)
    assert ledger.sweeps() == []
