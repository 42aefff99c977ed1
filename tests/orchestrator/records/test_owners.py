"""Names of processes: only a process that surely ended is taken for dead."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from ledger_rows import rows

from orchestrator.errors import AnotherDriver
from orchestrator.records import owners
from orchestrator.records.ledger import Ledger
from orchestrator.records.owners import alone_on, enter_alone, is_dead, new_owner, stay_alone
from orchestrator.records.schema import LeaseRow


def ended_owner() -> str:
    program = "from orchestrator.records.owners import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_names_are_never_the_same() -> None:
    assert len({new_owner() for _ in range(100)}) == 100


def test_a_living_process_is_not_dead() -> None:
    assert not is_dead(new_owner())


def test_a_process_of_this_machine_that_ended_is_dead() -> None:
    assert is_dead(ended_owner())


def test_a_process_number_that_was_given_to_another_process_is_dead() -> None:
    host, pid, _, *rest = new_owner().split(":")
    assert is_dead(":".join([host, pid, "1.00", *rest]))


@pytest.mark.parametrize("elsewhere", ["other boot", "other container"])
def test_nothing_is_known_of_a_process_that_shares_the_host_name_only(
    monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    """Containers may share a host's name, and have processes of the same numbers."""
    owner = ended_owner()
    monkeypatch.setattr(owners, "_place", lambda: elsewhere)
    assert not is_dead(owner)


@pytest.mark.parametrize("owner", ["", "somebody", "host:1", ":::", "host:x:1.0:abc", "host:1:soon:abc:def"])
def test_a_name_of_another_form_is_not_dead(owner: str) -> None:
    assert not is_dead(owner)


def entered(ledger: Ledger, owner: str, sweep: str = "searched", now: float = 100.0) -> str | None:
    """Who is in the way, by the message."""
    try:
        enter_alone(ledger, owner, sweep, {"host": "here"}, lease_seconds=60.0, now=now)
    except AnotherDriver as error:
        return str(error)
    return None


def test_one_driver_is_alone_until_it_leaves_or_its_lease_ends(ledger: Ledger) -> None:
    first, second, third = new_owner(), new_owner(), new_owner()
    assert entered(ledger, first) is None
    assert alone_on(ledger, "searched", 159.0) == first
    process = first.split(":")[1]
    assert f"another driver is searching for 'searched' (process {process} on " in str(entered(ledger, second, now=159))
    assert entered(ledger, second, sweep="another") is None, "other sweeps are free"
    ledger.renew(first, 60.0, 150.0)
    assert entered(ledger, third, now=200.0) is not None
    ledger.release(first)
    assert alone_on(ledger, "searched", 200.0) is None
    assert entered(ledger, third, now=200.0) is None
    assert entered(ledger, first, now=261.0) is None, "the third said nothing for a minute"


def test_who_slept_too_long_has_lost_its_place_for_good(ledger: Ledger) -> None:
    """Its heartbeat renews its lease when it wakes; that must neither bring it back nor drive out the next."""
    first, second = new_owner(), new_owner()
    entered(ledger, first)
    stay_alone(ledger, first, "searched", lease_seconds=60.0, now=130.0)
    assert entered(ledger, second, now=180.0) is not None
    assert entered(ledger, second, now=200.0) is None
    ledger.renew(first, 60.0, 210.0)
    with pytest.raises(AnotherDriver):
        stay_alone(ledger, first, "searched", lease_seconds=60.0, now=210.0)
    stay_alone(ledger, second, "searched", lease_seconds=60.0, now=210.0)
    assert alone_on(ledger, "searched", 265.0) == second


def test_who_died_on_this_machine_is_in_nobodys_way(ledger: Ledger) -> None:
    dead = ended_owner()
    assert entered(ledger, dead) is None
    assert ledger.drivers(now=100.0) == {dead}
    assert alone_on(ledger, "searched", 100.0) is None
    assert entered(ledger, new_owner()) is None


def test_of_drivers_that_come_at_once_one_enters(ledger: Ledger) -> None:
    owners = [new_owner() for _ in range(6)]
    with ThreadPoolExecutor(len(owners)) as pool:
        said = list(pool.map(lambda owner: entered(ledger, owner), owners))
    assert said.count(None) == 1
    assert alone_on(ledger, "searched", 100.0) == owners[said.index(None)]


def test_who_enters_is_known_to_the_ledger(ledger: Ledger) -> None:
    owner = new_owner()
    entered(ledger, owner)
    assert ledger.drivers(now=150.0) == {owner}
    (row,) = rows(ledger, LeaseRow)
    assert row["driver"] == {"host": "here", "alone_on": "searched"}
