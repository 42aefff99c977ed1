"""Verbs about data on disk: data check, data pack."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from orchestrator.cli.common import echo_json, echo_table, json_option
from orchestrator.errors import LongrangeError, SweepError, UserError
from orchestrator.explain import explain

if TYPE_CHECKING:
    from workloads.data.folder_config import FolderConfig

_SHOWN = 20  # entries of a list that may be long

workload_option = click.option(
    "--workload", default="folder", show_default=True, help="Whose layout it has; `longrange workloads` lists them."
)
field_option = click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="FIELD=VALUE",
    help="A field of the workload: annotation=a.csv.",
)
workers_option = click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Threads.")


@click.group("data")
def data() -> None:
    """Look at data sets on disk, and make copies that are fast to read."""


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--full", is_flag=True, help="Decode every frame of every clip.")
@workload_option
@field_option
@workers_option
@json_option
def check(path: Path, full: bool, workload: str, fields: tuple[str, ...], workers: int, as_json: bool) -> None:
    """Counts per class, unreadable clips, durations, rates, and clips that are in both splits.

    PATH is the data set's folder, or a CSV list in it with columns path, label, split. Exit code 1 if a trial on it
    would fail.

    \b
    longrange data check /data/mine --full
    longrange data check /data/kinetics --workload kinetics400
    """
    from workloads.data.check import check as look
    from workloads.data.check import looked_at

    config = _config(path, workload, fields)
    with _progress(len(looked_at(config.listing(), full=full)), shown=not as_json) as tick:
        report = look(config, full=full, workers=workers, tick=tick)
    values = report.to_json()
    if as_json:
        echo_json(values)
    else:
        _show_check(values)
    if not report.usable:
        raise LongrangeError(f"a trial on {path} would fail: see the problems and the unreadable clips above")


@data.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--short-side", type=click.IntRange(16), default=256, show_default=True, help="In pixels.")
@workload_option
@field_option
@workers_option
@json_option
def pack(
    path: Path, target: Path, short_side: int, workload: str, fields: tuple[str, ...], workers: int, as_json: bool
) -> None:
    """Copy the videos of PATH to TARGET with a small shorter side and many key frames.

    What is there already is kept, so it can be stopped and started again. TARGET/annotation.csv lists the copies.

    \b
    longrange data pack /data/kinetics400 /fast/kinetics400 --short-side 256
    """
    from workloads.data.pack import pack as copy

    config = _config(path, workload, fields)
    if config.kind != "video":
        raise UserError(f"{workload} holds no videos: there is nothing to pack")
    if target.resolve() == path.resolve():
        raise UserError(f"{target} is the data set itself: give another folder")
    listing = config.listing()
    try:
        with _progress(len(listing.train) + len(listing.validation), shown=not as_json) as tick:
            report = copy(config, target, short_side, workers=workers, tick=tick)
    except OSError as error:
        raise LongrangeError(f"cannot write to {target}: {error.strerror or error}") from error
    if as_json:
        echo_json(report.to_json())
        return
    before, after = report.bytes_before / 2**20, report.bytes_after / 2**20
    click.echo(f"{report.written} written, {report.kept} were there: {before:,.1f} MiB -> {after:,.1f} MiB in {target}")
    _show_reasons("left out", report.unreadable)


VERBS = (data,)


def _config(path: Path, workload: str, fields: tuple[str, ...]) -> FolderConfig:
    """The config of a data set on disk, checked."""
    import yaml

    from workloads.data.folder_config import FolderConfig
    from workloads.registry import parse_workload

    if not path.exists():
        raise UserError(f"{path} does not exist: give the folder of a data set, or a CSV list in it")
    given: dict[str, Any] = {"name": workload}
    given |= {"root": str(path)} if path.is_dir() else {"root": str(path.parent), "annotation": path.name}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set takes FIELD=VALUE, given {text!r}")
        given[name] = yaml.safe_load(value)
    try:
        config = parse_workload(given)
    except ValidationError as error:
        raise SweepError(str(path), explain(error, ("workload",))) from None
    except ValueError as error:
        raise UserError(str(error)) from error
    if not isinstance(config, FolderConfig):
        raise UserError(f"{workload} has no data on disk to look at")
    return config


@contextmanager
def _progress(length: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error where that is a terminal."""
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    with click.progressbar(range(length), file=sys.stderr, label="clips") as bar:
        yield lambda: bar.update(1)


def _show_check(values: Mapping[str, Any]) -> None:
    train, validation = values["train"], values["validation"]
    click.echo(f"{values['dataset']} at {values['root']}, fingerprint {values['fingerprint']}")
    labels = sorted({*train, *validation})
    rows = [[label, train.get(label), validation.get(label)] for label in labels]
    rows.append([f"{len(labels)} classes", sum(train.values()), sum(validation.values())])
    echo_table(["class", "training clips", "validation clips"], rows)
    spreads = [
        [name, *(f"{value:.4g}" for value in values[name])] for name in ("frames", "seconds", "rate") if values[name]
    ]
    if spreads:
        echo_table(["per clip", "lowest", "median", "highest"], spreads)
    for name in (name for name in ("shapes", "codecs") if values[name]):
        click.echo(f"{name}: " + ", ".join(f"{key} ({count})" for key, count in values[name].items()))
    depth = "every frame decoded" if values["full"] else "first and last frame decoded; --full decodes all"
    click.echo(f"{values['looked_at']} clips looked at, {depth}: {len(values['unreadable'])} unreadable")
    _show_reasons("unreadable", values["unreadable"])
    _show_reasons("listed but not there", dict.fromkeys(values["missing"], ""))
    _show_reasons("the same file in both splits", {f"{one} = {other}": "" for one, other in values["leaks"]})
    _show_reasons("problems", dict.fromkeys(values["problems"], ""))


def _show_reasons(title: str, found: Mapping[str, str]) -> None:
    if not found:
        return
    click.echo(f"{title} ({len(found)}):")
    for what, why in list(found.items())[:_SHOWN]:
        click.echo(f"  {why or what}")
    if len(found) > _SHOWN:
        click.echo(f"  ... and {len(found) - _SHOWN} more; --json lists all")
