"""`longrange profile` and `longrange audit` as a user and a script meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from orchestrator.cli import measuring
from orchestrator.errors import LongrangeError, UserError

TINY = ("--backbone", "resnet_tiny", "--block", "nl", "--insert", "res3=0")
FIVE = ("--insert", "res3=0,2", "--insert", "res4=0,2,4")
KEYS = {"params", "executed_macs", "rules", "peak_activation_bytes", "per_block"}


def run(verb: Any, *arguments: str) -> str:
    """What the verb prints; its errors are raised as `main` gets them."""
    result = CliRunner().invoke(verb, list(arguments), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(autouse=True)
def kept_counts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts are kept in pytest's own cache folder between runs, never in the user's."""
    monkeypatch.setenv("LONGRANGE_CACHE", str(request.config.cache.mkdir("longrange")))


# Parameters of each network alone, as it is published, with 400 classes.
ALONE = {
    "tsm_resnet50": 24_327_632,
    "c2d_resnet50": 24_327_632,
    "i3d_resnet50": 28_043_472,
    "resnet50": 24_327_632,
    "mfnet": 7_996_368,
    "se_resnext101_32x4d": 47_726_016,
}


def five_blocks(res3: int, res4: int) -> int:
    """Parameters of an NL block after two units of res3 and three of res4."""
    return sum(count * (2 * c * c + 7 * c // 2 + c) for count, c in ((2, res3), (3, res4)))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ALONE)
def test_any_network_with_five_blocks_in_one_call(backbone: str) -> None:
    call = ("--backbone", backbone, "--classes", "400", "--frames", "8", "--size", "224", "--block", '{"name": "nl"}')
    found = json.loads(run(measuring.profile, *call, *FIVE, "--json"))
    assert set(found) >= KEYS
    widths = (192, 384) if backbone == "mfnet" else (512, 1024)
    assert found["params"] == ALONE[backbone] + five_blocks(*widths)
    assert [(block["stage"], block["unit"]) for block in found["per_block"]] == [
        ("res3", 0),
        ("res3", 2),
        ("res4", 0),
        ("res4", 2),
        ("res4", 4),
    ]
    assert sum(stage["executed_macs"] for stage in found["per_stage"]) == found["executed_macs"]


@pytest.mark.slow
def test_the_network_of_rnl_table_iii() -> None:
    call = ("--backbone", "tsm_resnet50", "--classes", "400", "--frames", "8", "--size", "224", "--block", "nl")
    found = json.loads(run(measuring.profile, *call, *FIVE, "--json"))
    assert found["executed_macs"] == 96_980_303_872
    assert round(found["rules"]["thop-2001"], 2) == 49.38


def test_the_table_shows_every_part_under_every_rule() -> None:
    text = run(measuring.profile, *TINY)
    assert text.count("nl at res3.0") == 2  # what it costs, and what the papers would have printed
    assert "thop-1909+matmul" in text
    assert "measured" not in text


@pytest.mark.parametrize("training", [False, True])
def test_measuring_says_what_was_measured_where(training: bool) -> None:
    call = (*TINY, "--measure", "--warmup", "1", "--samples", "3", "--batch", "2", *(["--training"] * training))
    text = run(measuring.profile, *call)
    assert f"measured {'training' if training else 'forward'} at batch 2 on cpu" in text
    assert "over 3 samples after 1 to warm up" in text
    measured = json.loads(run(measuring.profile, *call, "--json"))["measured"]
    assert (len(measured["latency_ms"]), measured["warmup"], measured["batch"]) == (3, 1, 2)
    assert measured["p50_ms"] <= measured["p95_ms"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--insert", "res3=0", "--insert", "res3=1"), "--insert names res3 twice"),
        (("--insert", "res3"), "--insert takes STAGE=UNITS"),
        (("--insert", "res3=0", "--measure", "--device", "quantum"), "device 'quantum' cannot be measured here"),
        (("--insert", "res3=0", "--measure", "--samples", "0"), "samples >= 1"),
        (("--insert", "res3=0", "--measure", "--batch", "0"), "at least 1 clip"),
        (("--insert", "res3=9"), "res3"),
        (("--insert", "res3=0", "--set", "frames"), "--set takes FIELD=VALUE"),
    ],
)
def test_what_cannot_be_profiled_is_said_in_one_error(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(LongrangeError, match=said):
        run(measuring.profile, "--backbone", "resnet_tiny", "--block", "nl", *arguments)


@pytest.mark.slow
def test_an_audit_of_one_paper_as_a_table_and_for_scripts() -> None:
    found = json.loads(run(measuring.audit, "--paper", "hgnl", "--json"))
    assert set(found["rows"][0]) >= {
        "row_id",
        "metric",
        "published",
        "reproduced",
        "executed",
        "rule",
        "verdict",
        "reason",
    }
    assert {row["paper"] for row in found["rows"]} == {"hgnl"}
    text = run(measuring.audit, "--paper", "hgnl")
    summary = found["summary"]
    assert f"{summary['accounted_percent']} % of {summary['cost_cells']} costs" in text


@pytest.mark.parametrize("kind", ["planes", "places", "markdown", "html"])
def test_an_audit_has_one_form(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=f"--json and --format {kind} are two forms"):
        run(measuring.audit, "--json", "--format", kind, "--paper", "rnl", "-o", str(tmp_path / "x.svg"))
    assert list(tmp_path.iterdir()) == []
