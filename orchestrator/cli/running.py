"""Verbs that plan and run: plan, run, resume, status."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator import paths
from orchestrator.cli.common import (
    echo_json,
    echo_table,
    json_option,
    ledger_option,
    load,
    only_option,
    plan_of,
    plan_sweep,
    set_option,
)
from orchestrator.errors import TrialsFailed, UserError
from orchestrator.paths import RunFolder
from orchestrator.plan import Plan
from orchestrator.sweep import parse_sweep

if TYPE_CHECKING:
    from orchestrator.execution.base import Executor  # numpy, which planning can do without

EXECUTORS = ("auto", "inline", "ray")


@click.command()
@click.argument("sweep")
@set_option
@only_option
@json_option
@click.option("--no-profile", is_flag=True, help="Leave out params, MACs and times (imports no torch).")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder: price from its trials, show what is done.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="Also write the plan as JSON.")
def plan(
    sweep: str,
    overrides: tuple[str, ...],
    only: tuple[str, ...],
    as_json: bool,
    no_profile: bool,
    out: Path | None,
    save: Path | None,
) -> None:
    """Expand, check and price a sweep. Nothing runs.

    \b
    longrange plan quickstart
    longrange plan quickstart --set recipe.epochs=2 --only block.name=nl --json
    """
    folder = out / "ledger.db" if out else None
    made = plan_of(sweep, overrides, only, profiled=not no_profile, ledger=folder)
    values = made.to_json()
    if folder is not None and folder.exists():
        values["standing"] = _standing(made, folder)
    if save is not None:
        import json

        paths.write_text(save, json.dumps(values, indent=2, sort_keys=True) + "\n")
    if as_json:
        echo_json(values)
        return
    show_plan(made, values.get("standing"))


@click.command()
@click.argument("sweep")
@set_option
@only_option
@click.option("--out", type=click.Path(path_type=Path), help="Run folder  [default: runs/NAME]")
@click.option(
    "--executor",
    type=click.Choice(EXECUTORS),
    default="auto",
    show_default=True,
    help="`inline`: this process; `ray`: Ray Tune; `auto`: Ray if there is more than one core.",
)
@click.option("--ray", "address", metavar="ADDRESS", help="Join a Ray cluster: `auto`, HOST:PORT or ray://HOST:PORT.")
@click.option("--workers", type=click.IntRange(1), help="Trials at once on a local Ray  [default: CPU cores]")
@ledger_option
@click.option("--mlflow", metavar="URI", help="MLflow tracking URI  [default: mlflow.db in the run folder; `off`]")
@click.option("--retry-failed", is_flag=True, help="Run failed and infeasible trials again.")
@click.option(
    "--changed",
    type=click.Choice(["ask", "keep"]),
    default="ask",
    show_default=True,
    help="Finished trials that ran under other code: stop and tell, or keep them.",
)
@click.option("--quiet", is_flag=True, help="No progress display.")
@json_option
def run(sweep: str, overrides: tuple[str, ...], only: tuple[str, ...], out: Path | None, **options: Any) -> None:
    """Plan a sweep and run what is not done yet.

    \b
    longrange run quickstart
    longrange run quickstart --executor inline --set seeds=1 --out /tmp/q
    """
    ledger = options["ledger"]
    loaded = load(sweep, overrides)
    folder = RunFolder.make(out or paths.RUNS / paths.slug(loaded.name))
    made = plan_sweep(loaded, only, ledger=ledger or folder.ledger, source=sweep)
    settings = {
        "sweep": made.sweep.name,
        "only": list(only),
        **{key: options[key] for key in ("executor", "address", "workers", "ledger", "mlflow", "changed")},
    }
    folder.write_settings(settings)
    execute(
        made, folder, settings, retry_failed=options["retry_failed"], quiet=options["quiet"], as_json=options["as_json"]
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--retry-failed", is_flag=True, help="Run failed and infeasible trials again.")
@click.option("--changed", type=click.Choice(["ask", "keep"]), help="As in `longrange run`.")
@click.option("--quiet", is_flag=True, help="No progress display.")
@json_option
def resume(folder: Path, retry_failed: bool, changed: str | None, quiet: bool, as_json: bool) -> None:
    """Continue a run that was stopped, or whose driver died.

    \b
    longrange resume runs/quickstart
    """
    found = RunFolder.find(folder)
    settings = found.settings()
    from orchestrator.records.ledger import Ledger

    with Ledger.open(settings["ledger"] or found.ledger, create=False) as ledger:
        known = ledger.sweep(settings["sweep"])
    if known is None:
        raise UserError(f"the ledger of {folder} does not hold {settings['sweep']!r}; run it again with longrange run")
    fields = {key: value for key, value in known.definition.items() if key in _sweep_fields()}
    made = plan_sweep(
        parse_sweep(fields, source=str(folder)),
        settings["only"],
        ledger=settings["ledger"] or found.ledger,
        source=str(folder),
    )
    if changed:
        settings["changed"] = changed
    execute(made, found, settings, retry_failed=retry_failed, quiet=quiet, as_json=as_json)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@ledger_option
@json_option
def status(folder: Path, ledger: str | None, as_json: bool) -> None:
    """Progress of a run: trials per state, per arm, and what failed why.

    \b
    longrange status runs/quickstart
    """
    found = RunFolder.find(folder)
    settings = found.settings()
    from orchestrator.records.ledger import Ledger

    with Ledger.open(ledger or settings["ledger"] or found.ledger, create=False) as opened:
        trials = opened.trials_of(settings["sweep"])
    states: dict[str, int] = {}
    arms: dict[str, dict[str, int]] = {}
    for trial in trials:
        states[trial.state.value] = states.get(trial.state.value, 0) + 1
        of_arm = arms.setdefault(trial.label, {})
        of_arm[trial.state.value] = of_arm.get(trial.state.value, 0) + 1
    failures = [
        {
            "trial_id": trial.trial_id,
            "arm": trial.label,
            "seed": trial.seed,
            "cause": trial.cause,
            "message": trial.message,
        }
        for trial in trials
        if trial.cause and trial.state.value not in ("finished", "running")
    ]
    if as_json:
        echo_json({"sweep": settings["sweep"], "states": states, "arms": arms, "failures": failures})
        return
    click.echo(f"{settings['sweep']}: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
    kinds = sorted({state for of_arm in arms.values() for state in of_arm})
    echo_table(["arm", *kinds], [[label, *(of_arm.get(kind, 0) for kind in kinds)] for label, of_arm in arms.items()])
    if failures:
        echo_table(["failed trial", "arm", "seed", "cause", "message"], [list(item.values()) for item in failures])


VERBS = (run, plan, resume, status)


def execute(
    made: Plan, folder: RunFolder, settings: Mapping[str, Any], *, retry_failed: bool, quiet: bool, as_json: bool
) -> None:
    """Run a plan into a folder and write its report.

    Raises:
        TrialsFailed: some trials failed in this run.
    """
    import json

    from orchestrator.cli.display import Progress
    from orchestrator.records.ledger import Ledger
    from orchestrator.run import run_plan

    problems = [problem for arm in made.arms for problem in arm.spec.workload.problems()]
    if problems:
        raise UserError("the data is not ready:\n" + "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems)))
    paths.write_text(folder.plan, json.dumps(made.to_json(), indent=2, sort_keys=True) + "\n")
    with Ledger.open(settings["ledger"] or folder.ledger) as ledger, Progress(quiet=quiet) as progress:
        mirror = make_mirror(settings["mlflow"], folder, ledger)
        with make_executor(settings) as executor, cancel_on_signals(executor.cancel):
            outcome = run_plan(
                made,
                ledger=ledger,
                executor=executor,
                checkpoints=folder.checkpoints,
                cache=paths.cache_dir(),
                observer=progress,
                mirror=mirror,
                retry_failed=retry_failed,
                reuse_changed=settings["changed"] == "keep",
            )
    write_report(made.sweep.name, settings["ledger"] or folder.ledger, folder)
    if mirror is not None and outcome.mirror_error is None:
        attach(mirror, made.sweep.name, folder)
    if as_json:
        echo_json({"folder": str(folder.root), **outcome.__dict__})
    else:
        tell(made, folder, settings, outcome)
    if outcome.failed:
        raise TrialsFailed(
            f"{outcome.failed} trials failed; `longrange status {folder.root}` says why, "
            f"`longrange resume --retry-failed {folder.root}` tries again"
        )


def make_executor(settings: Mapping[str, Any]) -> Executor:
    """The executor that the settings name."""
    kind = settings["executor"]
    if kind == "auto":
        kind = "ray" if settings["address"] or (os.cpu_count() or 1) > 1 else "inline"
    if kind == "inline":
        from orchestrator.execution.inline import InlineExecutor

        return InlineExecutor()
    from orchestrator.execution.ray_tune import RayExecutor

    return RayExecutor(settings["address"], workers=settings["workers"])


def make_mirror(uri: str | None, folder: RunFolder, ledger: Any) -> Any:
    """The MLflow mirror, or None if it is off."""
    if uri == "off":
        return None
    from orchestrator.records.mlflow_mirror import Mirror

    return Mirror(uri or folder.mlflow_uri, ledger)


def attach(mirror: Any, sweep: str, folder: RunFolder) -> None:
    """Put plan and report on the sweep's MLflow run."""
    mirror.log_artifacts(sweep, [path for path in (folder.plan, folder.report) if path.is_file()])


