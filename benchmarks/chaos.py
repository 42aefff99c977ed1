"""A sweep whose processes and nodes are killed at random, and what is left of it in the end: everything, once.

    python -m benchmarks.chaos [--seed 1] [--trials 60] [--kills 12] [--only worker,node,...] [--mlflow-away SECONDS]
                               [--json FILE]

A local Ray cluster of two nodes runs a sweep of scripted trials under `longrange run`. From a seed, one after another:

- `worker`: SIGKILL to a process that runs a trial
- `preempted`: SIGTERM to such a process
- `node`: SIGKILL to the raylet of a node; another node joins
- `driver`: SIGKILL to `longrange run`, then `longrange resume`
- `interrupted`: SIGTERM to `longrange run`, then `longrange resume`

With `--mlflow-away`, MLflow is a server, which is killed early in the sweep and started again after so long.

Then the ledger must hold every trial exactly once, finished by exactly one attempt, with a gapless series of every
metric and the results of an undisturbed run, and MLflow must say the same. Exit code 1 if not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from mlflow_server import MlflowServer

from benchmarks import record

if TYPE_CHECKING:
    from local_cluster import LocalCluster

ROOT = Path(__file__).resolve().parents[1]
ACTIONS = ("worker", "preempted", "node", "driver", "interrupted")
EPOCHS = 6
PATIENCE_SECONDS = 180.0  # without any progress

SWEEP = """
name: chaos
question: Is anything lost?
base:
  workload: {{name: "scripted:Scripted", epoch_seconds: {epoch_seconds}}}
  insertion: {{res3: [0]}}
  recipe: {{epochs: {epochs}}}
