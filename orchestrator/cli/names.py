"""Verbs that list what exists: sweeps, blocks, backbones, workloads, schema."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

import click

from orchestrator.cli.common import echo_json, echo_table, json_option
from orchestrator.sweep import Sweep, load_sweep, shipped_sweeps


@click.command()
@json_option
def sweeps(as_json: bool) -> None:
    """The sweeps that come with longrange, with the table each one fills.

    \b
    longrange sweeps
    """
    loaded = {name: load_sweep(name) for name in shipped_sweeps()}
    if as_json:
        echo_json({name: sweep.to_json() for name, sweep in loaded.items()})
        return
    rows = []
    for name, sweep in loaded.items():
        fills = f"{sweep.reproduces.paper.upper()} table {sweep.reproduces.table}" if sweep.reproduces else None
        rows.append([name, sweep.question, fills, sweep.needs or None])
    echo_table(["sweep", "question", "fills", "needs"], rows)


@click.command()
@json_option
def blocks(as_json: bool) -> None:
    """Every long-range block with its choices.

    \b
    longrange blocks
    """
    from blocks import block_names, config_type

    found: dict[str, Any] = {}
    for name in block_names():
        kind = config_type(name)
        choices = {field.name: None if field.default is MISSING else field.default for field in fields(kind)}
        found[name] = {"summary": (kind.__doc__ or "").strip().splitlines()[0], "choices": choices}
    if as_json:
        echo_json(found)
        return
    rows = [
        [name, item["summary"], ", ".join(f"{k}={v}" for k, v in item["choices"].items())]
        for name, item in found.items()
    ]
    echo_table(["block", "what it is", "choices"], rows)


@click.command()
@json_option
def backbones(as_json: bool) -> None:
    """Every backbone with the maps at its stages.

    \b
    longrange backbones
    """
    from workloads.registry import backbone_names, parse_backbone

    found: dict[str, Any] = {}
    for name in backbone_names():
        config = parse_backbone({"name": name})
        stages = {stage: {"units": item.units, "shape": list(item.shape)} for stage, item in config.stages().items()}
        found[name] = {"config": config.to_json(), "stages": stages}
    if as_json:
        echo_json(found)
        return
    rows = []
    for name, item in found.items():
        places = ", ".join(
            f"{stage} {info['units']}x[{'x'.join(map(str, info['shape']))}]" for stage, info in item["stages"].items()
        )
        rows.append([name, item["config"]["frames"], item["config"]["size"], places])
    echo_table(["backbone", "frames", "size", "stages: units x [C x T x H x W]"], rows)


@click.command()
@json_option
def workloads(as_json: bool) -> None:
    """Every workload with what it can and cannot show.

    \b
    longrange workloads
    """
    from workloads.registry import workload_names, workload_type

    found = {
        name: {"title": workload_type(name).title, "caveat": workload_type(name).caveat} for name in workload_names()
    }
    if as_json:
        echo_json(found)
        return
    rows, told = [], {"": ""}
    for name, item in found.items():
        rows.append([name, item["title"], told.get(item["caveat"], item["caveat"])])
        told.setdefault(item["caveat"], f"as for {name}")
    echo_table(["workload", "what it is", "caveat"], rows)


@click.command()
def schema() -> None:
    """The JSON Schema of sweep files, for editors.

    \b
    longrange schema > sweep.schema.json
    """
    click.echo(json.dumps(Sweep.model_json_schema(), indent=2, sort_keys=True))


VERBS = (sweeps, blocks, backbones, workloads, schema)
