"""Verbs that look after a run that may be somewhere else: status, logs, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.common import echo_json, json_option, ledger_option, span, typed
from orchestrator.errors import LedgerUnavailable, LongrangeError, TrialsFailed
from orchestrator.launch import remembered
from orchestrator.paths import CancelFile, RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.overview import Overview

WATCH_SECONDS = 2.0
MOST_FAILURES = 20


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Redraw until every trial has ended; exit code 1 if some have failed.")
@ledger_option
@json_option
def status(folder: Path, watch: bool, ledger: str | None, as_json: bool) -> None:
    """Progress of a run: trials per state and arm, what failed why, rate, time left, cost so far.

    \b
    longrange status runs/quickstart
    longrange status runs/quickstart --watch
    """
    found = RunFolder.find(folder)
    settings = remembered(found)
    from orchestrator.overview import overview
    from orchestrator.records.ledger import Ledger

    with Ledger.open(ledger or settings["ledger"] or found.ledger, create=False) as opened:

        def look() -> Overview:
            return overview(opened, settings["sweep"], time.time())

        seen = look()
        if watch:
            seen = follow(look, seen, draw=not as_json)
    if as_json:
        echo_json(seen.to_json())
    elif not watch:
        from rich.console import Console

        console = Console()
        (console if console.is_terminal else Console(width=250)).print(picture(seen))
    if watch and seen.failed:
        raise TrialsFailed(f"{seen.failed} trials failed; `longrange logs {typed(folder)} TRIAL` shows what happened")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("trial")
@ledger_option
@json_option
def logs(folder: Path, trial: str, ledger: str | None, as_json: bool) -> None:
    """Every attempt at a trial: when, where, how it ended, with messages and tracebacks. TRIAL may be cut short.

    \b
    longrange logs runs/quickstart 3bfe9f1f
    """
    from orchestrator.cli.looking import place
    from orchestrator.records.ledger import Ledger

    with Ledger.open(place(folder, ledger), create=False) as held:
        found = held.trial(trial)
    if as_json:
        echo_json({key: found[key] for key in ("trial_id", "state", "attempts")})
        return
    attempts = found["attempts"]
    click.echo(f"trial {found['trial_id']}: {found['state']}, {len(attempts)} attempts")
    for attempt in attempts:
        click.echo("\n" + _told(attempt))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--wait", type=click.FloatRange(0), metavar="SECONDS", help="Wait for the end; exit code 1 if it is late."
)
def cancel(folder: Path, wait: float | None) -> None:
    """Ask whoever runs into this folder to stop: trials write a checkpoint, `longrange resume` goes on from there.

    The request is a file in the run folder, which drivers look at twice a second: it works from every machine that
    shares the folder. Exit code 0 also if nothing is running.

    \b
    longrange cancel runs/quickstart --wait 60
    """
    found = RunFolder.find(folder)
    settings = remembered(found)
    from orchestrator.overview import overview
    from orchestrator.records.ledger import Ledger

    CancelFile(found.cancel).ask()  # before looking: a driver that is just starting hears it too
    with Ledger.open(settings["ledger"] or found.ledger, create=False) as ledger:
        seen = overview(ledger, settings["sweep"], time.time())
        if not seen.drivers:
            click.echo("nothing is running")
            return
        end = time.monotonic() + (wait or 0.0)
        while wait is not None and seen.drivers and time.monotonic() < end:
            time.sleep(0.5)
            seen = overview(ledger, settings["sweep"], time.time())
    if wait is not None and seen.drivers:
        raise LongrangeError(f"asked to stop, but {seen.drivers} drivers are running still after {wait:g} s")
    left = seen.trials - seen.ended + seen.states.get("cancelled", 0)
    asked = "stopped" if wait is not None else "asked to stop"
    click.echo(f"{asked}; {left} trials left: longrange resume {typed(folder)}")


VERBS = (status, logs, cancel)


def follow(look: Callable[[], Overview], seen: Overview, *, draw: bool) -> Overview:
    """Show a sweep until it is over: redrawn on a terminal, elsewhere a line for every change."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    live = Live(picture(seen), console=console, auto_refresh=False) if draw and console.is_terminal else None
    line = ""
    if live is not None:
        live.start()
    try:
        while True:
            if live is not None:
                live.update(picture(seen), refresh=True)
            elif draw and summary(seen) != line:
                line = summary(seen)
                click.echo(line)
            if seen.is_over:
                return seen
            time.sleep(WATCH_SECONDS)
            try:
                seen = look()
            except LedgerUnavailable:
                continue  # the server restarts, the file is locked: the next look will tell
    finally:
        if live is not None:
            live.stop()


def picture(seen: Overview) -> RenderableType:
    """An overview as tables."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    kinds = sorted({state for states in seen.arms.values() for state in states})
    arms = Table(box=None, pad_edge=False, header_style="bold")
    arms.add_column("arm", overflow="fold")
    for kind in kinds:
        arms.add_column(kind, justify="right")
    for label, states in seen.arms.items():
        arms.add_row(escape(label), *(str(states.get(kind, 0)) for kind in kinds))
    parts: list[RenderableType] = [Text(summary(seen)), arms]
    if seen.failures:
        failures = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("without result", "arm", "seed", "cause", "message"):
            failures.add_column(column, overflow="fold")
        for one in seen.failures[:MOST_FAILURES]:
            cells = (one.trial_id, one.arm, str(one.seed), one.cause, one.message or "")
            failures.add_row(*map(escape, cells))
        parts.append(failures)
        if len(seen.failures) > MOST_FAILURES:
            parts.append(Text(f"and {len(seen.failures) - MOST_FAILURES} more: --json shows all"))
    return Group(*parts)


def summary(seen: Overview) -> str:
    """An overview in one line: counts, pace, cost."""
    parts = [f"{seen.sweep}: " + ", ".join(f"{count} {state}" for state, count in sorted(seen.states.items()))]
    if seen.ended < seen.trials and not seen.drivers:
        parts.append("nothing is running")
    if seen.trials_per_hour is not None:
        parts.append(f"{seen.trials_per_hour:.3g} trials/h")
    if seen.seconds_left:
        parts.append(f"about {span(seen.seconds_left)} left")
    parts += [f"{seconds:,.0f} {device}-seconds" for device, seconds in sorted(seen.device_seconds.items())]
    return " · ".join(parts)


def _told(attempt: Mapping[str, Any]) -> str:
    began, ended = attempt["started_at"], attempt["ended_at"]
    took = f"{span(ended - began)}" if ended is not None else "open"
    where = " ".join(attempt[key] for key in ("host", "device") if attempt[key])
    start = datetime.fromtimestamp(began, UTC).isoformat(sep=" ", timespec="seconds")
    lines = [f"attempt {attempt['number']}: {start}, {took}, {attempt['outcome'] or 'running'}"]
    lines[0] += f", on {where}" if where else ""
    if attempt["micro_batch"] is not None:
        lines.append(f"  micro-batch {attempt['micro_batch']}")
    if attempt["cause"]:
        lines.append(f"  {attempt['cause']}: {attempt['message'] or ''}")
    lines += [f"  | {line}" for line in (attempt["traceback"] or "").rstrip().splitlines()]
    return "\n".join(lines)
