"""Verbs that look at results: report, table, show, ui, mirror, db."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import echo_json, echo_table, json_option, ledger_option
from orchestrator.errors import LedgerError, UserError
from orchestrator.paths import RunFolder

if TYPE_CHECKING:
    from orchestrator.records.values import TrialInfo

METRIC, COST = "top1_percent", "executed_macs"
metric_option = click.option("--metric", default=METRIC, show_default=True, help="What arms are judged by.")
cost_option = click.option(
    "--cost",
    default=COST,
    show_default=True,
    help="The frontier's other axis: executed_macs, params, latency_ms, peak_memory_bytes, train_seconds, "
    "published_gflops:RULE.",
)
sweep_option = click.option("--sweep", metavar="NAME", help="Which sweep, if the ledger holds several.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: FOLDER/report.html]")
@metric_option
@cost_option
@ledger_option
@sweep_option
def report(folder: Path, output: Path | None, metric: str, cost: str, ledger: str | None, sweep: str | None) -> None:
    """Write the report of a run as one HTML file that opens offline.

    \b
    longrange report runs/quickstart -o quickstart.html
    longrange report runs/quickstart --metric top5_percent --cost latency_ms -o latency.html
    """
    from dashboards import report as page

    found = opened(folder, ledger, sweep)
    target = output or (folder / "report.html" if folder.is_dir() else Path("report.html"))
    click.echo(str(page.write(found, target, metric=metric, cost=cost, audit_rows=published_rows(found))))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["markdown", "latex", "csv", "html"]), default="markdown")
@click.option("--columns", help="Comma-separated; `--columns help` lists them.")
@click.option(
    "--over-splits",
    is_flag=True,
    help="Means over the splits of a data set, as papers print them; no frontier, so no --cost.",
)
@metric_option
@cost_option
@ledger_option
@sweep_option
def table(folder: Path, kind: str, columns: str | None, *, over_splits: bool, **options: Any) -> None:
    """The table of a run for a paper: mean ± interval, difference to the control, verdict, cost.

    \b
    longrange table runs/quickstart --format latex
    longrange table runs/quickstart --columns arm,mean,executed_macs,published_gflops:hgnl,latency_ms
    """
    from dashboards import tables

    if columns == "help":
        click.echo("\n".join([*tables.COLUMNS, "published_gflops:RULE"]))
        return
    chosen = [name.strip() for name in columns.split(",")] if columns else list(tables.DEFAULT_COLUMNS)
    found = opened(folder, options["ledger"], options["sweep"])
    said = found.text_table(kind, chosen, options["metric"], options["cost"], over_splits=over_splits)
    click.echo(said.rstrip("\n"))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("trial", required=False)
@ledger_option
@json_option
def show(folder: Path, trial: str | None, ledger: str | None, as_json: bool) -> None:
    """One trial: configuration, attempts, result. TRIAL is an id or its beginning; without it, every trial with its id.

    \b
    longrange show runs/quickstart
    longrange show runs/quickstart 3bfe9f1f
    """
    from orchestrator.records.ledger import Ledger

    with Ledger.open(place(folder, ledger), create=False) as held:
        if trial is None:
            _list_trials([(sweep.name, one) for sweep in held.sweeps() for one in held.trials_of(sweep.name)], as_json)
            return
        found = held.trial(trial)
    if as_json:
        echo_json(found)
        return
    _show_trial(found)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@ledger_option
@click.option("--mlflow", metavar="URI", help="[default: mlflow.db in the run folder]")
@click.option("--rebuild", is_flag=True, help="Throw the sweep's MLflow runs away and copy everything again.")
def mirror(folder: Path, ledger: str | None, mlflow: str | None, rebuild: bool) -> None:
    """Bring MLflow up to date with the ledger.

    \b
    longrange mirror runs/quickstart
    """
    from orchestrator.launch import fill_mirror, remembered

    found = RunFolder.find(folder)
    copied, store = fill_mirror(found, remembered(found), ledger=ledger, mlflow=mlflow, rebuild=rebuild)
    if copied.busy:
        raise UserError("another process is filling this MLflow store; try again when it is done")
    click.echo(f"{copied.runs} trials copied to {store}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--host", default="127.0.0.1", show_default=True, help="Anything but loopback needs --auth-token.")
@click.option("--port", default=8050, show_default=True)
@click.option("--auth-token", envvar="LONGRANGE_UI_TOKEN", help="Ask visitors for this token.")
@ledger_option
def ui(folder: Path, host: str, port: int, auth_token: str | None, ledger: str | None) -> None:
    """Open the dashboard on a ledger, read-only.

    \b
    longrange ui runs/quickstart
    """
    from dashboards import app

    app.serve(place(folder, ledger), host=host, port=port, auth_token=auth_token)


@click.group()
def db() -> None:
    """Look after a ledger: check, upgrade, backup."""


@db.command()
@click.argument("ledger")
@json_option
def check(ledger: str, as_json: bool) -> None:
    """Whether a ledger is sound and of this version.

    \b
    longrange db check runs/quickstart/ledger.db
    """
    from orchestrator.records import admin

    found = admin.check(ledger)
    if as_json:
        echo_json(found.__dict__)
    else:
        click.echo(f"schema {found.revision}; " + ", ".join(f"{count} {table}" for table, count in found.rows.items()))
    if found.problems:
        raise LedgerError("the ledger is not sound:\n" + "\n".join(f"  - {problem}" for problem in found.problems))


@db.command()
@click.argument("ledger")
def upgrade(ledger: str) -> None:
    """Bring an older ledger to this version's schema; a backup is made first.

    \b
    longrange db upgrade runs/quickstart/ledger.db
    """
    from orchestrator.records import admin

    before, after = admin.upgrade(ledger)
    click.echo(f"schema {before} is the newest" if before == after else f"schema {before} -> {after}")


@db.command()
@click.argument("ledger")
@click.argument("target", type=click.Path(path_type=Path))
def backup(ledger: str, target: Path) -> None:
    """Copy a ledger while it is in use.

    \b
    longrange db backup runs/quickstart/ledger.db /backups/quickstart.db
    """
    from orchestrator.records import admin

    click.echo(str(admin.backup(ledger, target)))


VERBS = (report, table, show, ui, mirror, db)


def _list_trials(trials: list[tuple[str, TrialInfo]], as_json: bool) -> None:
    columns = ("sweep", "trial_id", "arm", "seed", "state", "attempts")
    rows = [(sweep, one.trial_id, one.label, one.seed, one.state.value, one.attempts) for sweep, one in trials]
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        echo_table(columns, rows)


def _show_trial(found: Mapping[str, Any]) -> None:
    import yaml

    for key, value in found.items():
        if isinstance(value, list):
            columns = [name for name in (value[0] if value else ()) if name != "trial_id"]
            rows = [[_moment(name, item.get(name)) for name in columns] for item in value]
            if rows:
                echo_table(columns, rows, title=key)
        elif isinstance(value, Mapping):
            lines = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=100).splitlines()
            click.echo("\n  ".join([f"{key}:", *lines]))
        else:
            click.echo(f"{key}: {_moment(key, value)}")


def _moment(name: str, value: Any) -> Any:
    """Seconds since 1970 as a date; anything else as it is."""
    if name.endswith("_at") and value is not None:
        return datetime.fromtimestamp(value, UTC).isoformat(sep=" ", timespec="seconds")
    return value


def place(folder: Path, ledger: str | None) -> str | Path:
    """The ledger of a run folder, or the one given."""
    if ledger:
        return ledger
    if (folder / "run.json").is_file():
        found = RunFolder.find(folder)
        return str(found.settings()["ledger"] or found.ledger)
    if folder.is_file():
        return folder
    raise UserError(f"there is no run in {folder}: give the folder of a `longrange run`, or --ledger PATH|URL")


def published_rows(sweep: Any) -> list[dict[str, Any]]:
    """What the paper printed in the table that a sweep fills, against ours; empty for other sweeps."""
    if not sweep.record.reproduces:
        return []
    from orchestrator.audit import audit_table

    table = sweep.record.reproduces
    return [row.to_json() for row in audit_table(table["paper"], table["table"])]


def opened(folder: Path, ledger: str | None, sweep: str | None) -> Any:
    """The sweep of a run folder, for analysis.

    Raises:
        UserError: the ledger holds several sweeps and none was named.
    """
    import dashboards

    held = dashboards.open(place(folder, ledger))
    if sweep is None and (folder / "run.json").is_file():
        sweep = RunFolder.find(folder).settings()["sweep"]
    if sweep is None:
        names = list(held.sweeps()["name"])
        if len(names) != 1:
            raise UserError(f"the ledger holds {len(names)} sweeps: say which with --sweep: {', '.join(names)}")
        sweep = names[0]
    return held.sweep(sweep)
