"""What running a trial costs beside the trial: no-op trials per second, the driver's memory, and what its death loses.

    python -m benchmarks.orchestration [--quick] [--json FILE]

All variants in one run, each in a process of its own, each with two workers, Ray's start not counted: Ray Tune as its
defaults are, Tune with reused actors and its loggers off, plain Ray tasks, and longrange: plan recorded, every trial
claimed, run under Tune, and written to the ledger with its epoch, result and environment; the MLflow mirror in the
background. The last part kills a driver with SIGKILL and asks the ledger what of the work done it does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks import record

WORKERS = 2
ARMS = 20
GOALS = {"trials_per_second": 100, "rss_growth_mib": 50, "lost_seconds": 2}
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer trials: a look, no measurement")
    parser.add_argument("--only", choices=sorted(VARIANTS), action="append", help="leave out the others")
    parser.add_argument("--json", type=Path, help="write the findings there  [default: results/orchestration-cpu.json]")
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(VARIANTS[given.child["variant"]](given.child["trials"])))
        return
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    os.environ |= {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    tasks = QUICK if given.quick else FULL
    found: dict[str, Any] = {"workers": WORKERS, "goals": GOALS, "quick": given.quick}
    for variant, trials in tasks:
        if given.only and variant not in given.only:
            continue
        answer = record.spawn("benchmarks.orchestration", {"variant": variant, "trials": trials}, seconds=400)
        found.setdefault(variant, []).append({"trials": trials, **answer})
        print(variant, json.dumps(found[variant][-1]), flush=True)
    if not given.quick or given.json:
        print(record.write("orchestration", "cpu", found, given.json))


class Noted:
    """Counts ended trials; notes the driver's memory, and how long it computed."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.ended = 0
        self.rss_mib: dict[int, float] = {}
        self.peak_mib = 0.0
        self._over = threading.Event()
        self._cpu = sum(self._process.cpu_times()[:2])
        self._start = time.perf_counter()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.peak_mib = max(self.peak_mib, self._mib())

    def _mib(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    def one(self) -> None:
        """A trial has ended."""
        self.ended += 1
        if self.ended == 100:
            self.rss_mib[100] = self._mib()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def written(self) -> None:
        """All that was told so far is recorded."""
        self._seconds = self.elapsed()
        self._computed = sum(self._process.cpu_times()[:2]) - self._cpu

    def found(self, trials: int) -> dict[str, Any]:
        """The numbers, up to the last call of `written`."""
        self._over.set()
        self._watch.join()
        seconds, computed = self._seconds, self._computed
        at_100 = self.rss_mib.get(100)
        assert self.ended == trials, f"{self.ended} of {trials} trials ended"
        return {
            "seconds": round(seconds, 2),
            "trials_per_second": round(trials / seconds, 1),
            "driver_cpu_ms_per_trial": round(1000 * computed / trials, 2),
            "rss_at_100_trials_mib": at_100 and round(at_100, 1),
            "rss_growth_since_mib": at_100 and round(max(self.peak_mib, self._mib()) - at_100, 1),
        }


def tune_defaults(trials: int) -> dict[str, Any]:
    """Tune as it comes."""
    return _tune(trials, reuse=False)


def tune_reused(trials: int) -> dict[str, Any]:
    """Tune with reused actors and without the loggers that nobody reads."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    return _tune(trials, reuse=True)


def _tune(trials: int, *, reuse: bool) -> dict[str, Any]:
    import ray
    from ray import tune

    from benchmarks.tune_ends import Ends

    class Noop(tune.Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            """Nothing to set up."""

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

        def step(self) -> dict[str, Any]:
            return {"train_loss": 1.0, "top1_percent": 50.0, "done": True}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing to save."""

    _ray()
    noted = Noted()
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            Noop,
            param_space={"arm": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=reuse, max_concurrent_trials=WORKERS),
            run_config=tune.RunConfig(name="noop", storage_path=folder, verbose=0, callbacks=[Ends(noted.one)]),
        )
        tuner.fit()
        noted.written()
        found = noted.found(trials)
    ray.shutdown()
    return found


def ray_tasks(trials: int) -> dict[str, Any]:
    """One Ray task per trial, nothing recorded."""
    import ray

    _ray()

    @ray.remote  # type: ignore[untyped-decorator]
    def noop(seed: int) -> dict[str, float]:
        return {"train_loss": 1.0, "top1_percent": 50.0}

    ray.get([noop.remote(0) for _ in range(2 * WORKERS)])  # worker processes start
    noted = Noted()
    waiting = [noop.remote(seed) for seed in range(trials)]
    for task in waiting:
        ray.get(task)
        noted.one()
    noted.written()
    found = noted.found(trials)
    ray.shutdown()
    return found


def longrange(trials: int) -> dict[str, Any]:
    """A sweep, from its plan to the last row in the ledger."""
    with tempfile.TemporaryDirectory() as folder:
        return _longrange(trials, Path(folder))