@contextmanager
def cancel_on_signals(cancel: Callable[[], None]) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks trials to checkpoint and stop; a second one interrupts at once."""

    def first(number: int, _: Any) -> None:
        click.echo("\nstopping: running trials write a checkpoint; once more to stop at once", err=True)
        signal.signal(number, signal.default_int_handler)
        cancel()

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_report(sweep: str, ledger: str | Path, folder: RunFolder) -> None:
    """The HTML report beside the ledger."""
    import dashboards
    from dashboards import report

    report.write(dashboards.open(ledger).sweep(sweep), folder.report)


def tell(made: Plan, folder: RunFolder, settings: Mapping[str, Any], outcome: Any) -> None:
    """The end of a run, for people: what ran, the answer, where to look next."""
    import dashboards

    ran = ", ".join(f"{count} {state}" for state, count in sorted(outcome.ran.items())) or "nothing to run"
    click.echo(f"\n{made.sweep.name}: {ran}; {outcome.reused} reused; {outcome.seconds:.0f} s")
    for rejection in made.rejected:
        click.echo(f"  rejected {rejection.label}: {rejection.reason}")
    if outcome.elsewhere:
        click.echo(f"  {outcome.elsewhere} trials are running under another driver")
    if outcome.stopped_by or outcome.left:
        why = f" ({outcome.stopped_by})" if outcome.stopped_by else ""
        click.echo(f"  {outcome.left} trials left{why}: longrange resume {_shown(folder.root)}")
    if outcome.mirror_error:
        click.echo(
            f"  MLflow lags behind: {outcome.mirror_error}; catch up with longrange mirror {_shown(folder.root)}"
        )
    ledger = settings["ledger"] or folder.ledger
    answer = dashboards.open(ledger).sweep(made.sweep.name).answer()
    click.echo(f"\n  {answer.sentence}\n")
    click.echo(f"  report     {_shown(folder.report)}")
    click.echo(f"  ledger     {ledger if settings['ledger'] else _shown(folder.ledger)}")
    click.echo(f"  dashboard  longrange ui {_shown(folder.root)}")
    if settings["mlflow"] != "off":
        click.echo(f"  MLflow     mlflow ui --backend-store-uri {settings['mlflow'] or folder.mlflow_uri}")


def show_plan(made: Plan, standing: Mapping[str, Any] | None) -> None:
    """A plan as tables."""
    if made.sweep.question:
        click.echo(f"{made.sweep.name}: {made.sweep.question}\n")
    rows = []
    for arm in made.arms:
        profile = arm.profile or {}
        macs, params = profile.get("executed_macs"), profile.get("params")
        rows.append(
            [
                f"{arm.label} (control)" if arm.is_control else arm.label,
                len(arm.seeds),
                f"{macs / 1e6:,.2f}" if macs is not None else None,
                f"{params:,}" if params is not None else None,
                f"{arm.price.seconds:.1f}" if arm.price.seconds is not None else None,
            ]
        )
    echo_table(["arm", "trials", "executed MMACs / clip", "params", "seconds / trial"], rows)
    if made.rejected:
        echo_table(["rejected", "reason"], [[item.label, item.reason] for item in made.rejected])
    if made.duplicates:
        echo_table(["duplicate", "same as"], [[item.label, item.same_as] for item in made.duplicates])
    estimate = made.estimate()
    click.echo(
        f"{estimate['trials']} trials in {estimate['arms']} arms, {len(made.rejected)} rejected, "
        f"{len(made.duplicates)} duplicate" + (f"; {standing['reusable']} done already" if standing else "")
    )
    hours = [f"{estimate[key]} {key.replace('_', '-')}" for key in ("cpu_hours", "gpu_hours") if estimate[key]]
    click.echo(f"estimate: {', '.join(hours) or 'unknown'} ({'; '.join(estimate['basis'])})")


def _standing(made: Plan, ledger: Path) -> dict[str, Any]:
    from orchestrator.records.ledger import Ledger
    from orchestrator.run import fingerprints, split

    with Ledger.open(ledger, create=False) as opened:
        parts = split(made, opened, fingerprints(made))
    return {
        "reusable": parts.reused,
        "todo": len(parts.todo),
        "changed": len(parts.changed),
        "failed": len(parts.ended),
    }


def _sweep_fields() -> set[str]:
    from orchestrator.sweep import Sweep

    return set(Sweep.model_fields)


def _shown(path: Path) -> str:
    """A path as the user would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
