"""Epochs beside the checkpoints: told again after a worker died, whatever its last line looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.execution.worker import History
from workloads.progress import EpochDone, Finished


def epoch(number: int) -> EpochDone:
    return EpochDone(number, {"train_loss": 1.0 / (number + 1)}, 0.5)


def test_epochs_before_the_first_of_this_attempt_are_told_again_once(tmp_path: Path) -> None:
    path = tmp_path / "trial" / "history.jsonl"
    first = History(path)
    for number in range(3):
        assert first.before(epoch(number)) == []
        first.add(epoch(number))
    second = History(path)
    assert second.before(epoch(2)) == [epoch(0), epoch(1)], "epoch 2 is trained again"
    assert second.before(epoch(3)) == []
    assert History(path).before(Finished({}, None, {}, ())) == [epoch(0), epoch(1), epoch(2)]


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_line_that_was_cut_off_costs_no_other(tmp_path: Path, cut: int) -> None:
    """A full disk or a lost node leaves half a line; the next attempt trains that epoch again, and writes behind it."""
    path = tmp_path / "history.jsonl"
    for number in range(2):
        History(path).add(epoch(number))
    path.write_text(path.read_text().rstrip("\n")[:-cut])
    again = History(path)
    assert again.before(epoch(1)) == [epoch(0)]
    again.add(epoch(1))
    again.add(epoch(2))
    assert History(path).before(epoch(3)) == [epoch(0), epoch(1), epoch(2)]
