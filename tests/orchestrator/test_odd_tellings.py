"""What a trial tells can be what no table holds: that is the trial's own trouble, or none, and never the run's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from odd_tellings import METRICS
from postgres import PostgreSQL
from scripted_runs import Driver, plan_of

from orchestrator.events import Event
from orchestrator.plan import Plan, make_plan
from orchestrator.records.ledger import Ledger
from orchestrator.records.values import TrialInfo
from orchestrator.sweep import parse_sweep


@pytest.fixture(params=["sqlite", "postgresql"])
def driver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Driver]:
    server: PostgreSQL | None = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    with Ledger.open(server.emptied() if server else tmp_path / "ledger.db") as ledger:
        yield Driver(tmp_path, ledger)


def telling(tells: str) -> Plan:
    """A control that finishes and an arm that tells something odd, of one seed each."""
    base = {"workload": {"name": "odd_tellings:Odd", "tells": tells}, "insertion": {"res3": [0]}, "block": "nl"}
    return make_plan(parse_sweep({"name": "odd", "base": base, "seeds": 1}))


def trials(driver: Driver) -> dict[bool, TrialInfo]:
    """By whether it is the control."""
    return {one.is_control: one for one in driver.ledger.trials_of("odd")}


def test_messages_may_quote_names_and_bytes_that_are_no_text(driver: Driver) -> None:
    assert driver.run(telling("message")).ran == {"failed": 1, "finished": 1}
    found = trials(driver)
    assert found[True].state == "finished"
    assert found[False].message == r"3 of 100 clips are unreadable: caf\udce9.mp4, a\x00b"
    assert r"caf\udce9.mp4" in driver.ledger.trial(found[False].trial_id)["attempts"][0]["traceback"]


def test_clips_may_be_named_after_files_whose_names_are_no_text(driver: Driver) -> None:
    assert driver.run(telling("names")).ran == {"finished": 2}
    trial_id = trials(driver)[False].trial_id
    assert driver.ledger.predictions([trial_id])[trial_id].clips[:2] == (r"caf\udce9.mp4", "clip-1")
    assert driver.ledger.trial(trial_id)["notes"] == [r"caf\udce9.mp4 a\x00b"]


@pytest.mark.parametrize("tells", METRICS)
def test_a_metric_that_no_table_holds_fails_its_trial_alone(driver: Driver, tells: str) -> None:
    assert driver.run(telling(tells)).ran == {"failed": 1, "finished": 1}
    found = trials(driver)
    assert (found[True].state, found[False].state, found[False].cause) == ("finished", "failed", "bug")
    said = "the metric 'rate' must be a number" if tells in ("none", "text") else "a metric's name has 1 to 100 letters"
    assert str(found[False].message).startswith(said)


def test_a_fingerprint_of_any_length_is_kept_and_known_again(driver: Driver) -> None:
    assert driver.run(telling("long fingerprint")).ran == {"finished": 2}
    assert driver.run(telling("long fingerprint")).reused == 2


class Broken(Ledger):
    """Fails in a way that nobody thought of."""

    def apply(self, events: Sequence[Event], owner: str) -> frozenset[str]:
        raise ZeroDivisionError(f"{len(events)} events")


def test_a_ledger_that_fails_unforeseen_ends_the_run(tmp_path: Path) -> None:
    with Broken.open(tmp_path / "ledger.db") as ledger:
        driver = Driver(tmp_path, ledger)
        with pytest.raises(ZeroDivisionError):
            driver.run(plan_of(epoch_seconds=0.3))
        assert len(driver.watch.events) < 20, "it went on without a ledger"
