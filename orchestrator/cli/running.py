"""Verbs that plan and run: plan, run, resume."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from orchestrator import paths, saved
from orchestrator.cli.common import echo_json, echo_table, json_option, ledger_option, only_option, set_option, typed
from orchestrator.cli.looking import published_rows
from orchestrator.errors import LongrangeError, TrialsFailed, UserError
from orchestrator.launch import (
    STOP_SIGNALS,
    Settings,
    attach,
    data_problems,
    remember,
    remembered,
    replan,
    start,
    without_password,
)
from orchestrator.paths import RunFolder
from orchestrator.plan import Plan
from orchestrator.search.planning import refuse_second_driver

if TYPE_CHECKING:
    from collections.abc import Mapping

FIGURES = ("frontier", "curves")
SHOWN = 4  # arms, where their order is told
EXECUTORS = ("auto", "inline", "ray")

notify_option = click.option(
    "--notify",
    metavar="COMMAND|URL",
    envvar="LONGRANGE_NOTIFY",
    help="Told of the end, the first failure, a spent budget, errors: JSON on its input, or posted.",
)


@click.command()
@click.argument("sweep")
@set_option
@only_option
@json_option
@click.option("--no-profile", is_flag=True, help="Leave out params, MACs and times (imports no torch).")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder: price from its trials, show what is done.")
@click.option(
    "--save",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the plan, to review and to run.",
)
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
    longrange plan quickstart --save plan.json
    """
    if out is not None and out.is_file():
        raise UserError(f"{out} is a file: give the folder of a run with --out")
    folder = out / "ledger.db" if out else None
    wanted = saved.request(sweep, overrides, only)
    made = wanted.plan(profiled=not no_profile, ledger=folder)
    values = made.to_json() if as_json or save is not None else {}
    if folder is not None and folder.exists():
        values["standing"] = _standing(made, folder)
    values["data_problems"] = data_problems(made)
    if save is not None:
        import json

        text = json.dumps({**values, **saved.to_json(made, wanted.only)}, indent=2, sort_keys=True)
        paths.write_text(save, text + "\n")
    if as_json:
        echo_json(values)
        return
    show_plan(made, values.get("standing"))
    for problem in values["data_problems"]:
        click.echo(f"before it can run: {problem}")


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
@click.option(
    "--ray",
    "address",
    metavar="ADDRESS",
    envvar="LONGRANGE_RAY",
    show_envvar=True,
    help="Join the cluster this machine is a node of: `auto` or HOST:PORT. From elsewhere: `longrange submit`.",
)
@click.option("--workers", type=click.IntRange(1), help="Trials at once on a local Ray  [default: CPU cores]")
@ledger_option
@click.option(
    "--mlflow",
    metavar="URI",
    envvar="LONGRANGE_MLFLOW",
    show_envvar=True,
    help="MLflow tracking URI; `off` is none  [default: mlflow.db in the run folder]",
)
@click.option("--retry-failed", is_flag=True, help="Run failed and infeasible trials again.")
@click.option(
    "--changed",
    type=click.Choice(["ask", "keep"]),
    default="ask",
    show_default=True,
    help="Finished trials that ran under other code: stop and tell, or keep them.",
)
@click.option(
    "--keep-checkpoints/--drop-checkpoints",
    default=None,
    help="Of finished trials; a trial's result is safe first  [default: drop, or as this folder's last run]",
)
@notify_option
@click.option("--quiet", is_flag=True, help="No progress display.")
@json_option
def run(sweep: str, overrides: tuple[str, ...], only: tuple[str, ...], out: Path | None, **options: Any) -> None:
    """Plan a sweep and run what is not done yet. SWEEP is a name, a file, or a plan that was saved for review.

    \b
    longrange run quickstart
    longrange run quickstart --executor inline --set seeds=1 --out /tmp/q
    longrange run plan.json
    """
    ledger = options["ledger"]
    wanted = saved.request(sweep, overrides, only)
    folder = RunFolder.of_sweep(wanted.sweep.name, out)
    made = wanted.plan(ledger=ledger or folder.ledger)
    keep = options["keep_checkpoints"]
    if keep is None:  # what was kept on purpose stays when the sweep is extended
        keep = (folder.root / "run.json").is_file() and bool(folder.settings().get("keep_checkpoints"))
    same = ("executor", "address", "workers", "ledger", "mlflow", "changed", "notify")
    given = {key: options[key] for key in same}
    settings = cast(Settings, {"sweep": made.sweep.name, "only": list(wanted.only), "keep_checkpoints": keep, **given})
    refuse_second_driver(made.sweep, settings["ledger"] or folder.ledger)
    remember(folder, settings)
    execute(
        made, folder, settings, retry_failed=options["retry_failed"], quiet=options["quiet"], as_json=options["as_json"]
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--retry-failed", is_flag=True, help="Run failed and infeasible trials again.")
@click.option("--changed", type=click.Choice(["ask", "keep"]), help="As in `longrange run`.")
@notify_option
@click.option("--quiet", is_flag=True, help="No progress display.")
@json_option
def resume(folder: Path, retry_failed: bool, changed: Any, notify: str | None, quiet: bool, as_json: bool) -> None:
    """Continue a run that was stopped, or whose driver died.

    \b
    longrange resume runs/quickstart
    """
    found = RunFolder.find(folder)
    settings = remembered(found)
    settings["changed"] = changed or settings["changed"]
    settings["notify"] = notify or settings["notify"]
    execute(replan(found, settings), found, settings, retry_failed=retry_failed, quiet=quiet, as_json=as_json)


VERBS = (run, plan, resume)


def execute(
    made: Plan, folder: RunFolder, settings: Settings, *, retry_failed: bool, quiet: bool, as_json: bool
) -> None:
    """Run a plan into a folder and write its report.

    Raises:
        TrialsFailed: some trials failed in this run.
        click.Abort: a signal ended it before all trials had ended.
    """
    from orchestrator.cli.display import Progress

    def say(text: str) -> None:
        click.echo(text, err=True)

    with Progress(quiet=quiet) as progress:
        outcome, mirror = start(made, folder, settings, observer=progress, retry_failed=retry_failed, say=say)
    write_report(made.sweep.name, settings["ledger"] or folder.ledger, folder)
    if mirror is not None and outcome.mirror_error is None:
        write_figures(made.sweep.name, settings["ledger"] or folder.ledger, folder)
        attach(mirror, made.sweep.name, folder)
    if as_json:
        echo_json({"folder": str(folder.root), **outcome.__dict__})
    else:
        tell(made, folder, settings, outcome)
    if outcome.stopped_by in STOP_SIGNALS:
        raise click.Abort
    if outcome.failed:
        raise TrialsFailed(
            f"{outcome.failed} trials failed; `longrange status {typed(folder.root)}` says why, "
            f"`longrange resume --retry-failed {typed(folder.root)}` tries again"
        )


def write_report(sweep: str, ledger: str | Path, folder: RunFolder) -> None:
    """The HTML report beside the ledger."""
    import dashboards
    from dashboards import report

    found = dashboards.open(ledger).sweep(sweep)
    report.write(found, folder.report, audit_rows=published_rows(found))


def write_figures(sweep: str, ledger: str | Path, folder: RunFolder) -> None:
    """Pictures of the answer for those who look at the sweep in MLflow; what has no data yet is left out."""
    import dashboards

    found = dashboards.open(ledger).sweep(sweep)
    folder.figures.mkdir(exist_ok=True)
    for kind in FIGURES:
        with suppress(LongrangeError):
            found.save_figure(kind, folder.figures / f"{kind}.png", width="page")


def tell(made: Plan, folder: RunFolder, settings: Settings, outcome: Any) -> None:
    """The end of a run, for people: what ran, the answer, where to look next."""
    import dashboards

    ran = ", ".join(f"{count} {state}" for state, count in sorted(outcome.ran.items())) or "nothing to run"
    click.echo(f"\n{made.sweep.name}: {ran}; {outcome.reused} reused; {outcome.seconds:.0f} s")
    for rejection in made.rejected:
        click.echo(f"  rejected {rejection.label}: {rejection.reason}")
    if outcome.failed_before:
        again = f"longrange resume --retry-failed {typed(folder.root)}"
        click.echo(f"  {outcome.failed_before} trials failed before: {again} runs them again")
    if outcome.elsewhere:
        click.echo(f"  {outcome.elsewhere} trials are running under another driver")
    if outcome.stopped_by or outcome.unfinished:
        why = f" ({outcome.stopped_by})" if outcome.stopped_by else ""
        click.echo(f"  {outcome.unfinished} trials left{why}: longrange resume {typed(folder.root)}")
    if outcome.mirror_error:
        click.echo(f"  MLflow lags behind: {outcome.mirror_error}; catch up with longrange mirror {typed(folder.root)}")
    ledger = settings["ledger"] or folder.ledger
    answer = dashboards.open(ledger).sweep(made.sweep.name).answer()
    click.echo(f"\n  {answer.sentence}\n")
    if made.search is not None and folder.best.is_file():
        click.echo(f"  compare    longrange run {typed(folder.best)}  (the best, by seeds that did not select them)")
    click.echo(f"  report     {typed(folder.report)}")
    click.echo(f"  ledger     {without_password(str(ledger)) if settings['ledger'] else typed(folder.ledger)}")
    click.echo(f"  dashboard  longrange ui {typed(folder.root)}")
    if settings["mlflow"] != "off":
        uri = without_password(settings["mlflow"] or folder.mlflow_uri)
        click.echo(
            f"  MLflow     {uri if uri.startswith('http') else f'mlflow ui --backend-store-uri {shlex.quote(uri)}'}"
        )


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
                f"{device_hours:.3g}" if (device_hours := arm.device_hours()) is not None else None,
                f"{arm.price.memory_bytes / 2**30:.2g}" if arm.price.memory_bytes is not None else None,
            ]
        )
    columns = ["arm", "trials", "executed MMACs / clip", "params", "seconds / trial", "device-hours", "GiB"]
    echo_table(columns, rows)
    if made.rejected:
        echo_table(["rejected", "reason"], [[item.label, item.reason] for item in made.rejected])
    if made.duplicates:
        echo_table(["duplicate", "same as"], [[item.label, item.same_as] for item in made.duplicates])
    estimate = made.estimate()
    click.echo(
        f"{estimate['trials']} trials in {estimate['arms']} arms, {len(made.rejected)} rejected, "
        f"{len(made.duplicates)} duplicate" + (f"; {_done(standing)}" if standing else "")
    )
    if standing and standing["dropped"]:
        from orchestrator.dropped import told

        click.echo(told(standing["dropped"]))
    first = list(dict.fromkeys(arm.label for arm, _ in made.ordered()))
    timed = any(arm.price.seconds for arm in made.arms)
    how = "the control, then the longest" if timed else "as written: times are not known"
    click.echo(f"order: {', '.join(first[:SHOWN])}{', ...' if len(first) > SHOWN else ''} ({how})")
    hours = [f"{estimate[key]} {key.replace('_', '-')}" for key in ("cpu_hours", "gpu_hours") if estimate[key]]
    none = "unknown" if estimate["cpu_hours"] is None else "less than 0.0001 device-hours"
    click.echo(f"estimate: {', '.join(hours) or none} ({'; '.join(estimate['basis'])})")
    if made.search is not None:
        _show_search(made.search)
    if estimate["past_error"] is not None:
        error = 100 * estimate["past_error"]
        click.echo(f"earlier estimates on this kind of device were off by {error:.0f} % (median)")


