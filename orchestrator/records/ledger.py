"""The ledger: what was planned, what happened, what came out. SQL is the truth; MLflow and reports are views of it.

What callers may rely on, on SQLite and PostgreSQL alike:

- Every method is one transaction: it happens whole or not at all, and returns after it is safe on disk.
- `record_plan` and `apply` may be repeated with the same input; the second time changes nothing. After a
  `LedgerUnavailable` the same call is simply made again.
- A trial that finished or diverged never changes again: not its metrics, result, fingerprints or times.
- A trial runs under one driver at a time. `claim` gives a trial to exactly one of any number of drivers; it stays
  theirs while they `renew`. A driver that stops renewing loses its trials to the next `claim`, which closes the lost
  attempt; what the old driver still sends is refused, so that it cannot spoil the new attempt.
- Metrics of an epoch written again after a resume replace the old ones, and an attempt that starts from epoch k voids
  what earlier attempts wrote from k on: a series is always that of one unbroken training.
- Times come from the caller (`now`, `event.at`), UTC seconds: clocks of hosts that share a ledger must agree within a
  fraction of the lease.

A ledger may be used from several threads of one process. Workers never need it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, func, or_, select, update

from orchestrator.errors import LedgerError, NoLedger, UserError
from orchestrator.events import Event
from orchestrator.failures import Cause, decide
from orchestrator.records import planning, reading
from orchestrator.records.engine import BUSY_SECONDS, check_version, connect, create_tables, locate, serialize, shown
from orchestrator.records.engine import reading as reads
from orchestrator.records.engine import writing as writes
from orchestrator.records.rows import Fold, Row, clip_set_row, epoch_rows, finite, prediction_row
from orchestrator.records.schema import (
    ENDED,
    IMMUTABLE,
    ArmRow,
    AttemptRow,
    CheckpointRow,
    ClipSetRow,
    DiffRow,
    EnvironmentRow,
    EpochMetricRow,
    LeaseRow,
    PredictionsRow,
    ResultRow,
    SamplesRow,
    State,
    TrialRow,
)
from orchestrator.records.sql import chunks, table, upsert
from orchestrator.records.values import Checkpoint, Claim, PlannedSweep, Spent, Standing, SweepInfo, Timing, TrialInfo
from workloads.progress import Predictions

RERUNNABLE = ENDED - IMMUTABLE


class Ledger:
    """One open ledger. Make it with `Ledger.open`; use as a context manager or call `close`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._environments: set[str] = set()  # known to be stored
        self._clip_sets: set[str] = set()

    @classmethod
    def open(cls, location: str | Path, create: bool = True, busy_seconds: float = BUSY_SECONDS) -> Ledger:
        """The ledger at a path or URL.

        Args:
            location: a file (any characters), `sqlite:///FILE` or `postgresql://USER@HOST/DATABASE`.
            create: make the ledger, and the folder of its file, where there is none.
            busy_seconds: how long SQLite waits for another writer.

        Raises:
            UserError: a folder, not a database, somebody else's database.
            NoLedger: there is none, and `create` is false.
            LedgerVersionError: older or newer schema; names the command that helps.
            LedgerUnavailable: locked, or the server does not answer.
            LedgerError: read-only, full disk.
        """
        url = locate(location)
        file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
        engine = connect(url, busy_seconds=busy_seconds)
        try:
            if file is not None:
                _prepare_file(file, create)
            if create:
                create_tables(engine)
            check_version(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def name(self) -> str:
        """Where it is, for people: no password."""
        return shown(self.engine.url)

    def close(self) -> None:
        """Release every connection."""
        self.engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Planning

    def record_plan(self, plan: PlannedSweep, now: float) -> None:
        """Record a sweep's newest plan; repeatable, and extendable by arms and seeds.

        The sweep's arms become those of this plan, and those of `plan.whole` that ran before. Of trials that an
        earlier plan had and this one has not, those that ran stay with their arm; the others leave the sweep. No trial
        is ever deleted, and rows of trials that ran keep the fingerprints they ran under; waiting trials get those
        given here.

        Raises:
            ValueError: a trial whose arm is not among the plan's arms.
        """
        with writes(self.engine) as connection:
            serialize(connection)
            planning.record(connection, plan, now)

    def standing(self, trial_ids: Iterable[str]) -> dict[str, Standing]:
        """What is known of these trials; unknown ones are left out."""
        columns = (TrialRow.trial_id, TrialRow.state, TrialRow.code_fingerprint, TrialRow.data_fingerprint)
        with reads(self.engine) as connection:
            return {
                row.trial_id: Standing(State(row.state), row.code_fingerprint, row.data_fingerprint)
                for some in chunks(trial_ids)
                for row in connection.execute(select(*columns).where(TrialRow.trial_id.in_(some)))
            }

    def reset(self, trial_ids: Iterable[str]) -> frozenset[str]:
        """Let failed, infeasible and cancelled trials run again; their attempts stay but no longer count.

        Returns:
            Those that wait now. Finished, diverged and running ones are left alone.
        """
        waiting: set[str] = set()
        with writes(self.engine) as connection:
            for some in chunks(trial_ids):
                tried = select(func.coalesce(func.max(AttemptRow.number), 0))
                tried = tried.where(AttemptRow.trial_id == TrialRow.trial_id)
                again = update(TrialRow).where(TrialRow.trial_id.in_(some), TrialRow.state.in_(RERUNNABLE))
                again = again.values(
                    state=State.PLANNED, owner=None, started_at=None, ended_at=None, forgiven=tried.scalar_subquery()
                )
                waiting.update(connection.execute(again.returning(TrialRow.trial_id)).scalars())
        return frozenset(waiting)

    # Running

    def introduce(self, owner: str, facts: Mapping[str, Any]) -> None:
        """Say who `owner` is (`provenance.driver`), once, before its first claim."""
        with writes(self.engine) as connection:
            upsert(connection, LeaseRow, [{"owner": owner, "lease_until": 0.0, "driver": dict(facts)}])

    def claim(self, trial_ids: Sequence[str], owner: str, lease_seconds: float, now: float) -> list[Claim]:
        """Take those of the trials that nobody runs: waiting, cancelled, or left by a driver whose lease ended.

        Args:
            trial_ids: wanted.
            owner: this driver; a name no other process ever had.
            lease_seconds: how long the trials are safe without `renew`; far above the clocks' differences.
            now: UTC seconds.

        Returns:
            The trials that are `owner`'s now, in the order given. The others run elsewhere or have ended.
        """
        taken: dict[str, Claim] = {}
        with writes(self.engine) as connection:
            serialize(connection)
            for some in chunks(trial_ids):
                mine = _take(connection, some, owner, now)
                _close_lost(connection, mine, now)
                taken |= _claims(connection, mine)
            _renew(connection, owner, now + lease_seconds)
        return [taken[trial_id] for trial_id in trial_ids if trial_id in taken]

    def renew(self, owner: str, lease_seconds: float, now: float) -> frozenset[str]:
        """Keep the trials of `owner` for another `lease_seconds`.

        Returns:
            The trials it still holds; stop the others, somebody else has them.
        """
        with writes(self.engine) as connection:
            _renew(connection, owner, now + lease_seconds)
            return frozenset(connection.execute(select(TrialRow.trial_id).where(TrialRow.owner == owner)).scalars())

    def release(self, owner: str) -> None:
        """Give back the trials of `owner` that have not ended: anybody may claim them now."""
        with writes(self.engine) as connection:
            connection.execute(update(LeaseRow).where(LeaseRow.owner == owner).values(lease_until=0.0))
            waiting = update(TrialRow).where(TrialRow.owner == owner, TrialRow.state == State.PLANNED)
            connection.execute(waiting.values(owner=None))

    def apply(self, events: Sequence[Event], owner: str) -> frozenset[str]:
        """Record what happened, all of it or nothing. Batches of hundreds are fast; one by one is slow.

        Returns:
            Trials whose events were refused because `owner` has lost them.

        Raises:
            ValueError: an event of a trial that no plan holds.
        """
        if not events:
            return frozenset()
        with writes(self.engine) as connection:
            fold = self._fold({event.trial_id for event in events}, owner, connection)
            for event in events:
                fold.add(event)
            self._write(connection, fold)
        self._environments.update(fold.environments)
        return frozenset(fold.refused)

    def keep_diff(self, diff_id: str, content: bytes) -> None:
        """Keep the source tree's uncommitted changes (`provenance.working_diff`), which environments name by id."""
        with writes(self.engine) as connection:
            upsert(connection, DiffRow, [{"diff_id": diff_id, "content": content}], replace=False)

    def _fold(self, trial_ids: set[str], owner: str, connection: Connection) -> Fold:
        trials, attempts = table(TrialRow), table(AttemptRow)
        fold = Fold(owner, {}, {})
        for some in chunks(trial_ids):
            mine = select(trials).where(trials.c.trial_id.in_(some)).with_for_update()
            for row in connection.execute(mine).mappings():
                fold.trials[row["trial_id"]] = dict(row)
            for row in connection.execute(select(attempts).where(attempts.c.trial_id.in_(some))).mappings():
                fold.attempts[row["trial_id"], row["number"]] = dict(row)
        return fold

    def _write(self, connection: Connection, fold: Fold) -> None:
        news = [row for key, row in fold.environments.items() if key not in self._environments]
        upsert(connection, EnvironmentRow, news, replace=False)
        upsert(connection, AttemptRow, [fold.attempts[key] for key in fold.changed_attempts])
        upsert(connection, TrialRow, [fold.trials[key] for key in fold.changed_trials])
        for trial_id, epoch in fold.restarts.items():
            void = delete(EpochMetricRow).where(EpochMetricRow.trial_id == trial_id, EpochMetricRow.epoch >= epoch)
            connection.execute(void)
        epochs = [row for (trial_id, _), done in fold.epochs.items() for row in epoch_rows(trial_id, done)]
        upsert(connection, EpochMetricRow, epochs)
        upsert(connection, CheckpointRow, list(fold.checkpoints.values()))
        done = [key for key in fold.changed_trials if fold.trials[key]["state"] in IMMUTABLE]
        for some in chunks(done):
            connection.execute(delete(CheckpointRow).where(CheckpointRow.trial_id.in_(some)))
        self._write_results(connection, fold)

    def _write_results(self, connection: Connection, fold: Fold) -> None:
        metrics: list[Row] = []
        samples: list[Row] = []
        clip_sets: dict[str, Row] = {}
        predictions: list[Row] = []
        for key, result in fold.results.items():
            metrics += [{"trial_id": key, "name": name, "value": finite(x)} for name, x in result.metrics.items()]
            samples += [
                {"trial_id": key, "name": name, "samples": [finite(x) for x in values]}
                for name, values in result.samples.items()
            ]
            if result.predictions is not None:
                clips = clip_set_row(result.predictions)
                clip_sets[clips["clip_set_id"]] = clips
                predictions.append(prediction_row(key, clips["clip_set_id"], result.predictions))
        upsert(connection, ResultRow, metrics)
        upsert(connection, SamplesRow, samples)
        upsert(connection, ClipSetRow, list(clip_sets.values()), replace=False)
        upsert(connection, PredictionsRow, predictions)

    # Reading: see `reading.py`

    def sweeps(self) -> list[SweepInfo]:
        """Every sweep, the newest change first."""
        with reads(self.engine) as connection:
            return reading.sweeps(connection)

    def sweep(self, name: str) -> SweepInfo | None:
        """One sweep by name, or None."""
        with reads(self.engine) as connection:
            return next(iter(reading.sweeps(connection, name)), None)

    def trials_of(self, name: str) -> list[TrialInfo]:
        """The trials of a sweep in the plan's order; empty if there is no such sweep."""
        with reads(self.engine) as connection:
            return reading.trials_of(connection, name)

    def attempts_of(self, name: str) -> list[Spent]:
        """When every attempt at a trial of a sweep began and ended."""
        with reads(self.engine) as connection:
            return reading.attempts_of(connection, name)

    def specs_of(self, name: str) -> dict[str, Mapping[str, Any]]:
        """arm_id -> configuration, of a sweep's arms."""
        with reads(self.engine) as connection:
            return reading.specs_of(connection, name)

    def drivers(self, now: float) -> frozenset[str]:
        """Owners whose lease has not ended."""
        with reads(self.engine) as connection:
            return reading.drivers(connection, now)

    def trial(self, beginning: str) -> dict[str, Any]:
        """Everything about one trial, by its id or the beginning of it.

        Raises:
            UserError: no trial, or several, begin so.
        """
        with reads(self.engine) as connection:
            found = reading.trial(connection, beginning)
        if len(found) != 1:
            raise UserError(
                f"{len(found) or 'no'} trials begin with {beginning!r}; `longrange show FOLDER` lists them all"
            )
        return found[0]

    def checkpoint(self, trial_id: str) -> Checkpoint | None:
        """Where a trial that has not finished can be taken up again."""
        with reads(self.engine) as connection:
            return reading.checkpoint(connection, trial_id)

    def predictions(self, trial_ids: Iterable[str]) -> dict[str, Predictions]:
        """Per-clip scores by trial; trials that stored none are left out."""
        with reads(self.engine) as connection:
            return reading.predictions(connection, list(trial_ids))

    def past_seconds(self, device: str | None = None, arm_ids: Iterable[str] | None = None) -> list[Timing]:
        """How long finished, uninterrupted trials took, newest first: what prices are calibrated with."""
        with reads(self.engine) as connection:
            return reading.timings(connection, device, None if arm_ids is None else set(arm_ids))


def _prepare_file(file: Path, create: bool) -> None:
    if not create and not file.exists():
        raise NoLedger(f"there is no ledger {file}; `longrange run` makes one, or give the right place")
    try:
        file.parent.mkdir(parents=create, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"the folder {file.parent} of the ledger cannot be made: {error.strerror}") from error


def _take(connection: Connection, trial_ids: Sequence[str], owner: str, now: float) -> set[str]:
    alive = select(LeaseRow.owner).where(LeaseRow.lease_until >= now)
    free = or_(TrialRow.owner.is_(None), TrialRow.owner.not_in(alive))
    take = update(TrialRow).where(
        TrialRow.trial_id.in_(trial_ids), TrialRow.state.not_in(ENDED - {State.CANCELLED}), free
    )
    take = take.values(owner=owner, state=State.PLANNED, ended_at=None)
    return set(connection.execute(take.returning(TrialRow.trial_id)).scalars())


def _close_lost(connection: Connection, trial_ids: set[str], now: float) -> None:
    lost = update(AttemptRow).where(AttemptRow.trial_id.in_(trial_ids), AttemptRow.ended_at.is_(None))
    cause = func.coalesce(AttemptRow.cause, Cause.LOST.value)  # it may have failed just before its driver died
    connection.execute(lost.values(ended_at=now, outcome=Cause.LOST.value, cause=cause))


def _renew(connection: Connection, owner: str, until: float) -> None:
    upsert(connection, LeaseRow, [{"owner": owner, "lease_until": until}])


def _claims(connection: Connection, trial_ids: set[str]) -> dict[str, Claim]:
    spec = select(TrialRow.trial_id, TrialRow.forgiven, ArmRow.spec).join(ArmRow, ArmRow.arm_id == TrialRow.arm_id)
    tried = select(AttemptRow.trial_id, AttemptRow.number, AttemptRow.cause, AttemptRow.micro_batch)
    attempts: dict[str, list[Any]] = {}
    for row in connection.execute(tried.where(AttemptRow.trial_id.in_(trial_ids)).order_by(AttemptRow.number)):
        attempts.setdefault(row.trial_id, []).append(row)
    return {
        row.trial_id: _claim(row.trial_id, attempts.get(row.trial_id, []), row.forgiven, row.spec)
        for row in connection.execute(spec.where(TrialRow.trial_id.in_(trial_ids)))
    }


def _claim(trial_id: str, attempts: Sequence[Any], forgiven: int, spec: Mapping[str, Any]) -> Claim:
    counted = [row for row in attempts if row.number > forgiven]
    number = attempts[-1].number + 1 if attempts else 1
    if not counted:
        return Claim(trial_id, number, {})
    earlier = Counter(Cause(row.cause) for row in counted if row.cause)
    newest = counted[-1]
    bound = newest.micro_batch
    if newest.cause == Cause.OUT_OF_MEMORY:  # the driver died before it could start the smaller attempt
        before = earlier - Counter([Cause.OUT_OF_MEMORY])
        batch = spec["recipe"]["batch"]
        bound = decide(Cause.OUT_OF_MEMORY, batch=batch, micro_batch=bound, earlier=before).micro_batch
    return Claim(trial_id, number, dict(earlier), bound)
