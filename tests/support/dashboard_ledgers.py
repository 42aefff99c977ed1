"""Small ledgers for the tests of `dashboards`, written straight through the schema, with numbers like real ones."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from orchestrator.records import schema as s

GROUPS = ((1, 1, 1_900_000), (2, 1, 1_880_000), (4, 1, 1_860_000), (2, 2, 1_880_500), (4, 4, 1_861_000))
CLASSES, CLIPS, EPOCHS = 10, 300, 4
DIGITS = {"name": "digits"}
CAVEAT = "Motion and layout are made up: digits supports no claim about video recognition."

STAGES = {"stem": 400_000, "res2": 500_000, "res3": 400_000, "res4": 320_000, "res5": 0}
BACKBONE_MACS = sum(STAGES.values())
WHY = {
    s.State.DIVERGED: ("diverged", "loss is nan after step 31"),
    s.State.FAILED: ("bug", "ValueError: <script>alert(1)</script> & co"),
}


@dataclass
class Arm:
    """One arm to write: `mean` and `sd` generate its seeds; `states` overrides single trials."""

    label: str
    block: dict[str, Any]
    insertion: dict[str, Any]
    mean: float
    sd: float
    macs: int
    params: int = 152_000
    control: bool = False
    states: dict[int, s.State] = field(default_factory=dict)
    values: dict[int, float | None] = field(default_factory=dict)
    workload: dict[str, Any] = field(default_factory=lambda: dict(DIGITS))


TWO = (
    Arm("none", {"name": "none"}, {}, 50.0, 0.5, 1_620_000, control=True),
    Arm("nl", {"name": "nl"}, {"res3": [0]}, 60.0, 0.5, 1_980_000),
)


# Accuracy of seeds 0, 1, 2 on splits 1, 2, 3.
_ON_SPLITS = {
    "none": [(80.0, 82.0, 84.0), (70.0, 71.0, 75.0), (90.0, 90.0, 90.0)],
    "nl": [(83.0, 85.0, 86.5), (72.0, 73.0, 78.0), (91.0, 91.0, 93.5)],
    "pnl": [(81.0, 82.0, 83.0), (70.0, 70.0, 70.0), (88.0, 90.0, 90.0)],
}


def three_splits() -> list[Arm]:
    """Three blocks on three splits, the control on the first, in the order of a plan: split by split."""
    return [
        Arm(
            f"{name} workload.split={split}" if split > 1 else name,
            {"name": name},
            {},
            *(50.0, 0.1, 1_000),
            values=dict(enumerate(by_split[split - 1])),
            control=(name, split) == ("none", 1),
            workload={"name": "ucf101", "split": split},
        )
        for split in (1, 2, 3)
        for name, by_split in _ON_SPLITS.items()
    ]


def digits_arms() -> list[Arm]:
    """The measured table of the embedded workload, as arms."""
    nl, hg, rnl = {"name": "nl", "heads": 1}, {"name": "hgnl"}, {"name": "rnl", "affinity": "gaussian"}
    at = {"res2": [0]}, {"res3": [0]}, {"res4": [0]}, {"res5": [0]}
    return [
        Arm("none", {"name": "none"}, {}, 50.6, 0.74, 1_620_000, 151_738, control=True),
        Arm("nl@res2", nl, at[0], 90.6, 0.56, 3_900_000, 152_322),
        Arm("nl@res3", nl, at[1], 93.3, 0.48, 1_980_000, 153_930),
        Arm("nl@res4", nl, at[2], 89.5, 1.39, 1_790_000, 160_218),
        Arm("nl@res5", nl, at[3], 72.8, 16.07, 1_790_500, 160_218, states={2: s.State.DIVERGED}),
        Arm("nl@res3+res4", nl, {"res3": [0], "res4": [0]}, 91.3, 0.75, 2_150_000, 162_410),
        *(
            Arm(f"hgnl g1={g1} g2={g2}", {**hg, "g1": g1, "g2": g2}, at[1], 92.5 - g1 * 0.1 + g2 * 0.05, 0.32, macs)
            for g1, g2, macs in GROUPS
        ),
        *(
            Arm(f"rnl {k}", {**rnl, "kernel": k}, at[1], mean, 1.2, 1_950_000 + 4_000 * k[0] * k[1] * k[2], 153_306)
            for k, mean in (([1, 1, 1], 87.1), ([3, 1, 1], 88.2), ([1, 3, 3], 89.0), ([3, 3, 3], 89.8))
        ),
        *(Arm(f"pnl n={n}", {"name": "pnl", "n": n}, at[1], 88.0 + n, 0.9, 1_800_000 + 60_000 * n) for n in (1, 2, 4)),
        *(Arm(f"bat k={k}", {"name": "bat", "k": k}, at[1], 90.0 + k / 8, 0.8, 2_000_000 + 9_000 * k) for k in (4, 8)),
        Arm("se", {"name": "se", "reduction": 4}, at[1], 88.4, 1.91, 1_625_000, 152_290, states={0: s.State.FAILED}),
    ]


def write(
    path: Path,
    arms: Sequence[Arm] | None = None,
    *,
    name: str = "quickstart",
    seeds: int = 5,
    generator: int = 0,
    predictions: bool = True,
    state: s.State = s.State.FINISHED,
) -> Path:
    """A ledger with one sweep; returns `path`."""
    engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")  # all tables at once: SQLite waits for the disk after each statement else
        s.Base.metadata.create_all(connection)
        connection.commit()
    rng = np.random.default_rng(generator)
    with Session(engine) as session:
        _sweep(session, name)
        labels = rng.integers(0, CLASSES, CLIPS)
        session.add(_clip_set(labels))
        facts = {"python": "3.11.2", "torch": "2.13.0+cpu", "git_sha": "1234abcd" * 5, "cpu": "2 cores"}
        session.add(s.EnvironmentRow(environment_id="e" * 16, facts=facts))
        session.flush()
        luck = rng.normal(0, 0.3, seeds)
        place = 0
        for position, arm in enumerate(arms if arms is not None else digits_arms()):
            _arm(session, arm, position)
            for seed in range(seeds):
                value = float(np.clip(arm.mean + luck[seed] + rng.normal(0, arm.sd), 0, 100))
                value = arm.values.get(seed, value)
                _trial(session, arm, position, seed, arm.states.get(seed, state), value, place)
                if arm.states.get(seed, state) == s.State.FINISHED and predictions and value is not None:
                    session.add(_predictions(_trial_id(position, seed), labels, value, rng))
                place += 1
        session.commit()
    engine.dispose()
    return path


def _sweep(session: Session, name: str) -> None:
    definition = {"name": name, "base": {"workload": "digits"}, "seeds": 5, "caveat": CAVEAT}
    question = "Which block, with which settings, inserted where, pays?"
    times = {"created_at": 1e9, "updated_at": 1e9 + 400}
    session.add(s.SweepRow(id=1, uid="0" * 16, name=name, question=question, definition=definition, **times))
    session.flush()
    reason = "res3: 32 channels are not divisible by n=3: use one of [1, 2, 4, 8, 16, 32]"
    session.add(s.RejectionRow(sweep_id=1, label="pnl n=3", settings={"block.n": 3}, reason=reason))


def _arm(session: Session, arm: Arm, position: int) -> None:
    spec = {
        "backbone": {"name": "resnet_tiny", "frames": 4, "size": 16, "classes": CLASSES},
        "block": arm.block,
        "insertion": arm.insertion,
        "workload": arm.workload,
        "recipe": {"name": "quick", "epochs": EPOCHS, "batch": 32},
        "protocol": {"name": "centre"},
    }
    profile = _profile(arm)
    arm_id = f"a{position:015x}"
    names = {"workload": arm.workload["name"], "backbone": "resnet_tiny", "block": arm.block["name"]}
    counts = {"params": arm.params, "executed_macs": arm.macs, "profile": profile}
    session.add(s.ArmRow(arm_id=arm_id, spec=spec, **names, **counts))
    settings = {f"block.{key}": value for key, value in arm.block.items()} | {"insertion": arm.insertion}
    if arm.workload != DIGITS:
        settings |= {f"workload.{key}": value for key, value in arm.workload.items()}
    session.flush()
    session.add(
        s.SweepArmRow(
            sweep_id=1, arm_id=arm_id, position=position, label=arm.label, settings=settings, is_control=arm.control
        )
    )


def _profile(arm: Arm) -> dict[str, Any]:
    """The shape of `workloads.counting.Profile`."""
    inside = (arm.macs - BACKBONE_MACS) // max(1, len(arm.insertion))
    place = {"unit": 0, "place": "unit", "block": arm.block["name"], "executed_macs": inside}
    blocks = [{"stage": stage, **place} for stage in arm.insertion]
    stages = [
        {"stage": stage, "executed_macs": macs + (inside if stage in arm.insertion else 0)}
        for stage, macs in STAGES.items()
    ]
    per_block = [block | {"product_macs": block["executed_macs"] // 3} for block in blocks]
    return {"rules": {"rnl": arm.macs / 1e9}, "per_stage": stages, "per_block": per_block}


def _trial_id(position: int, seed: int) -> str:
    return f"{position:08x}{seed:08x}"


def _trial(
    session: Session, arm: Arm, position: int, seed: int, state: s.State, value: float | None, place: int
) -> None:
    trial_id, begun = _trial_id(position, seed), 1e9 + 7 * place
    ended = None if state in (s.State.PLANNED, s.State.RUNNING) else begun + 6.5
    session.add(
        s.TrialRow(
            trial_id=trial_id,
            arm_id=f"a{position:015x}",
            seed=seed,
            state=state,
            estimated_seconds=7.0,
            started_at=None if state == s.State.PLANNED else begun,
            ended_at=ended,
        )
    )
    session.flush()
    session.add(s.SweepTrialRow(sweep_id=1, trial_id=trial_id, position=place))
    if state != s.State.PLANNED:
        session.add(_attempt(trial_id, state, begun, ended))
    if state == s.State.FINISHED:
        _results(session, trial_id, value)


def _attempt(trial_id: str, state: s.State, begun: float, ended: float | None) -> s.AttemptRow:
    cause, message = WHY.get(state, (None, None))
    return s.AttemptRow(
        trial_id=trial_id,
        number=1,
        owner="driver",
        started_at=begun,
        ended_at=ended,
        outcome=str(state) if ended else None,
        cause=cause,
        message=message,
        host="laptop",
        device="cpu",
        environment_id="e" * 16,
    )


def _results(session: Session, trial_id: str, value: float | None) -> None:
    top5 = None if value is None else 100 - (100 - value) / 3
    finals = {"top1_percent": value, "top5_percent": top5, "train_seconds": 6.1, "train_loss": 0.2}
    session.add_all(s.ResultRow(trial_id=trial_id, name=name, value=each) for name, each in finals.items())
    for epoch in range(EPOCHS):
        reached = None if value is None else 10 + (value - 10) * (1 - 0.4 ** (epoch + 1))
        session.add(s.EpochMetricRow(trial_id=trial_id, name="top1_percent", epoch=epoch, value=reached, seconds=1.5))
    session.add(s.SamplesRow(trial_id=trial_id, name="latency_ms", samples=[3.1, 3.0, 3.4]))


def _clip_set(labels: np.ndarray) -> s.ClipSetRow:
    names = zlib.compress(json.dumps([f"clip{i:04d}" for i in range(CLIPS)]).encode())
    return s.ClipSetRow(clip_set_id="c" * 16, names=names, labels=labels.astype("<i4").tobytes(), classes=CLASSES)


def _predictions(trial_id: str, labels: np.ndarray, value: float, rng: np.random.Generator) -> s.PredictionsRow:
    hard = np.arange(CLIPS) / CLIPS * 100 + rng.normal(0, 5, CLIPS)  # the same clips are hard for every arm
    correct = hard < value
    guess = np.where(correct, labels, (labels + 1) % CLASSES)
    scores = np.full((CLIPS, CLASSES), 0.05, dtype="<f2")
    scores[np.arange(CLIPS), guess] = 0.55
    packed = zlib.compress(scores.tobytes())
    return s.PredictionsRow(
        trial_id=trial_id, clip_set_id="c" * 16, correct=correct.astype(np.uint8).tobytes(), scores=packed
    )


def change(path: Path, *statements: str) -> None:
    """Write to a ledger from outside."""
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()