EARLY = ("asha", "hyperband", "median")  # schedulers that stop trials once their grace is over


def _show_search(search: Mapping[str, Any]) -> None:
    """What a search may draw, and what that may cost."""
    rows = []
    for path, kind in search["space"].items():
        ((name, values),) = kind.items()
        rows.append([path, name.replace("_", " "), ", ".join(map(str, values))])
    echo_table(["drawn", "how", "from"], rows)
    at_most = search["at_most"]
    hours = [f"{at_most[key]:g} {key.replace('_', '-')}" for key in ("cpu_hours", "gpu_hours") if at_most[key]]
    click.echo(
        f"{len(search['drawn'])} of {search['configurations']} configurations drawn; sampler {search['sampler']}, "
        f"scheduler {search['scheduler']}; at most {', '.join(hours) or 'an unknown time'}, if none is stopped early"
    )
    if search["scheduler"] in EARLY and search["grace_epochs"] >= at_most["epochs"]:
        below = f"not below the {at_most['epochs']} epochs of a trial"
        click.echo(f"nobody is stopped early: grace_epochs {search['grace_epochs']} is {below}")


def _done(standing: Mapping[str, Any]) -> str:
    """What of the plan is there already, in words."""
    also = {"changed": "of them under other code or data", "failed": "failed before"}
    parts = [f"{standing[key]} {text}" for key, text in also.items() if standing[key]]
    return ", ".join([f"{standing['reusable']} done already", *parts])


def _standing(made: Plan, ledger: Path) -> dict[str, Any]:
    from orchestrator.dropped import dropped
    from orchestrator.records.ledger import Ledger
    from orchestrator.run import fingerprints, split

    with Ledger.open(ledger, create=False) as opened:
        parts, gone = split(made, opened, fingerprints(made)), dropped(made, opened)
    return {
        "reusable": parts.reused,
        "todo": len(parts.todo),
        "changed": len(parts.changed),
        "failed": len(parts.ended),
        "dropped": gone,
    }
