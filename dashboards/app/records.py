"""What single pages ask of the ledger: one trial, a few arms, who runs now. Read-only, like its base."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from dashboards import frames
from dashboards.queries import ClipResults, Reader, clip_results
from orchestrator.errors import UserError
from orchestrator.records import schema as s

MOST_RUNNING = 20


class UnknownTrial(UserError):
    """The ledger holds no such trial."""

    def __init__(self, given: str) -> None:
        super().__init__(
            f"the ledger has no trial {given!r}; trials are listed on their sweep's page, and by `longrange status`"
        )


class PageReader(Reader):
    """A `Reader` with the queries of single pages."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        super().__init__(where)
        self.file = self._file()

    def version(self) -> str:
        """A text that changes when the ledger does, at almost no cost."""
        if self.file:
            files = (self.file, self.file.with_name(self.file.name + "-wal"))
            return "/".join(_stamp(file) for file in files)
        written = sa.text("SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) AS rows FROM pg_stat_user_tables")
        return str(frames.records(self._frame(written))[0]["rows"])

    def running(self) -> pd.DataFrame:
        """Trials that run now, newest first: trial_id, sweep, label, seed, device, started_at, epochs done, planned."""
        attempt, trial, link, arm, sweep = s.AttemptRow, s.TrialRow, s.SweepTrialRow, s.SweepArmRow, s.SweepRow
        done = sa.select(sa.func.max(s.EpochMetricRow.epoch) + 1).where(s.EpochMetricRow.trial_id == trial.trial_id)
        query = (
            sa.select(
                trial.trial_id,
                sweep.name.label("sweep"),
                arm.label,
                trial.seed,
                attempt.device,
                attempt.started_at,
                done.scalar_subquery().label("epochs"),
                s.ArmRow.spec,
            )
            .join(attempt, (attempt.trial_id == trial.trial_id) & attempt.ended_at.is_(None))
            .join(link, link.trial_id == trial.trial_id)
            .join(arm, (arm.sweep_id == link.sweep_id) & (arm.arm_id == trial.arm_id))
            .join(sweep, sweep.id == link.sweep_id)
            .join(s.ArmRow, s.ArmRow.arm_id == trial.arm_id)
            .where(trial.state == s.State.RUNNING)
            .order_by(attempt.started_at.desc())
            .limit(MOST_RUNNING)
        )
        frame = self._frame(query)
        planned = [(spec.get("recipe") or {}).get("epochs") for spec in frame["spec"]]
        return frame.drop(columns="spec").assign(planned=pd.Series(planned, dtype=object))

    def seconds_left(self, name: str) -> float:
        """Estimated device seconds of a sweep's trials that are still to come; NaN where nothing was estimated."""
        trial, link = s.TrialRow, s.SweepTrialRow
        query = (
            sa.select(sa.func.sum(trial.estimated_seconds).label("seconds"))
            .join(link, link.trial_id == trial.trial_id)
            .join(s.SweepRow, s.SweepRow.id == link.sweep_id)
            .where(s.SweepRow.name == name, trial.state.in_([s.State.PLANNED, s.State.RUNNING]))
        )
        found = frames.records(self._frame(query))[0]["seconds"]
        return float("nan") if found is None else float(found)

    def trial(self, trial_id: str) -> dict[str, Any]:
        """One trial with its arm: id, seed, state, times, estimate, notes, spec, block, profile, fingerprints.

        Raises:
            UnknownTrial: there is none.
        """
        columns = (s.ArmRow.spec, s.ArmRow.block, s.ArmRow.params, s.ArmRow.executed_macs, s.ArmRow.profile)
        query = sa.select(s.TrialRow.__table__, *columns).join(s.ArmRow, s.ArmRow.arm_id == s.TrialRow.arm_id)
        found = frames.records(self._frame(query.where(s.TrialRow.trial_id == trial_id)))
        if not found:
            raise UnknownTrial(trial_id)
        return found[0]

    def sweeps_of(self, trial_id: str) -> list[str]:
        """Names of the sweeps a trial answers, newest first."""
        query = (
            sa.select(s.SweepRow.name)
            .join(s.SweepTrialRow, s.SweepTrialRow.sweep_id == s.SweepRow.id)
            .where(s.SweepTrialRow.trial_id == trial_id)
            .order_by(s.SweepRow.updated_at.desc())
        )
        return list(self._frame(query)["name"])

    def siblings(self, arm_id: str, sweep_id: int) -> pd.DataFrame:
        """Trials of one arm in one sweep: trial_id, seed, state, by seed."""
        trial, link = s.TrialRow, s.SweepTrialRow
        query = sa.select(trial.trial_id, trial.seed, trial.state).join(link, link.trial_id == trial.trial_id)
        return self._frame(query.where(trial.arm_id == arm_id, link.sweep_id == sweep_id).order_by(trial.seed))

    def trial_results(self, trial_id: str) -> dict[str, float]:
        """Final metrics of one trial; NaN where the ledger has none."""
        rows = self._frame(sa.select(s.ResultRow.name, s.ResultRow.value).where(s.ResultRow.trial_id == trial_id))
        return {row["name"]: float("nan") if row["value"] is None else float(row["value"]) for row in _plain(rows)}

    def trial_attempts(self, trial_id: str) -> list[dict[str, Any]]:
        """Attempts at one trial, first to last."""
        query = sa.select(s.AttemptRow.__table__).where(s.AttemptRow.trial_id == trial_id)
        return _plain(self._frame(query.order_by(s.AttemptRow.number)))

    def environment(self, environment_id: str) -> dict[str, Any]:
        """Facts of one environment; empty where it is unknown."""
        query = sa.select(s.EnvironmentRow.facts).where(s.EnvironmentRow.environment_id == environment_id)
        found = _plain(self._frame(query))
        return dict(found[0]["facts"]) if found else {}

    def mirrored(self, trial_id: str) -> list[dict[str, Any]]:
        """Where the trial was copied to: store, run_id."""
        return _plain(
            self._frame(sa.select(s.MirrorRow.store, s.MirrorRow.run_id).where(s.MirrorRow.trial_id == trial_id))
        )

    def epochs_of(self, trial_ids: Sequence[str], name: str) -> pd.DataFrame:
        """Metric `name` of some trials: trial_id, epoch, value."""
        table = s.EpochMetricRow
        query = sa.select(table.trial_id, table.epoch, table.value).where(table.trial_id.in_(list(trial_ids)))
        frame = self._frame(query.where(table.name == name).order_by(table.trial_id, table.epoch))
        return frame.assign(value=frame["value"].astype(float))

    def recorded_per_epoch(self, trial_ids: Sequence[str]) -> list[str]:
        """Metrics that some trials recorded per epoch."""
        table = s.EpochMetricRow
        query = sa.select(table.name).where(table.trial_id.in_(list(trial_ids)), table.epoch == 0).distinct()
        return sorted(self._frame(query)["name"])

    def predictions_of(self, trial_ids: Sequence[str]) -> list[ClipResults]:
        """Per-clip results of some trials, grouped by the list of clips."""
        table, clips = s.PredictionsRow, s.ClipSetRow
        query = sa.select(table.trial_id, table.clip_set_id, table.correct)
        rows = self._frame(query.where(table.trial_id.in_(list(trial_ids))))
        found = []
        for clip_set_id, group in rows.groupby("clip_set_id"):
            clip_set = _plain(self._frame(sa.select(clips.__table__).where(clips.clip_set_id == clip_set_id)))[0]
            correct = {row["trial_id"]: np.frombuffer(row["correct"], np.bool_) for row in frames.records(group)}
            found.append(clip_results(clip_set, correct))
        return found

    def _file(self) -> Path | None:
        if self._engine.dialect.name != "sqlite":
            return None
        listed = frames.records(self._frame(sa.text("PRAGMA database_list")))
        return Path(next(row["file"] for row in listed if row["name"] == "main"))


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for what SQL left out, also where pandas made it NaN."""
    rows = frames.records(frame)
    return [{name: None if value is pd.NaT or _is_nan(value) else value for name, value in row.items()} for row in rows]


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and np.isnan(value)


def _stamp(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return "0"
    return f"{found.st_mtime_ns}.{found.st_size}"
