"""Verbs that measure without a sweep: profile, audit, check-block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from orchestrator.cli.common import echo_json, echo_table, json_option
from orchestrator.errors import LongrangeError, SweepError, UserError
from orchestrator.explain import explain
from orchestrator.resolve import model_problems
from workloads.spec import ModelSpec


@click.command()
@click.option("--backbone", required=True, help="A backbone's name; `longrange backbones` lists them.")
@click.option(
    "--block", default="none", show_default=True, help='A name, or JSON: \'{"name": "rnl", "kernel": [3,7,7]}\''
)
@click.option("--insert", multiple=True, metavar="STAGE=UNITS", help="e.g. --insert res3=0,2 --insert res4=all.")
@click.option("--classes", type=int, help="Outputs of the classifier.")
@click.option("--frames", type=int, help="Frames per clip.")
@click.option("--size", type=int, help="Height and width of the input in pixels.")
@click.option("--set", "fields", multiple=True, metavar="FIELD=VALUE", help="Any other field of the backbone.")
@click.option("--measure", is_flag=True, help="Also time it: latency, throughput, peak memory.")
@click.option("--device", default="cpu", show_default=True, help="For --measure: cpu or cuda.")
@click.option("--batch", default=1, show_default=True, help="For --measure: clips per step.")
@click.option("--warmup", default=3, show_default=True, help="For --measure: steps before the first sample.")
@click.option("--samples", default=20, show_default=True, help="For --measure: steps that are timed.")
@click.option("--training", is_flag=True, help="For --measure: training steps instead of forward passes.")
@json_option
def profile(backbone: str, block: str, insert: tuple[str, ...], fields: tuple[str, ...], **options: Any) -> None:
    """What a network costs: parameters, executed MACs, activations, and the papers' own GFLOPs.

    \b
    longrange profile --backbone tsm_resnet50 --block '{"name": "nl"}' --insert res3=0,2 --insert res4=0,2,4
    """
    spec = _spec(backbone, block, insert, fields, {key: options[key] for key in ("classes", "frames", "size")})
    from workloads import counting

    try:
        found = counting.profile(spec)
    except (counting.Disagreement, counting.UnknownOperation) as error:
        raise LongrangeError(str(error)) from error
    values = found.model_dump(mode="json")
    if options["measure"]:
        values["measured"] = _measured(spec, options)
    if options["as_json"]:
        echo_json(values)
    else:
        _show_profile(spec, values)


@click.command()
@click.option("--paper", type=click.Choice(["hgnl", "rnl", "pnl", "bat"]), help="Only this paper's cells.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["table", "markdown", "html", "planes", "places"]),
    default="table",
    show_default=True,
    help="`planes` and `places` are figures of one paper: accuracy over both costs, and what changes place.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write there instead.")
@json_option
def audit(paper: str | None, kind: str, output: Path | None, as_json: bool) -> None:
    """Every number of the four papers: published, reproduced under that paper's rule, executed, and why they differ.

    \b
    longrange audit --paper bat
    longrange audit --paper rnl --format planes -o rnl.pdf
    """
    from orchestrator import audit as auditing
    from orchestrator.paths import write_text

    drawn = kind in ("planes", "places")
    if as_json and kind != "table":
        raise UserError(f"--json and --format {kind} are two forms of the answer: give one of them")
    if drawn and (paper is None or output is None):
        raise UserError(f"--format {kind} draws one paper: give --paper and -o FILE.pdf (or .svg, .png)")
    rows = [row for row in auditing.audit() if paper in (None, row.paper)]
    if drawn and paper and output:
        from dashboards.static import published

        click.echo(str(published.save([row.to_json() for row in rows], paper, kind, output)))
        return
    render = {"markdown": auditing.to_markdown, "html": auditing.to_html}.get(kind, auditing.to_markdown)
    text = auditing.to_json(rows) if as_json else render(rows)
    if output is not None:
        write_text(output, text)
        click.echo(str(output))
    elif as_json or kind != "table":
        click.echo(text)
    else:
        _show_audit(rows, auditing.summary(rows).to_json())


@click.command("check-block")
@click.argument("block")
@json_option
def check_block(block: str, as_json: bool) -> None:
    """Run the contract suite on a block: a known name, or MODULE:CLASS of your own.

    \b
    longrange check-block my_package:MyBlock
    """
    from blocks.contract import report
    from blocks.registry import UnknownBlock

    try:
        found = report(block)
    except UnknownBlock as error:
        raise UserError(str(error)) from error
    except (ValueError, TypeError) as error:  # what is wrong with a check's case is a finding
        raise UserError(f"{block}: its default config is not valid: {error}") from error
    if as_json:
        echo_json({"block": block, **found.to_json()})
    else:
        for line in (*found.lines(), *(f"note: {note}" for note in found.notes)):
            click.echo(line)
    if found.findings:
        raise LongrangeError(f"{block} breaks the contract: {len(found.broken)} of {len(found.checks)} checks")
    if not as_json:
        click.echo(f"{block} keeps the contract: {len(found.checks)} checks, each with {len(found.configs)} configs")


VERBS = (profile, audit, check_block)


def _spec(
    backbone: str, block: str, insert: tuple[str, ...], fields: tuple[str, ...], sizes: dict[str, Any]
) -> ModelSpec:
    import yaml

    chosen: dict[str, Any] = {"name": backbone, **{key: value for key, value in sizes.items() if value is not None}}
    for text in fields:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set takes FIELD=VALUE, given {text!r}")
        chosen[name] = yaml.safe_load(value)
    try:
        parsed = json.loads(block) if block.lstrip().startswith("{") else {"name": block}
    except ValueError as error:
        raise UserError(f"--block is not valid JSON: {error}") from error
    content = {"backbone": chosen, "block": parsed, "insertion": _places(insert)}
    try:
        spec = ModelSpec.model_validate(content)
    except ValidationError as error:
        raise SweepError("profile", explain(error)) from None
    problems = model_problems(spec)
    if problems:
        raise SweepError("profile", problems)
    return spec


def _measured(spec: ModelSpec, options: dict[str, Any]) -> dict[str, Any]:
    from workloads.measure import measure_model

    chosen = {name: options[name] for name in ("device", "batch", "training", "warmup", "samples")}
    try:
        return measure_model(spec, **chosen).to_json()
    except ValueError as error:
        raise UserError(f"--measure: {error}") from error


def _places(insert: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for stage, units in map(_place, insert):
        if stage in found:
            raise UserError(f"--insert names {stage} twice: give all its units in one, e.g. --insert {stage}=0,2")
        found[stage] = units
    return found


def _place(text: str) -> tuple[str, Any]:
    stage, equals, units = text.partition("=")
    if not equals or not (units == "all" or all(part.strip().isdigit() for part in units.split(","))):
        raise UserError(f"--insert takes STAGE=UNITS, e.g. res3=0,2 or res3=all, given {text!r}")
    return stage, "all" if units == "all" else [int(part) for part in units.split(",")]


def _show_profile(spec: ModelSpec, values: dict[str, Any]) -> None:
    click.echo(
        f"{spec.backbone.name} {spec.backbone.frames}x{spec.backbone.size}x{spec.backbone.size}, "
        f"{spec.backbone.classes} classes, block {spec.block.name}"
    )
    parts = [("whole network", values), *((item["stage"], item) for item in values["per_stage"])]
    parts += [(f"  {item['block']} at {item['stage']}.{item['unit']}", item) for item in values["per_block"]]
    shown = [
        [
            name,
            f"{item['params']:,}",
            f"{item['executed_macs'] / 1e9:,.4f}",
            f"{item['peak_activation_bytes'] / 2**20:,.1f}",
        ]
        for name, item in parts
    ]
    echo_table(["part", "params", "executed GMACs / clip", "peak activations MiB"], shown)
    ruled = [[name, *(f"{value:.3f}" for value in item["rules"].values())] for name, item in parts]
    echo_table(["GFLOPs as printed, by rule", *values["rules"]], ruled)
    if "measured" in values:
        _show_measured(values["measured"])


def _show_measured(found: dict[str, Any]) -> None:
    taken, where = found["latency_ms"], found["measured_on"]
    click.echo(
        f"measured {found['step']} at batch {found['batch']} on {where['device']} ({where['device_name']}, "
        f"{where['dtype']}): {found['p50_ms']:.1f} ms median, {found['p95_ms']:.1f} ms 95th percentile, "
        f"{found['clips_per_second']:.2f} clips/s over {len(taken)} samples after {found['warmup']} to warm up"
    )
    peak = found["peak_memory_bytes"]
    if peak is not None:
        click.echo(f"peak memory {peak / 2**20:,.0f} MiB")


def _show_audit(rows: list[Any], summary: dict[str, Any]) -> None:
    shown = [
        [row.paper, row.table, row.model, row.metric, row.published, _ours(row), row.verdict, row.reason]
        for row in rows
        if not row.verdict.startswith("accuracy")
    ]
    echo_table(["paper", "table", "model", "metric", "published", "ours", "verdict", "reason"], shown)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in summary["verdicts"].items())
    click.echo(f"{summary['cells']} cells: {verdicts}")
    click.echo(
        f"exact, close or explained: {summary['accounted_percent']} % of {summary['cost_cells']} costs, "
        f"{summary['own_accounted_percent']} % of the {summary['own_cost_cells']} that the papers counted themselves"
    )


def _ours(row: Any) -> str | None:
    return f"{row.reproduced:.6g}" if isinstance(row.reproduced, float) else row.reproduced
