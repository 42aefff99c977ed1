"""The ledger's promises, one suite over SQLite and PostgreSQL. The clock is whatever the tests say it is."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from orchestrator.errors import UserError
from orchestrator.events import AttemptFailed, Event, Progressed
from orchestrator.failures import Cause
from orchestrator.records import admin
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import (
    ArmRow,
    AttemptRow,
    Base,
    ClipSetRow,
    DiffRow,
    EnvironmentRow,
    EpochMetricRow,
    LeaseRow,
    PredictionsRow,
    ResultRow,
    SamplesRow,
    State,
    TrialRow,
)
from orchestrator.records.values import Checkpoint, PlannedTrial, Standing
from workloads.progress import CheckpointWritten, EpochDone

Rows = list[dict[str, Any]]


def rows(ledger: Ledger, kind: type[Base]) -> Rows:
    with ledger.engine.connect() as connection:
        found = connection.execute(select(kind.__table__)).mappings()
        return sorted((dict(row) for row in found), key=repr)


def everything(ledger: Ledger) -> dict[str, Rows]:
    return {mapper.class_.__tablename__: rows(ledger, mapper.class_) for mapper in Base.registry.mappers}


def series(ledger: Ledger, trial_id: str, name: str = "train_loss") -> dict[int, float]:
    found = rows(ledger, EpochMetricRow)
    return {row["epoch"]: row["value"] for row in found if (row["trial_id"], row["name"]) == (trial_id, name)}


def states(ledger: Ledger, trial_ids: Sequence[str]) -> list[State]:
    standing = ledger.standing(trial_ids)
    return [standing[trial_id].state for trial_id in trial_ids]


def failed(trial_id: str, cause: Cause, attempt: int = 1, at: float = 105.0, retried: bool = True) -> AttemptFailed:
    return AttemptFailed(trial_id, attempt, at, cause, f"because {cause}", "Traceback ...", retried)


def claimed(ledger: Ledger, sample: Any, owner: str = "driver", **plan: Any) -> list[str]:
    """A recorded plan whose trials `owner` holds."""
    planned = sample.plan(**plan)
    ledger.record_plan(planned, now=1.0)
    ids: list[str] = sample.ids(planned)
    ledger.claim(ids, owner, lease_seconds=60.0, now=10.0)
    return ids


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


class TestLeases:
    def test_a_trial_is_claimed_once(self, ledger: Ledger, sample: Any) -> None:
        plan = sample.plan()
        ledger.record_plan(plan, now=1.0)
        ids = sample.ids(plan)
        mine = ledger.claim(ids[:4], "me", 60.0, now=10.0)
        assert [(one.trial_id, one.attempt, dict(one.earlier), one.micro_batch) for one in mine] == [
            (trial_id, 1, {}, None) for trial_id in ids[:4]
        ]
        theirs = ledger.claim(ids, "you", 60.0, now=11.0)
        assert [one.trial_id for one in theirs] == ids[4:]
        assert ledger.claim(ids, "me", 60.0, now=12.0) == [], "not even its owner may start it twice"

    def test_a_renewed_lease_holds_and_an_ended_one_does_not(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, owner="me")  # until 70
        assert ledger.renew("me", 60.0, now=65.0) == frozenset(ids)
        assert ledger.claim(ids, "you", 60.0, now=124.0) == []
        assert [one.trial_id for one in ledger.claim(ids[:2], "you", 60.0, now=126.0)] == ids[:2]
        assert ledger.renew("me", 60.0, now=127.0) == frozenset(ids[2:]), "it learns what it has lost"

    def test_a_lost_driver_cannot_spoil_the_next_attempt(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample, owner="me")
        ledger.apply([sample.started(trial_id), sample.epoch(trial_id, 0)], "me")
        (claim,) = ledger.claim([trial_id], "you", 60.0, now=200.0)
        assert (claim.attempt, claim.earlier) == (2, {Cause.LOST: 1})
        assert states(ledger, [trial_id]) == [State.PLANNED]
        ledger.apply([sample.started(trial_id, 2, at=201.0)], "you")
        before = everything(ledger)
        late = [sample.epoch(trial_id, 1), failed(trial_id, Cause.LOST), *sample.whole(trial_id, attempt=2)]
        assert ledger.apply(late, "me") == {trial_id}
        assert everything(ledger) == before
        lost = rows(ledger, AttemptRow)[0]
        assert (lost["outcome"], lost["cause"], lost["ended_at"]) == ("lost", "lost", 200.0)
        ledger.apply([sample.epoch(trial_id, 1, 2), sample.ended(trial_id, 2)], "you")
        assert states(ledger, [trial_id]) == [State.FINISHED]

    def test_released_trials_are_free_at_once(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, owner="me")
        ledger.apply([sample.started(ids[0])], "me")
        ledger.release("me")
        claims = ledger.claim(ids, "you", 60.0, now=12.0)
        assert [one.trial_id for one in claims] == ids
        assert [one.attempt for one in claims] == [2, 1, 1, 1, 1, 1]

    def test_ended_trials_are_not_claimed_until_reset(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=1, seeds=5)
        ends = [("finished", sample.result()), ("diverged", None), ("failed", None), ("infeasible", None)]
        for trial_id, (state, result) in zip(ids, ends, strict=False):
            ledger.apply([sample.started(trial_id), sample.ended(trial_id, state=state, result=result)], "driver")
        ledger.apply([sample.ended(ids[4], state="cancelled", result=None)], "driver")
        ledger.release("driver")
        assert [one.trial_id for one in ledger.claim(ids, "you", 60.0, now=120.0)] == [ids[4]], "cancelled goes on"
        assert ledger.reset(ids) == frozenset(ids[2:4])
        claims = ledger.claim(ids, "you", 60.0, now=121.0)
        assert [(one.trial_id, one.attempt) for one in claims] == [(ids[2], 2), (ids[3], 2)]

    def test_a_reset_trial_starts_counting_anew(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        ledger.apply([sample.started(trial_id, micro_batch=4), failed(trial_id, Cause.HANGING)], "driver")
        ledger.apply([sample.started(trial_id, 2), failed(trial_id, Cause.HANGING, 2, retried=False)], "driver")
        ledger.apply([sample.ended(trial_id, 2, state="failed", result=None)], "driver")
        ledger.reset([trial_id])
        (claim,) = ledger.claim([trial_id], "driver", 60.0, now=200.0)
        assert (claim.attempt, claim.earlier, claim.micro_batch) == (3, {}, None)
        ledger.apply(sample.whole(trial_id, attempt=3, at=300.0), "driver")
        (trial,) = [row for row in rows(ledger, TrialRow) if row["trial_id"] == trial_id]
        assert trial["started_at"] == 300.0

    def test_claims_tell_what_earlier_attempts_died_of(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        for number, cause in enumerate([Cause.LOST, Cause.LOST, Cause.HANGING], start=1):
            ledger.apply([sample.started(trial_id, number), failed(trial_id, cause, number)], "driver")
        (claim,) = ledger.claim([trial_id], "you", 60.0, now=500.0)
        assert (claim.attempt, claim.earlier) == (4, {Cause.LOST: 2, Cause.HANGING: 1})

    @pytest.mark.parametrize(("bound", "expected"), [(None, 16), (16, 8)])
    def test_a_bound_survives_the_driver(self, ledger: Ledger, sample: Any, bound: int | None, expected: int) -> None:
        """The driver died between an out-of-memory failure and the smaller attempt."""
        trial_id, *_ = claimed(ledger, sample)
        began = sample.started(trial_id, micro_batch=bound)
        ledger.apply([began, failed(trial_id, Cause.OUT_OF_MEMORY)], "driver")
        (claim,) = ledger.claim([trial_id], "you", 60.0, now=500.0)
        assert (claim.micro_batch, claim.earlier) == (expected, {Cause.OUT_OF_MEMORY: 1})

    def test_a_bound_stays_after_other_failures(self, ledger: Ledger, sample: Any) -> None:
        trial_id, *_ = claimed(ledger, sample)
        ledger.apply([sample.started(trial_id, micro_batch=8), failed(trial_id, Cause.LOST)], "driver")
        (claim,) = ledger.claim([trial_id], "you", 60.0, now=500.0)
        assert claim.micro_batch == 8

    def test_who_the_driver_is_survives_its_heartbeats(self, ledger: Ledger, sample: Any) -> None:
        ledger.introduce("me", {"command": ["longrange", "run"]})
        claimed(ledger, sample, owner="me")
        ledger.renew("me", 60.0, now=20.0)
        assert rows(ledger, LeaseRow) == [
            {"owner": "me", "lease_until": 80.0, "driver": {"command": ["longrange", "run"]}}
        ]

    def test_racing_drivers_share_trials_without_overlap(
        self, ledger: Ledger, location: str | Path, sample: Any
    ) -> None:
        plan = sample.plan(arms=10, seeds=20)
        ledger.record_plan(plan, now=1.0)

        ready = Barrier(4)

        def drive(number: int) -> list[str]:
            wanted = random.Random(number).sample(sample.ids(plan), 200)
            with Ledger.open(location, create=False) as mine:
                ready.wait()
                claims = []
                for start in range(0, 200, 5):
                    claims += mine.claim(wanted[start : start + 5], f"driver {number}", 60.0, now=10.0)
                    time.sleep(0.01)  # SQLite's lock is not fair: who never pauses may keep it
            return [claim.trial_id for claim in claims]

        with ThreadPoolExecutor(4) as drivers:
            taken = list(drivers.map(drive, range(4)))
        together = [trial_id for some in taken for trial_id in some]
        assert sorted(together) == sorted(sample.ids(plan))
        assert sum(bool(some) for some in taken) > 1, "the race was none"

    def test_racing_writers_all_succeed(self, ledger: Ledger, location: str | Path, sample: Any) -> None:
        plan = sample.plan(arms=4, seeds=10)
        ledger.record_plan(plan, now=1.0)
        ids = sample.ids(plan)

        def drive(number: int) -> None:
            with Ledger.open(location, create=False) as mine:
                for claim in mine.claim(ids[number::4], f"driver {number}", 60.0, now=10.0):
                    for event in sample.whole(claim.trial_id):
                        mine.apply([event], f"driver {number}")

        with ThreadPoolExecutor(4) as drivers:
            list(drivers.map(drive, range(4)))
        assert set(states(ledger, ids)) == {State.FINISHED}
        assert admin.check(location).problems == ()

    def test_one_ledger_serves_several_threads(self, ledger: Ledger, sample: Any) -> None:
        ids = claimed(ledger, sample, arms=2, seeds=10)
        with ThreadPoolExecutor(3) as threads:
            writers = [threads.submit(ledger.apply, sample.whole(trial_id), "driver") for trial_id in ids]
            readers = [threads.submit(ledger.trials_of, "which <block>?") for _ in range(20)]
            assert {done.result() for done in writers} == {frozenset()}
            assert {len(done.result()) for done in readers} == {20}


CHILD = """
import sys
from pathlib import Path
from orchestrator.events import Ended, Progressed, Started
from orchestrator.records.ledger import Ledger
from workloads.progress import EpochDone, Finished
where, *ids = sys.argv[1:]
with Ledger.open(where, create=False) as ledger:
    for trial_id in ids:
        epochs = [Progressed(trial_id, 1, 101.0, EpochDone(e, {"train_loss": 0.5}, 1.0)) for e in range(50)]
        end = Ended(trial_id, 1, 110.0, "finished", Finished({"top1_percent": 75.0}))
        ledger.apply([Started(trial_id, 1, 100.0, "h", "cpu"), *epochs, end], "driver")
        print("one", flush=True)
"""


def test_a_killed_driver_leaves_whole_batches(ledger: Ledger, location: str | Path, sample: Any) -> None:
    ids = claimed(ledger, sample, arms=2, seeds=500)
    command = [sys.executable, "-c", CHILD, str(location), *ids]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = sum(child.stdout.readline() == b"one\n" for _ in range(20))
        child.kill()
    finished = [trial_id for trial_id in ids if ledger.standing([trial_id])[trial_id].state is State.FINISHED]
    assert told <= len(finished) < len(ids), "what apply returned from is on disk"
    assert finished == ids[: len(finished)]
    assert all(len(series(ledger, trial_id)) == 50 for trial_id in (finished[0], finished[-1]))
    assert len(rows(ledger, EpochMetricRow)) == 50 * len(finished)
    assert admin.check(location).problems == ()
    claims = ledger.claim(ids, "next driver", 60.0, now=1000.0)
    assert [claim.trial_id for claim in claims] == ids[len(finished) :]
