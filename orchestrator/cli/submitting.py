"""Verb that sends a sweep to a cluster: submit."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from orchestrator.cli.running import run
from orchestrator.errors import LongrangeError, TrialsFailed, UserError
from orchestrator.launch import without_password
from orchestrator.sweep import load_sweep, shipped_sweeps


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("sweep")
@click.option(
    "--ray",
    "address",
    metavar="URL",
    required=True,
    envvar="LONGRANGE_RAY",
    show_envvar=True,
    help="Ray's dashboard, e.g. http://HOST:8265.",
)
@click.option(
    "--exclude", "excludes", multiple=True, metavar="PATTERN", help="Leave these files behind, as .gitignore."
)
@click.option("--follow", is_flag=True, help="Show what the job prints, and end as it ends.")
@click.argument("run_options", nargs=-1, type=click.UNPROCESSED)
def submit(sweep: str, address: str, excludes: tuple[str, ...], follow: bool, run_options: tuple[str, ...]) -> None:
    """Run a sweep as a job on a Ray cluster, where `longrange` is installed.

    The working directory goes along, without data, results, secrets (.env, keys) and what .gitignore names. Other
    options are those of `longrange run`. Passwords belong into the cluster's environment: whoever sees its dashboard
    sees the job's command.

    \b
    longrange submit quickstart --ray http://head:8265 --out /shared/runs/quickstart
    longrange submit my.yaml --ray http://head:8265 --out /shared/runs/mine --set seeds=3 --follow
    """
    words = ["longrange", "run", sweep, *run_options, "--ray", "auto"]
    _checked(sweep, run_options)
    from orchestrator.execution.ray_jobs import Jobs

    jobs = Jobs(address)
    job = jobs.submit(words, Path.cwd(), excludes)
    click.echo(f"{job}: {' '.join(words)}")
    ray = f"--address {without_password(address)}"
    again = f"follow it with: ray job logs {ray} --follow {job}; end it with: ray job stop {ray} {job}"
    if not follow:
        click.echo(again)
        return
    try:
        for printed in jobs.follow(job):
            click.echo(printed, nl=False)
        end = jobs.end(job)
    except (KeyboardInterrupt, LongrangeError):
        click.echo(f"\nthe job does not need you; {again}", err=True)
        raise
    if end != "succeeded":
        raise TrialsFailed(f"the job {job} {'was stopped' if end == 'stopped' else end}")


def _checked(sweep: str, run_options: tuple[str, ...]) -> None:
    """Find mistakes before anything is sent: in the options, in the sweep, in what would be seen by others.

    Raises:
        UserError: the job could not run, or would show a password.
    """
    from orchestrator.notify import is_complete, shown  # with numpy, which other verbs do without

    asked = run.make_context("longrange run", [sweep, *run_options])
    given = asked.params
    if "--ray" in run_options:
        raise UserError("--ray is where the job goes; on the cluster it is `auto`")
    if sweep not in shipped_sweeps() and (Path(sweep).is_absolute() or ".." in Path(sweep).parts):
        raise UserError(f"{sweep} is not in the working directory, which is all that goes along: run from its folder")
    load_sweep(sweep, given["overrides"])
    for word in (sweep, *run_options):
        option, equals, value = word.partition("=")
        url = value if equals and option.startswith("-") else word
        if without_password(url) != url:
            raise UserError(
                "an option holds a password, which everybody who sees the cluster's dashboard would see: set "
                "LONGRANGE_LEDGER or LONGRANGE_MLFLOW in the environment of the cluster"
            )
    notify = given["notify"] if asked.get_parameter_source("notify") is ParameterSource.COMMANDLINE else None
    if notify is not None and not is_complete(shown(notify)):
        raise UserError(
            "--notify may hold a secret, which everybody who sees the cluster's dashboard would see: set "
            "LONGRANGE_NOTIFY in the environment of the cluster"
        )


VERBS = (submit,)
