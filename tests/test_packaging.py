"""Dependencies have reasons and pins, changes say what they do to old results, and both are held by the files."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# `"name>=1",  # reason` as pyproject.toml has them; the reason may stand above.
LINES = re.findall(r'^ *"([^"]+)",?(?:\s*# *(.*))?$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)


def requirements() -> list[Requirement]:
    """What all users and developers install, without our own extras."""
    extras = PROJECT["project"]["optional-dependencies"]
    given = [*PROJECT["project"]["dependencies"], *(line for lines in extras.values() for line in lines)]
    return [found for line in given if (found := Requirement(line)).name != "longrange"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([\w.-]+)==([\w.+!-]+)", line) for line in lines]
    return {canonicalize_name(pin[1]): pin[2] for pin in found if pin}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda found: found.name)
def test_a_dependency_is_pinned_to_a_version_it_allows(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pinned()[canonicalize_name(requirement.name)], prereleases=True)


def test_dependencies_of_users_have_reasons_and_their_owners_exist() -> None:
    reasons = dict(LINES)
    wanted = PROJECT["project"]["dependencies"]
    assert [line for line in wanted if len(reasons[line]) < 10] == []
    named = {path for line in wanted for path in re.findall(r"\b(?:[a-z_]+/)+(?:[a-z_]+\.py)?", reasons[line])}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_torch_is_pinned_without_cuda() -> None:
    assert "torch==2.13.0\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert "torchvision" not in pinned()


def test_an_audit_that_could_not_look_fails() -> None:
    """pip-audit skips what it finds no data about, and ends well unless it is told otherwise."""
    (command,) = re.findall(r"bin/pip-audit (.+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert {"--strict", "constraints.txt"} <= set(command.split())


def test_changes_say_whether_old_results_stay_comparable() -> None:
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    assert kinds == {"comparable", "ids", "costs", "results"}
    files = [file for file in (ROOT / PROJECT["tool"]["towncrier"]["directory"]).iterdir() if file.name != "README.md"]
    assert [file.name for file in files if not re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(kinds)})\.md", file.name)] == []
    assert [file.name for file in files if not file.read_text(encoding="utf-8").strip()] == []