control: {{block: none}}
axes: {{grid: {{block: [nl, {{name: se, reduction: 4}}, {{name: pnl, n: 2}}, rnl]}}}}
seeds: {seeds}
"""
ARMS = 5


@dataclass
class Story:
    """What was done to the sweep."""

    done: list[str] = field(default_factory=list)
    resumes: int = 0
    missed: int = 0  # nothing of the wanted kind was running


class Driver:
    """`longrange run` and `longrange resume` on one folder."""

    def __init__(self, folder: Path, address: str, mlflow: str | None) -> None:
        self._folder = folder
        self._log = (folder / "driver.log").open("ab")
        where = ["--out", folder / "run", "--ray", address, *(["--mlflow", mlflow] if mlflow else [])]
        self._process = self._start("run", folder / "sweep.yaml", *where)

    def resume(self, number: signal.Signals) -> None:
        """End the driver so, and start its successor at once."""
        self._process.send_signal(number)
        self._process.wait(timeout=120)
        self._process = self._start("resume", self._folder / "run")

    @property
    def code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def catch_up(self) -> None:
        """`longrange mirror`, when the driver has ended."""
        command = [sys.executable, "-m", "orchestrator.cli", "mirror", str(self._folder / "run")]
        subprocess.run(command, cwd=ROOT, stdout=self._log, stderr=self._log, check=True)

    def said(self) -> str:
        """The end of its output."""
        lines = (self._folder / "driver.log").read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith(("    [", "\x1b")))[-4000:]  # without Ray's

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _start(self, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "orchestrator.cli", *map(str, words), "--quiet", "--json"]
        return subprocess.Popen(command, cwd=ROOT, stdout=self._log, stderr=self._log, start_new_session=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trials", type=int, default=60, help=f"rounded up to a multiple of {ARMS}")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--only", default=",".join(ACTIONS), help="which kinds of kills, comma-separated")
    parser.add_argument("--epoch-seconds", type=float, default=0.3)
    parser.add_argument("--mlflow-away", type=float, metavar="SECONDS", help="how long an MLflow server is away")
    parser.add_argument("--json", type=Path, help="the findings  [default: benchmarks/results/chaos-SEED.json]")
    parser.add_argument("--keep", type=Path, help="work in this existing folder, and leave everything there")
    given = parser.parse_args()
    with ExitStack() as stack:
        place = given.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="longrange-chaos-"))
        found = chaos(
            Path(place),
            seed=given.seed,
            seeds=-(-given.trials // ARMS),
            kills=given.kills,
            actions=given.only.split(","),
            epoch_seconds=given.epoch_seconds,
            mlflow_away=given.mlflow_away,
        )
    print(json.dumps(found, indent=2))
    variant = f"seed{given.seed}" + ("-mlflow-away" if given.mlflow_away else "")
    print(f"written to {record.write('chaos', variant, found, given.json)}")
    sys.exit(1 if found["problems"] else 0)


def chaos(
    folder: Path,
    *,
    seed: int,
    seeds: int,
    kills: int,
    actions: Sequence[str],
    epoch_seconds: float,
    mlflow_away: float | None = None,
) -> dict[str, Any]:
    """Run the sweep under kills and check what it left."""
    import local_cluster

    os.environ |= local_cluster.settings(folder) | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests" / "support"), str(ROOT)]),
        "OMP_NUM_THREADS": "1",
        "LONGRANGE_CACHE": str(folder / "cache"),
    }
    (folder / "sweep.yaml").write_text(SWEEP.format(epochs=EPOCHS, seeds=seeds, epoch_seconds=epoch_seconds))
    started = time.monotonic()
    store = folder / "mlflow.db" if mlflow_away else folder / "run" / "mlflow.db"
    with ExitStack() as stack:
        cluster = stack.enter_context(local_cluster.LocalCluster())
        server = stack.enter_context(MlflowServer(f"sqlite:///{store}", folder)) if mlflow_away else None
        driver = stack.enter_context(closing(Driver(folder, cluster.address, server.address if server else None)))
        if server is not None:
            outage = threading.Thread(target=take_away, args=(server, driver, folder / "run", mlflow_away))
            outage.start()
        story = disturb(cluster, driver, folder / "run", random.Random(seed), kills, actions, seeds * ARMS)
        if server is not None:
            outage.join()
            driver.catch_up()
        said = driver.said()
    problems = [] if driver.code == 0 else [f"the last driver ended with {driver.code}: {said}"]
    problems += ledger_problems(folder / "run", trials=seeds * ARMS) + mirror_problems(folder / "run", store)
    attempts = rows(folder / "run" / "ledger.db", "select coalesce(cause, 'none'), count(*) from attempts group by 1")
    return {
        "seed": seed,
        "trials": seeds * ARMS,
        "kills": Counter(story.done),
        "kills_missed": story.missed,
        "resumes": story.resumes,
        "mlflow_away_seconds": mlflow_away,
        "attempts_by_cause": dict(attempts),
        "seconds": round(time.monotonic() - started, 1),
        "problems": problems,
    }


def take_away(server: MlflowServer, driver: Driver, run: Path, seconds: float) -> None:
    """Kill the MLflow server when the sweep has begun, and start it again."""
    wait_for(driver, run, 2 * EPOCHS)
    server.stop()
    time.sleep(seconds)
    server.start()


def disturb(
    cluster: LocalCluster,
    driver: Driver,
    run: Path,
    chance: random.Random,
    kills: int,
    actions: Sequence[str],
    trials: int,
) -> Story:
    """Kill until `kills` are done, spread over the sweep's progress; then wait for the end."""
    story = Story()
    plan = [actions[index % len(actions)] for index in range(kills)]
    chance.shuffle(plan)
    at = sorted(chance.uniform(0.02, 0.95) * trials * EPOCHS for _ in plan)  # after so many epochs
    for action, epochs in zip(plan, at, strict=True):
        wait_for(driver, run, epochs)
        time.sleep(chance.uniform(0.0, 0.5))
        if driver.code is not None:
            break  # over, or ended on its own: judged by its exit code
        act(action, cluster, driver, chance, story)
    wait_for(driver, run, float("inf"))
    return story


def wait_for(driver: Driver, run: Path, epochs: float) -> None:
    """Until the ledger holds so many epochs, or the driver has ended.

    Raises:
        RuntimeError: nothing happened for long.
    """
    seen, end = -1, 0.0
    while driver.code is None and (now := epochs_done(run)) < epochs:
        if now > seen:
            seen, end = now, time.monotonic() + PATIENCE_SECONDS
        if time.monotonic() > end:
            raise RuntimeError(f"nothing has happened for {PATIENCE_SECONDS:g} s, {now} epochs done: {driver.said()}")
        time.sleep(0.05)


def act(action: str, cluster: LocalCluster, driver: Driver, chance: random.Random, story: Story) -> None:
    """One kill."""
    if action in ("worker", "preempted"):
        end = time.monotonic() + 30
        while not (workers := cluster.workers()) and driver.code is None and time.monotonic() < end:
            time.sleep(0.1)
        if not workers:
            story.missed += 1
            return
        chance.choice(workers).send_signal(signal.SIGKILL if action == "worker" else signal.SIGTERM)
    elif action == "node":
        cluster.lose_node(chance.randrange(2))
    else:
        driver.resume(signal.SIGKILL if action == "driver" else signal.SIGTERM)
        story.resumes += 1
    story.done.append(action)


