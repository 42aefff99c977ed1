"""Verbs that make pictures: attention, figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator import paths
from orchestrator.cli.common import ledger_option
from orchestrator.cli.looking import cost_option, metric_option, opened, sweep_option
from orchestrator.errors import LongrangeError, UserError

if TYPE_CHECKING:
    from dashboards.attention import Network
    from workloads.attention import Attention
    from workloads.spec import TrialSpec

FIGURES = ["frontier", "ablation", "curves", "heatmap", "interaction", "parallel", "stages", "classes"]
FOLDER = "attention"  # inside a run folder: what was made for the page, so that the next one is fast


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("arms", nargs=-1, required=True, metavar="ARM...")
@click.option(
    "--clip", "clips", type=click.IntRange(0), multiple=True, default=(0,), help="Validation clip, by number; repeat."
)
@click.option(
    "--position",
    "positions",
    multiple=True,
    metavar="T,H,W",
    help="Reference point of the input clip: frame, row, column; repeat.  [default: the middle]",
)
@click.option("--seed", type=click.IntRange(0), help="Which seed's networks.  [default: the first that finished]")
@click.option("--device", default="cpu", show_default=True, help="Where the networks run: cpu, cuda, cuda:1.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("attention.html"),
    show_default=True,
    help="A page (.html), or figures for a paper (.pdf, .svg, .png).",
)
@ledger_option
@sweep_option
def attention(folder: Path, arms: tuple[str, ...], output: Path, **options: Any) -> None:
    """Where the blocks of some arms look, side by side, and what they predict. ARM is a label or an arm's id.

    Uses the checkpoint of each trial if the run kept it; otherwise trains that trial once more with its seed, which
    gives the same network (digits: seconds; others: as long as the trial took).

    \b
    longrange attention runs/quickstart "nl @res3" "rnl kernel=3x3x3" --clip 3 --position 2,8,8 -o attention.html
    longrange attention runs/quickstart "pnl n=2" "bat k=4" --clip 3 -o attention.pdf
    """
    from dashboards import attention as page
    from dashboards import static

    paper = output.suffix.lower() in static.FORMATS
    if not paper and output.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"-o {output}: give a page (.html) or a figure ({', '.join(static.FORMATS)})")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of a `longrange run`")
    found = opened(folder, options["ledger"], options["sweep"])
    trials = [_trial(found, arm, options["seed"]) for arm in arms]
    asked = [_position(text) for text in options["positions"]] or [_middle(trials[0].spec)]
    maker = _Maker(folder, options["clips"], asked, options["device"])
    networks = [maker.network(trial) for trial in trials]
    if paper:
        click.echo("\n".join(map(str, static.attention.save(networks, output))))
        return
    title = f"Where {', '.join(dict.fromkeys(trial.label for trial in trials))} look"
    click.echo(str(page.write(networks, output, title=title, notes=[*maker.notes, *filter(None, [found.caveat])])))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("kind", type=click.Choice(FIGURES))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A .pdf, .svg or .png file.  [default: KIND.pdf]",
)
@metric_option
@cost_option
@click.option("--block", default="", help="Whose arms: ablation, heatmap, interaction.")
@click.option("--axes", metavar="FIRST,SECOND", default="", help="Two axes of the block: heatmap, interaction.")
@click.option("--arm", "focus", multiple=True, help="Only these arms, the two of classes; repeat.")
@click.option("--theme", type=click.Choice(["light", "dark"]), default="light", show_default=True)
@click.option("--width", type=click.Choice(["column", "page"]), default="column", show_default=True)
@click.option("--zoom", is_flag=True, help="The better part of the frontier.")
@ledger_option
@sweep_option
def figure(folder: Path, kind: str, output: Path | None, axes: str, **options: Any) -> None:
    """A figure of a run for a paper: PDF, SVG or PNG in the width of a column, fonts embedded, readable in grey.

    \b
    longrange figure runs/quickstart frontier -o frontier.pdf
    longrange figure runs/quickstart heatmap --block hgnl --axes block.g1,block.g2 -o groups.svg
    longrange figure runs/quickstart classes --arm "nl @res3" --arm none -o classes.pdf
    """
    found = opened(folder, options.pop("ledger"), options.pop("sweep"))
    pair = [part.strip() for part in axes.split(",") if part.strip()]
    click.echo(str(found.save_figure(kind, output or Path(f"{kind}.pdf"), axes=pair, **options)))


VERBS = (attention, figure)


@dataclass(frozen=True)
class _Chosen:
    """One trial whose network is shown."""

    trial_id: str
    label: str
    spec: TrialSpec
    seconds: float | None


class _Maker:
    """Makes the maps of one page.

    Args:
        folder: of the run.
        clips: validation clips.
        positions: reference points.
        device: where networks run.
    """

    def __init__(
        self, folder: Path, clips: Sequence[int], positions: Sequence[tuple[int, int, int]], device: str
    ) -> None:
        self._folder, self._clips, self._positions, self._device = folder, clips, positions, device
        self.notes: list[str] = []

    def network(self, trial: _Chosen) -> Network:
        """What one trial's network does, as the page shows it."""
        from dashboards import attention as page
        from workloads import attention as maps
        from workloads.cache import content_key

        path = self._folder / FOLDER / f"{trial.trial_id}-{content_key(self._clips, self._positions)}.npz"
        try:
            if not path.exists():
                maps.save(self._look(trial), path)
        except OSError as error:
            raise LongrangeError(f"cannot keep the maps at {path}: {error.strerror or error}") from error
        return page.Network(trial.label, trial.spec.block.name, trial.spec.seed, page.read(path))

    def _look(self, trial: _Chosen) -> Attention:
        from workloads import attention as maps
        from workloads.progress import BadData, Diverged
        from workloads.spec import RunContext

        kept, own = self._folder / "checkpoints", self._folder / FOLDER / "checkpoints"
        try:
            model = maps.trained_model(trial.spec, kept / trial.trial_id)
            context = RunContext(paths.cache_dir(), own / trial.trial_id, device=self._device)
            if model is None:
                self._tell(trial, context.checkpoint_dir)
                model = maps.train_again(trial.spec, context)
            return maps.look(trial.spec, model, context, clips=self._clips, positions=self._positions)
        except (Diverged, BadData) as error:
            raise LongrangeError(f"{trial.label}, seed {trial.spec.seed}: {error}") from error
        except ValueError as error:
            raise UserError(f"{trial.label}: {error}") from error

    def _tell(self, trial: _Chosen, folder: Path) -> None:
        if folder.is_dir():
            return
        took = f", which took {trial.seconds:.0f} s" if trial.seconds else ""
        click.echo(
            f"the run kept no checkpoint of {trial.label}, seed {trial.spec.seed}: training it again{took}", err=True
        )


