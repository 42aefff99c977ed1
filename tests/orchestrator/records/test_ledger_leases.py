"""Who may run a trial, on both databases: claims, leases, races, kills. The clock is whatever the tests say it is."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from ledger_rows import claimed, everything, failed, rows, series, states

from orchestrator.failures import Cause
from orchestrator.records import admin
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import (
    AttemptRow,
    EpochMetricRow,
    LeaseRow,
    State,
    TrialRow,
)


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
