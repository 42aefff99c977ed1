"""Recorded trials by name: `FOLDER::NAME`, from any run or ledger, with the scores that they stored.

FOLDER is a run folder, or a ledger's file or URL. NAME is an arm's label or its id, or a trial's id or the beginning of
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.errors import UserError
from orchestrator.explain import did_you_mean
from orchestrator.paths import RunFolder
from orchestrator.records.ledger import Ledger
from orchestrator.records.schema import State
from orchestrator.records.values import TrialInfo
from workloads.progress import Predictions

_SHORTEST = 4  # digits of a trial's id


class Member(NamedTuple):
    """Finished trials that have scores per clip.

    Attributes:
        name: as it was given.
        is_arm: it was named by its arm, not by one trial's id.
        trials: seed -> trial id.
        predictions: seed -> scores.
    """

    name: str
    is_arm: bool
    trials: dict[int, str]
    predictions: dict[int, Predictions]


def find_member(member: str) -> Member:
    """The finished trials that `FOLDER::NAME` means, with their scores.

    Raises:
        UserError: there are none, or the name means several arms or trials.
    """
    where, separator, name = member.rpartition("::")
    if not (separator and where and name):
        raise UserError(f"a member is FOLDER::ARM or FOLDER::TRIAL, given {member!r}; e.g. runs/quickstart::none")
    with Ledger.open(_place(where), create=False) as ledger:
        known = [(sweep.name, trial) for sweep in ledger.sweeps() for trial in ledger.trials_of(sweep.name)]
        is_arm, chosen = _chosen(where, name, known)
        done = {trial.seed: trial.trial_id for trial in chosen if trial.state is State.FINISHED}
        stored = ledger.predictions(done.values())
    if not stored:
        states = ", ".join(sorted({str(trial.state) for trial in chosen}))
        raise UserError(f"{member}: no finished trial with scores per clip in it; its trials: {states}")
    trials = {seed: trial for seed, trial in sorted(done.items()) if trial in stored}
    return Member(member, is_arm, trials, {seed: stored[trial] for seed, trial in trials.items()})


def _place(where: str) -> str | Path:
    folder = Path(where)
    if "://" in where or folder.is_file():
        return where
    found = RunFolder.find(folder)
    return str(found.settings()["ledger"] or found.ledger)


def _chosen(where: str, name: str, known: Sequence[tuple[str, TrialInfo]]) -> tuple[bool, list[TrialInfo]]:
    """The trials that a name means, and whether it named an arm."""
    arms = {(sweep, trial.arm_id) for sweep, trial in known if name in (trial.label, trial.arm_id)}
    ids = {arm for _, arm in arms}
    if len(ids) > 1:
        listed = ", ".join(f"{arm} in {sweep}" for sweep, arm in sorted(arms))
        raise UserError(f"{where}: several arms are called {name!r}: give the id of one: {listed}")
    if ids:
        return True, list({trial.trial_id: trial for _, trial in known if trial.arm_id in ids}.values())
    begins = {trial.trial_id: trial for _, trial in known if trial.trial_id.startswith(name)}
    if len(begins) == 1 and len(name) >= _SHORTEST:
        return False, list(begins.values())
    if begins:
        raise UserError(f"{where}: {len(begins)} trials begin with {name!r}: give more digits of one")
    labels = sorted({trial.label for _, trial in known})
    raise UserError(
        f"{where}: no arm or trial {name!r}; its arms: {', '.join(labels) or 'none'}{did_you_mean(name, labels)}"
    )
