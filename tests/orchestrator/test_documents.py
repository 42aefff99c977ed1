"""What YAML can say and no sweep means: each is one message, not a traceback, a hang or a page of values."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.documents import read_yaml
from orchestrator.errors import SweepError, UserError
from orchestrator.sweep import load_sweep, parse_sweep

BASE = {"workload": "digits", "insertion": {"res3": [0]}, "block": "rnl"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a document may be written."""
    return tmp_path / "sweep.yaml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nbase: &b {workload: digits, block: *b}\n", "does an alias contain itself"),
        ("name: &n [a, *n]\n", "does an alias contain itself"),
        ("name: x\naxes: " + "{any_of: [" * 100 + "1" + "]}" * 100 + "\n", "at most 60 levels"),
        ("name: " + "[" * 5_000 + "]" * 5_000 + "\n", "at most 60 levels"),
    ],
)
def test_what_is_nested_beyond_reason_is_refused(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(UserError, match=said):
        read_yaml(file)


def test_a_few_lines_cannot_stand_for_millions_of_values(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]" for index in range(1, 9)]
    file.write_text("\n".join(lines))
    start = time.process_time()
    with pytest.raises(UserError, match="more than 1,000,000 values"):
        read_yaml(file)
    assert time.process_time() - start < 20


def test_keys_that_are_no_text_hide_no_other_mistake() -> None:
    with pytest.raises(SweepError) as caught:
        parse_sweep({"name": "x", "base": BASE, "seeds": 0, "axes": {"gird": {True: [1]}}})
    said = str(caught.value)
    assert "- axes.gird: keys must be text, given True: put it in quotes" in said
    assert "seeds must be at least 1" in said
    assert "did you mean 'grid'" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": {"grid": {1: [2]}}}, "- axes.grid: keys must be text, given 1: put it in quotes"),
        ({"base": {**BASE, True: 1}}, "- base: keys must be text, given True: put it in quotes"),
        ({2.5: "x"}, "- (file): keys must be text, given 2.5: put it in quotes"),
    ],
)
def test_keys_must_be_text(changes: dict[str, object], said: str) -> None:
    with pytest.raises(SweepError) as caught:
        parse_sweep({"name": "x", "base": BASE, **changes})
    assert said in str(caught.value)


def test_a_long_value_is_shown_by_its_beginning() -> None:
    with pytest.raises(SweepError) as caught:
        parse_sweep({"name": list(range(10_000)), "base": BASE})
    assert "given [0, 1, 2" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_place_has_no_word_of_the_validator() -> None:
    with pytest.raises(SweepError, match=r"- seeds\[1\]: .*valid integer") as caught:
        parse_sweep({"name": "x", "base": BASE, "seeds": [1, "a"]})
    assert "tuple[" not in str(caught.value)


def test_a_seed_fits_into_the_ledger() -> None:
    parse_sweep({"name": "x", "base": BASE, "seeds": [2**63 - 1]})
    with pytest.raises(SweepError, match=r"seeds\[0\]: .*less than or equal to 9223372036854775807"):
        parse_sweep({"name": "x", "base": BASE, "seeds": [2**63]})


@pytest.mark.parametrize(
    "axes",
    [
        {"when": {"block.nope": 3}, "grid": {"recipe.epochs": [1, 2]}},
        {"exclude": [{"block.nope": 3}], "grid": {"recipe.epochs": [1, 2]}},
        {"any_of": [{"when": {"block.affinity": "gaussian"}, "grid": {"recipe.epochs": [1, 2]}}]},
    ],
)
def test_a_condition_on_what_nothing_sets_is_a_mistake(axes: dict[str, object]) -> None:
    """It would never hold, and nobody would be told: misspelt, or left to a default."""
    with pytest.raises(SweepError, match="neither an axis nor the base sets"):
        parse_sweep({"name": "x", "base": BASE, "axes": axes})


@pytest.mark.parametrize(
    "axes",
    [
        {"when": {"block.name": "rnl"}, "grid": {"recipe.epochs": [1, 2]}},
        {"when": {"recipe.ema": None}, "grid": {"recipe.epochs": [1, 2]}},
        {"grid": {"block": ["rnl", "nl"], "recipe.epochs": [1, 2]}, "exclude": [{"block.affinity": "cosine"}]},
        {"grid": {"recipe.epochs": [1, 2]}, "exclude": [{"recipe.epochs": 2}]},
    ],
)
def test_a_condition_on_what_may_be_set_is_none(axes: dict[str, object]) -> None:
    parse_sweep({"name": "x", "base": BASE, "axes": axes})


@pytest.mark.parametrize(
    ("part", "name", "said"),
    [
        ("block", "os:system", "cannot load block 'os:system': it is no class"),
        ("block", ":", "cannot load block ':'"),
        ("workload", "os:path", "WorkloadConfig is needed"),
        ("backbone", "os:path", "BackboneConfig is needed"),
        ("block", "raises_when_imported:Block", "ZeroDivisionError: division by zero"),
        ("workload", "raises_when_imported:Workload", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_name_that_leads_to_something_else_is_a_mistake(
    file: Path, monkeypatch: pytest.MonkeyPatch, part: str, name: str, said: str
) -> None:
    from orchestrator.plan import make_plan

    (file.parent / "raises_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(file.parent))
    given = {**BASE, part: name}
    file.write_text("name: x\nbase:\n" + "".join(f"  {key}: {value!r}\n" for key, value in given.items()))
    with pytest.raises(SweepError, match=said):
        make_plan(load_sweep(str(file)))
