"""The verb that mixes recorded trials: ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

from orchestrator.cli.common import echo_json, echo_table, json_option
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.ensemble import Ensemble, Gain, MemberResult
    from workloads.ensemble import Average

_TITLES = {"top1_percent": "top-1 %", "top5_percent": "top-5 %", "averaged_error_percent": "averaged error %"}
_COMPARED = ("top1_percent", "averaged_error_percent")


@click.command()
@click.argument("members", nargs=-1, required=True, metavar="FOLDER::NAME...")
@click.option(
    "--weights",
    default="equal",
    show_default=True,
    help="`equal`, one number per member (3,1,1), or `search`: on one half of the clips; results are of the other.",
)
@click.option(
    "--average",
    type=click.Choice(["softmax", "logits"]),
    default="softmax",
    show_default=True,
    help="Scores are averaged after the softmax, or before it.",
)
@click.option("--half-seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the halves of a search.")
@json_option
def ensemble(members: Sequence[str], weights: str, average: Average, half_seed: int, as_json: bool) -> None:
    """Average the stored scores of recorded trials; nothing runs again.

    NAME is an arm's label or id, or the beginning of a trial's id. FOLDER is a run folder, or a ledger's file or URL.
    Members may come from several sweeps if they were evaluated on the same clips. Arms are mixed seed by seed.

    \b
    longrange ensemble runs/tsn::none runs/hgnl::hgnl runs/stnet::none --weights 2,2,1
    longrange ensemble runs/tsm8::none runs/tsm16::none --average logits
    """
    from orchestrator.ensemble import ensemble as mix

    found = mix(members, weights=_weights(weights), average=average, half_seed=half_seed)
    if as_json:
        echo_json(found.to_json())
    else:
        _show(found)


VERBS = (ensemble,)


def _weights(text: str) -> Sequence[float] | Literal["equal", "search"]:
    if text == "equal":
        return "equal"
    if text == "search":
        return "search"
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--weights takes equal, search, or numbers such as 2,1,1; given {text!r}") from None


def _show(found: Ensemble) -> None:
    when = "after" if found.average == "softmax" else "before"
    source = {
        "equal": "equal weights",
        "given": "weights as given",
        "searched": f"weights searched on {found.searched_on} other clips (halves drawn by seed {found.half_seed})",
    }[found.weights_from]
    seeds = f"means over seeds {', '.join(map(str, found.seeds))}" if len(found.seeds) > 1 else "one trial per member"
    click.echo(f"scores averaged {when} the softmax; {source}; {found.clips} clips; {seeds}")
    compared = [f"ensemble - member, {_TITLES[name]}" for name in _COMPARED]
    columns = ["member", "weight", *_TITLES.values(), *(cell for title in compared for cell in (title, "verdict"))]
    rows: list[list[str | None]] = [_row(member) for member in found.members]
    rows.append(["ensemble", "1", *_numbers(found.rating), *[None] * (2 * len(_COMPARED))])
    echo_table(columns, rows)
    click.echo(
        "95 % paired bootstrap intervals over clips; verdicts hold for all members together. They compare these "
        "networks on these clips, not what training again would give."
    )


def _row(member: MemberResult) -> list[str | None]:
    gains = [cell for name in _COMPARED for cell in _compared(member.gains[name])]
    return [member.name, f"{member.weight:.3g}", *_numbers(member.rating), *gains]


def _numbers(rating: dict[str, float]) -> list[str]:
    return [f"{rating[name]:.2f}" for name in _TITLES]


def _compared(gain: Gain) -> tuple[str, str]:
    low, high = gain.interval
    return f"{gain.difference:+.2f} [{low:+.2f}, {high:+.2f}]", gain.verdict