def _trial(sweep: Any, arm: str, seed: int | None) -> _Chosen:
    """The trial of an arm with this seed, or with the first seed that finished."""
    from workloads.spec import TrialSpec

    arm_id = sweep.arm_id(arm)
    label, content = str(sweep.arms.loc[arm_id, "label"]), sweep.arms.loc[arm_id, "spec"]
    trials = sweep.trials[(sweep.trials["arm_id"] == arm_id) & (sweep.trials["state"] == "finished")]
    chosen = trials if seed is None else trials[trials["seed"] == seed]
    if chosen.empty:
        seeds = ", ".join(map(str, sorted(trials["seed"]))) or "none yet"
        raise UserError(f"{label!r} has no finished trial{'' if seed is None else f' with seed {seed}'}: {seeds}")
    first = chosen.sort_values("seed").iloc[0]
    try:
        spec = TrialSpec.model_validate({**content, "seed": int(first["seed"])})
    except ValueError as error:
        raise UserError(f"this version cannot read the configuration of {label!r}: {error}") from error
    seconds = first.get("train_seconds")
    return _Chosen(str(chosen.sort_values("seed").index[0]), label, spec, seconds if seconds == seconds else None)


def _position(text: str) -> tuple[int, int, int]:
    try:
        frame, row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--position takes frame,row,column, given {text!r}; for example --position 2,8,8") from None
    return frame, row, column


def _middle(spec: TrialSpec) -> tuple[int, int, int]:
    backbone = spec.backbone
    return backbone.frames // 2, backbone.size // 2, backbone.size // 2