def _longrange(trials: int, folder: Path) -> dict[str, Any]:
    from orchestrator.events import Ended, Event
    from orchestrator.execution.ray_tune import RayExecutor
    from orchestrator.mirror_process import MirrorProcess
    from orchestrator.plan import Plan, make_plan
    from orchestrator.price import PastTrial, Pricer
    from orchestrator.records.ledger import Ledger
    from orchestrator.run import run_plan
    from orchestrator.sweep import parse_sweep

    class Count:
        def planned(self, plan: Plan, todo: int, reused: int) -> None:
            """Nothing to show."""

        def event(self, event: Event) -> None:
            if isinstance(event, Ended):
                noted.one()

    class Timed(Ledger):
        def apply(self, events: Sequence[Event], owner: str) -> frozenset[str]:
            refused = super().apply(events, owner)
            if events:
                noted.written()
            return refused

    base = {"workload": "noop_workload:Noop", "insertion": {"res3": [0]}, "block": "nl"}
    arms = [{"name": "noop_workload:Noop", "arm": arm} for arm in range(1, ARMS)]
    sweep = {"name": "noop", "base": base, "axes": {"grid": {"workload": arms}}, "seeds": trials // ARMS}
    unpriced = make_plan(parse_sweep(sweep))
    past = [PastTrial(arm.arm_id, arm.spec.workload.name, "cpu", 1.0, 0.001) for arm in unpriced.arms]
    plan = make_plan(parse_sweep(sweep), pricer=Pricer(past))  # as a ledger that has seen them would price them
    store, place = f"sqlite:///{folder / 'mlflow.db'}", folder / "ledger.db"
    with (
        Timed.open(place) as ledger,
        RayExecutor(workers=WORKERS) as executor,
        MirrorProcess(store, place) as mirror,
    ):
        noted = Noted()
        run_plan(
            plan,
            ledger=ledger,
            executor=executor,
            checkpoints=folder / "checkpoints",
            cache=folder / "cache",
            observer=Count(),
            mirror=mirror,
        )
        found = noted.found(trials) | {"seconds_until_mirrored": round(noted.elapsed(), 2)}
        assert len([row for row in ledger.trials_of("noop") if row.state == "finished"]) == trials
    return found


def killed_driver(trials: int) -> dict[str, Any]:
    """Kill the driver once a third has run; how much finished work does the ledger not hold?"""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        log = folder / "ends.log"
        log.touch()
        task = json.dumps({"variant": "longrange_in", "trials": [trials, place]})
        command = [sys.executable, "-m", "benchmarks.orchestration", "--child", task]
        environment = os.environ | {"BENCHMARK_LOG": str(log)}
        with (folder / "driver.log").open("w") as output:
            driver = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        _until(lambda: len(log.read_text().splitlines()) >= trials // 3 or driver.poll() is not None, 200)
        alive = driver.poll() is None
        os.kill(driver.pid, signal.SIGKILL)
        killed_at = time.time()
        driver.wait()
        assert alive, (folder / "driver.log").read_text()[-2000:]
        ended = {trial: float(at) for trial, at in (line.split() for line in log.read_text().splitlines())}
        with sqlite3.connect(folder / "ledger.db") as ledger:
            known = {trial for (trial,) in ledger.execute("select trial_id from trials where state = 'finished'")}
        lost = [killed_at - at for trial, at in ended.items() if trial not in known and at <= killed_at]
        _gone(driver.pid)
    return {
        "done_before_the_kill": sum(at <= killed_at for at in ended.values()),
        "in_the_ledger": len(known),
        "lost_trials": len(lost),
        "lost_seconds": round(max(lost, default=0.0), 2),
    }


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds:g} s")
        time.sleep(0.05)


def _gone(session: int) -> None:
    """End what a killed driver left behind: Ray's processes of its session, which would go by themselves later."""
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session:
                process.kill()
        except (psutil.Error, ProcessLookupError):
            continue


def longrange_in(given: Any) -> dict[str, Any]:
    """`longrange` into a folder that outlives it."""
    trials, folder = given
    return _longrange(trials, Path(folder))


def _ray() -> None:
    import ray

    ray.init("local", num_cpus=WORKERS, include_dashboard=False, logging_level="error", log_to_driver=False)


VARIANTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "tune_defaults": tune_defaults,
    "tune_reused": tune_reused,
    "ray_tasks": ray_tasks,
    "longrange": longrange,
    "longrange_in": longrange_in,
    "killed_driver": killed_driver,
}
FULL = [
    ("tune_defaults", 60),
    ("tune_reused", 1_000),
    ("ray_tasks", 1_000),
    ("ray_tasks", 10_000),
    ("longrange", 1_000),
    ("longrange", 10_000),
    ("killed_driver", 6_000),
]
QUICK = [
    ("tune_defaults", 6),
    ("tune_reused", 100),
    ("ray_tasks", 1_000),
    ("longrange", 1_000),
    ("killed_driver", 3_000),
]


if __name__ == "__main__":
    main()
