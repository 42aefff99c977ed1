"""Names of processes: only a process that surely ended is taken for dead."""

import subprocess
import sys

import pytest

from orchestrator.records import owners
from orchestrator.records.owners import is_dead, new_owner


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