def epochs_done(run: Path) -> int:
    """How many epochs the ledger holds; 0 before it exists."""
    try:
        return int(rows(run / "ledger.db", "select count(*) from epoch_metrics where name = 'train_loss'")[0][0])
    except sqlite3.OperationalError:
        return 0


def rows(file: Path, query: str) -> list[tuple[Any, ...]]:
    """Rows of a database that others write."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(query).fetchall()


def ledger_problems(run: Path, *, trials: int) -> list[str]:
    """What the ledger says that it must not."""
    file = run / "ledger.db"
    states = dict(rows(file, "select state, count(*) from trials group by state"))
    wins = dict(rows(file, "select trial_id, sum(outcome = 'finished') from attempts group by trial_id"))
    open_attempts = rows(file, "select trial_id, number from attempts where outcome is null or ended_at is null")
    found = [] if states == {"finished": trials} else [f"states are {states}, not {trials} finished"]
    said = "select trial_id, cause, message from attempts where cause not in ('lost', 'stopped')"
    found += [f"{trial}: {cause}: {message}" for trial, cause, message in rows(file, said)]
    found += [f"{trial}: {count} attempts finished" for trial, count in wins.items() if count != 1]
    found += [f"{trial}: attempt {number} is open" for trial, number in open_attempts]
    series: dict[tuple[str, str], list[int]] = {}
    for trial, name, epoch in rows(file, "select trial_id, name, epoch from epoch_metrics order by epoch"):
        series.setdefault((trial, name), []).append(epoch)
    found += [f"{trial}: {name} has epochs {had}" for (trial, name), had in series.items() if had != [*range(EPOCHS)]]
    named = Counter(trial for trial, _ in series)
    found += [f"{trial}: {count} metrics have a series, not 2" for trial, count in named.items() if count != 2]
    found += [] if len(named) == trials else [f"{len(named)} trials have series, not {trials}"]
    found += [f"checkpoints of {path.name} are left" for path in (run / "checkpoints").iterdir()]
    return found + result_problems(file)


def result_problems(file: Path) -> list[str]:
    """Results that differ from those of an undisturbed trial."""
    from scripted import Scripted

    from workloads.spec import RunContext, TrialSpec

    got: dict[str, dict[str, float]] = {}
    for trial, name, value in rows(file, "select trial_id, name, value from results"):
        got.setdefault(trial, {})[name] = value
    scores = dict(rows(file, "select trial_id, hex(correct) from predictions"))
    found = []
    query = "select t.trial_id, t.seed, a.spec from trials t join arms a using (arm_id)"
    for trial, seed, text in rows(file, query):
        spec = TrialSpec.model_validate({**json.loads(text), "seed": seed})
        with tempfile.TemporaryDirectory() as place:
            context = RunContext(cache_dir=Path(place), checkpoint_dir=Path(place), device="cpu")
            *_, last = Scripted().open().run(spec, context)
        top1 = last.metrics["top1_percent"]  # type: ignore[union-attr]
        if got.get(trial, {}).get("top1_percent") != top1:
            found.append(f"{trial}: top1_percent {got.get(trial)}, undisturbed {top1}")
        if trial not in scores:
            found.append(f"{trial}: no predictions")
    return found


def mirror_problems(run: Path, store: Path) -> list[str]:
    """Where MLflow says something else than the ledger."""
    ledger = run / "ledger.db"
    tag = "(select value from tags where run_uuid = r.run_uuid and key = 'longrange.{}')"
    trial, kind = tag.format("trial_id"), tag.format("kind")
    alive = f"lifecycle_stage = 'active' and {kind} = 'trial'"
    runs = Counter(trial_id for (trial_id,) in rows(store, f"select {trial} from runs r where {alive}"))
    trials = {trial_id for (trial_id,) in rows(ledger, "select trial_id from trials")}
    found = [f"{name}: {runs[name]} MLflow runs" for name in trials | set(runs) if runs[name] != 1]
    epochs = "select trial_id, name, epoch, value from epoch_metrics"
    finals = "select trial_id, 'final/' || name, null, value from results"
    points = (
        f"select {trial}, key, case when key like 'final/%' then null else step end, value "
        f"from metrics join runs r using (run_uuid) where {alive} and key not like 'model/%'"
    )
    ours, theirs = Counter(rows(ledger, f"{epochs} union all {finals}")), Counter(rows(store, points))
    found += [f"only in the ledger: {row}" for row in list(ours - theirs)[:5]]
    found += [f"only in MLflow: {row}" for row in list(theirs - ours)[:5]]
    return found


if __name__ == "__main__":
    main()
