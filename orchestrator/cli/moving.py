"""Verbs that move a sweep between machines: export, import."""

from __future__ import annotations

import time
from pathlib import Path

import click

from orchestrator import paths
from orchestrator.cli.common import echo_json, json_option, ledger_option, typed
from orchestrator.cli.looking import place, sweep_option
from orchestrator.errors import UserError
from orchestrator.launch import DEFAULTS, remember
from orchestrator.paths import RunFolder


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="[default: NAME.longrange.tar]")
@ledger_option
@sweep_option
@json_option
def export(folder: Path, output: Path | None, ledger: str | None, sweep: str | None, as_json: bool) -> None:
    """Write one sweep as one file: its rows, predictions, plan and report, with a hash of each.

    \b
    longrange export runs/quickstart -o quickstart.longrange.tar
    """
    from orchestrator.records import archive
    from orchestrator.records.ledger import Ledger

    is_run = (folder / "run.json").is_file()
    with Ledger.open(place(folder, ledger), create=False) as held:
        name = sweep or (RunFolder.find(folder).settings()["sweep"] if is_run else _only_sweep(held))
        target = output or Path(paths.slug(name) + archive.SUFFIX)
        done = archive.export(held, name, target, artifacts=folder if is_run else None)
    if as_json:
        echo_json({**done.__dict__, "archive": str(done.archive), "sweep": name})
        return
    click.echo(f"{name}: {done.trials} trials, {done.bytes / 2**20:.1f} MiB\n{done.sha256}  {done.archive}")


@click.command("import")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--out", type=click.Path(path_type=Path), help="Run folder  [default: runs/NAME, unless --ledger]")
@click.option("--ledger", metavar="PATH|URL", help="Into this ledger; without --out only there, without the files.")
@click.option("--sha256", metavar="HEX", help="Refuse the archive unless this is its hash, as `longrange export` told.")
@json_option
def import_(archive: Path, out: Path | None, ledger: str | None, sha256: str | None, as_json: bool) -> None:
    """Bring a sweep that `longrange export` wrote into a run folder or a ledger; repeating it changes nothing.

    \b
    longrange import quickstart.longrange.tar
    longrange import quickstart.longrange.tar --ledger postgresql://me@db/longrange
    """
    from orchestrator.records import archive as archives
    from orchestrator.records.ledger import Ledger

    with archives.opened(archive, sha256=sha256) as content:
        name = content.manifest.sweep
        folder = _folder(out or paths.RUNS / paths.slug(name), name, ledger) if out or not ledger else None
        with Ledger.open(ledger or folder.ledger if folder else str(ledger)) as held:
            merged = content.into(held, time.time())
        differing = content.write_files(folder.root) if folder else []
    if folder:
        _remember(folder, name, ledger)
    if as_json:
        kept = [str(path) for path in differing]
        echo_json({**merged.__dict__, "folder": str(folder.root) if folder else None, "kept_files": kept})
        return
    click.echo(
        f"{name}: {merged.added} trials added, {merged.completed} completed, {merged.unchanged} known already; "
        f"now in {folder.root if folder else held.name}"
    )
    for path in differing:
        click.echo(f"  {path} was there already and stays as it is")
    if folder:
        click.echo(f"  go on with: longrange report {typed(folder.root)}; longrange resume {typed(folder.root)}")


def _only_sweep(ledger: object) -> str:
    from orchestrator.records.ledger import Ledger

    assert isinstance(ledger, Ledger)
    names = [sweep.name for sweep in ledger.sweeps()]
    if len(names) != 1:
        raise UserError(f"the ledger holds {len(names)} sweeps: say which with --sweep: {', '.join(names)}")
    return names[0]


def _folder(root: Path, sweep: str, ledger: str | None) -> RunFolder:
    """A run folder for the sweep: a new one, or one that holds just this sweep in just this ledger."""
    folder = RunFolder.make(root)
    if (folder.root / "run.json").is_file():
        settings = folder.settings()
        if settings["sweep"] != sweep or (settings["ledger"] or None) != ledger:
            raise UserError(
                f"{root} holds the run of {settings['sweep']!r} in {settings['ledger'] or 'its own ledger'}; "
                "give another folder with --out"
            )
    return folder


def _remember(folder: RunFolder, sweep: str, ledger: str | None) -> None:
    if not (folder.root / "run.json").is_file():
        remember(folder, {**DEFAULTS, "sweep": sweep, "ledger": ledger})


VERBS = (export, import_)
