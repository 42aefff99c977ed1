"""The command line: the only place that joins planning, execution, records and dashboards.

Heavy libraries are imported inside the verbs that need them, so that `longrange --help` answers at once.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress
from pathlib import Path

import click

from orchestrator.cli import (
    data,
    ensembling,
    looking,
    measuring,
    moving,
    names,
    per_class,
    pictures,
    running,
    submitting,
    watching,
)
from orchestrator.errors import LongrangeError

INTERRUPTED = 130


class Group(click.Group):
    """Lists verbs in the order of use rather than the alphabet's."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="longrange", message="longrange %(version)s")
def cli() -> None:
    """Which long-range block, with which settings, inserted where, buys how much accuracy for how much compute?

    \b
    longrange run quickstart            a first sweep: embedded data, minutes on a CPU
    longrange plan rnl/table2a          expand, check and price a sweep
    longrange report runs/quickstart    the answer, as one HTML file
    """


_VERBS = (running, submitting, watching, looking, pictures, moving, measuring, ensembling, per_class, data, names)
for _verb in (verb for module in _VERBS for verb in module.VERBS):
    cli.add_command(_verb)


def main() -> None:
    """Entry point: every expected error is one message; exit code 2 for the user's mistakes, 1 for failures."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries' warnings are for us, in the tests, not for users
    with suppress(FileNotFoundError):  # MODULE:CLASS of the present folder is found, behind all that is installed
        sys.path.append(str(Path.cwd()))
    try:
        sys.exit(cli.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except LongrangeError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
