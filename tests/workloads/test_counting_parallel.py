"""Counting in worker processes: the same numbers, and whatever goes wrong there is done here."""

import subprocess
from typing import Any

import pytest

from workloads.counting import parallel, pieces, profile, profile_all
from workloads.spec import ModelSpec


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path))
    monkeypatch.setattr(parallel, "WORTH_A_PROCESS", 1)
    pieces.stage_pieces.cache_clear()
    pieces.block_piece.cache_clear()


def tiny(classes: int = 10, *, frames: int = 4, reduction: int = 2, block: str = "nl") -> ModelSpec:
    backbone = {"name": "resnet_tiny", "frames": frames, "size": 16, "classes": classes}
    given = {"name": block} if block != "nl" else {"name": "nl", "reduction": reduction}
    return ModelSpec.model_validate({"backbone": backbone, "block": given, "insertion": {"res3": [0]}})


def test_work_is_listed_once_and_heads_last() -> None:
    found = parallel._unknown([tiny(10), tiny(10, reduction=4), tiny(11), tiny(11, frames=2)])
    kinds = ["block" if '"block"' in line else "backbone" for line in found]
    assert kinds == ["backbone", "backbone", "block", "block", "block", "backbone"]
    assert '"classes": 11' in found[-1]
    assert '"frames": 4' in found[-1]


def test_what_is_known_is_not_counted_again() -> None:
    profile(tiny(10))
    assert parallel._unknown([tiny(10)]) == []
    assert len(parallel._unknown([tiny(11)])) == 1


@pytest.mark.slow
def test_workers_count_what_this_process_counts(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [tiny(10), tiny(11, frames=2), tiny(12, block="rnl"), tiny(12, block="gc")]
    alone = profile_all(specs, processes=1)
    pieces.stage_pieces.cache_clear()
    pieces.block_piece.cache_clear()
    monkeypatch.setenv("LONGRANGE_CACHE", str(tmp_path / "other"))
    assert len(parallel._unknown(specs)) == 7
    parallel._count(parallel._unknown(specs), 2)
    assert parallel._unknown(specs) == []
    assert profile_all(specs, processes=2) == alone


@pytest.mark.slow
def test_what_workers_cannot_count_is_the_callers_error() -> None:
    wide = ModelSpec.model_validate(
        {"backbone": {"name": "resnet_tiny"}, "block": {"name": "pnl", "n": 4}, "insertion": {"res3": [0]}}
    )
    parallel._count(['{"backbone": {"name": "no such network"}}', *parallel._unknown([tiny()])], 2)
    assert parallel._unknown([tiny()]) == []
    with pytest.raises(ValueError, match="does not fit"):
        profile_all([wide, tiny()], processes=2)


def test_dead_workers_only_cost_time(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Any] = []
    real = subprocess.Popen

    def dying(command: Any, **kwargs: Any) -> Any:
        started.append(command)
        return real(["false"], **kwargs)

    monkeypatch.setattr(parallel.subprocess, "Popen", dying)
    found = profile_all([tiny(10), tiny(11)], processes=2)
    assert len(started) == 2
    assert [item.params for item in found] == [profile(tiny(10)).params, profile(tiny(11)).params]


def test_networks_that_differ_in_classes_share_all_but_the_head() -> None:
    ten, twelve = profile(tiny(10)), profile(tiny(12))
    assert ten.per_stage[:-1] == twelve.per_stage[:-1]
    width = 64
    assert twelve.params - ten.params == 2 * (width + 1)
    assert twelve.executed_macs - ten.executed_macs == 2 * width
