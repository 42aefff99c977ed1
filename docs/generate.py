"""Pages made from the code. MkDocs calls `on_files` when it builds; `python docs/generate.py` renews blocks/README.md.

Nothing here states a fact of its own. Names, choices, docstrings, options and counts are read where they are defined.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import click
from docstrings import attributes, blocks_of, first_sentence, module_docstring, plain, sections, table
from speed import speed_page

ROOT = Path(__file__).resolve().parents[1]


# Pages


def block_file(name: str) -> Path:
    """Where a built-in block is defined."""
    from blocks.registry import BUILTIN

    return ROOT / (BUILTIN[name][1].partition(":")[0].replace(".", "/") + ".py")


def blocks_page() -> str:
    """Every built-in block: equations, choices, differences."""
    from blocks.registry import BUILTIN

    parts = [
        "# Blocks",
        "`longrange blocks` prints this list. Every choice can be an axis of a sweep: `block.kernel`, `block.g1`, ...",
    ]
    for name in BUILTIN:
        parts.append(_block_section(name))
    return "\n\n".join(parts)


def _block_section(name: str) -> str:
    from blocks.registry import config_type

    config = config_type(name)
    told = sections(module_docstring(block_file(name)))
    choices = attributes(config.__doc__)
    hints = get_type_hints(config)
    rows = [
        [
            f"`{field.name}`",
            f"`{_value(field.default)}`",
            f"`{_type(hints[field.name])}`",
            plain(choices.get(field.name, "")),
        ]
        for field in fields(config)
    ]
    parts = [f"## `{name}`", plain(told["summary"]), blocks_of(told["body"])]
    parts += [
        f"**{key}:** {plain(told[key])}" for key in ("Paper", "Code consulted", "Differs from the paper") if key in told
    ]
    if rows:
        parts.append(table(["choice", "default", "type", "meaning"], rows))
    return "\n\n".join(part for part in parts if part.strip())


def _value(value: Any) -> str:
    if value is MISSING:
        return "required"
    return json.dumps(value) if not isinstance(value, str) else value


def _type(hint: Any) -> str:
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return text.replace("typing.", "").replace("|", "or")


def backbones_page() -> str:
    """Every backbone with the maps at its stages."""
    from workloads.registry import backbone_names, parse_backbone

    rows = []
    for name in backbone_names():
        config = parse_backbone({"name": name})
        stages = [
            f"{stage}: {item.units} × [{', '.join(map(str, item.shape))}]" for stage, item in config.stages().items()
        ]
        rows.append([f"`{name}`", config.frames, config.size, "<br>".join(stages)])
    return (
        "# Backbones\n\nMaps are `[channels, frames, height, width]` after each unit of a stage, at the default frames "
        "and size. `longrange backbones --json` has every field.\n\n"
        + table(["name", "frames", "size", "stages: units × map"], rows)
    )


def workloads_page() -> str:
    """Every workload with its fields and what it cannot show."""
    from workloads.registry import workload_names, workload_type

    parts = ["# Workloads", "What a sweep trains and evaluates on: `base: {workload: NAME}`."]
    for name in workload_names():
        kind = workload_type(name)
        parts += [f"## `{name}`", f"{plain(kind.title)}."]
        if kind.caveat:
            parts.append(f"!!! warning\n    {plain(kind.caveat)}")
        parts += [blocks_of(textwrap.dedent((kind.__doc__ or "").partition("Attributes:")[0])), _fields(kind)]
    return "\n\n".join(part for part in parts if part.strip())


def recipes_page() -> str:
    """Every recipe and protocol preset with its values."""
    from workloads.protocols import PROTOCOLS, Protocol
    from workloads.recipes import RECIPES, Recipe

    parts = [
        "# Recipes and protocols",
        "`recipe: rnl` takes a preset, `recipe: {name: rnl, epochs: 10}` changes it.",
        "## Recipes",
    ]
    for title, kind, presets in (("", Recipe, RECIPES), ("## Protocols", Protocol, PROTOCOLS)):
        plain_values = kind().model_dump()
        rows = []
        for name, preset in presets.items():
            own = {
                key: value for key, value in preset.model_dump().items() if value != plain_values[key] and key != "name"
            }
            rows.append(
                [f"`{name}`", ", ".join(f"`{key}={_value(value)}`" for key, value in own.items()) or "the defaults"]
            )
        parts += [title, table(["name", "differs from the defaults in"], rows), _fields(kind)]
    return "\n\n".join(part for part in parts if part.strip())


def _fields(kind: Any) -> str:
    told: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        told |= attributes(parent.__doc__)
    rows = [
        [f"`{name}`", f"`{_value(field.get_default(call_default_factory=True))}`", plain(told.get(name, ""))]
        for name, field in kind.model_fields.items()
        if not field.is_required()
    ]
    return table(["field", "default", "meaning"], rows)


def cli_page() -> str:
    """Every verb with its help and options."""
    from orchestrator.cli import cli

    parts = [
        "# Command line",
        "Exit codes: 0 done, 1 something failed (a trial, a database, a block that breaks the contract), 2 something "
        "given cannot be used, 130 interrupted. `longrange VERB --help` shows what follows.",
    ]
    for path, command in verbs(cli):
        parts.append(_verb_section(path, command))
    return "\n\n".join(parts)


def verbs(group: click.Group, prefix: tuple[str, ...] = ("longrange",)) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command below `group` with its words."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        words = (*prefix, name)
        found += verbs(command, words) if isinstance(command, click.Group) else [(words, command)]
    return found


def _verb_section(words: tuple[str, ...], command: click.Command) -> str:
    usage = command.get_usage(click.Context(command, info_name=" ".join(words))).removeprefix("Usage: ")
    told, _, example = inspect.cleandoc(command.help or "").partition("\b\n")
    parts = [f"## `{' '.join(words)}`", plain(told.strip()), f"```text\n{' '.join(usage.split())}\n```"]
    if example.strip():
        parts.append(f"Example:\n\n```sh\n{example.strip()}\n```")
    rows = [
        [", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts)), plain(meaning(option))]
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return "\n\n".join([*parts, table(["option", "meaning"], rows)] if rows else parts)


def meaning(option: click.Option) -> str:
    """An option's help, its choices and its default, as far as there are any."""
    choices = f"one of {', '.join(option.type.choices)}" if isinstance(option.type, click.Choice) else ""
    given = option.default if isinstance(option.default, str | int) and not option.is_flag else None
    default = f"default {given}" if given is not None and "efault" not in (option.help or "") else ""
    told = "; ".join(filter(None, (choices, default)))
    return " ".join(filter(None, (option.help, told and f"({told})")))


def sweeps_page() -> str:
    """Every shipped sweep with its question and file."""
    from orchestrator.sweep import find_sweep, load_sweep, shipped_sweeps

    parts = ["# Shipped sweeps", "`longrange plan NAME` shows each without running it; `longrange sweeps` lists them."]
    for name in shipped_sweeps():
        sweep = load_sweep(name)
        parts += [f"## `{name}`", plain(sweep.question)]
        if sweep.reproduces:
            parts.append(
                f"Fills {sweep.reproduces.paper.upper()} table {plain(sweep.reproduces.table)}. "
                f"{plain(sweep.reproduces.note)}"
            )
        if sweep.needs:
            parts.append(f"Needs: {plain(sweep.needs)}")
        parts.append(f"```yaml\n{find_sweep(name).read_text(encoding='utf-8').strip()}\n```")
    return "\n\n".join(part for part in parts if part.strip())


def schema_page() -> str:
    """The keys of a sweep file, from its JSON Schema."""
    from orchestrator.sweep import Sweep

    schema = Sweep.model_json_schema()
    parts = [
        "# Keys of a sweep file",
        "From `longrange schema`, which prints the JSON Schema for editors. How axes compose is told in "
        "[Sweep files](sweep-files.md).",
    ]
    for title, kind in (("Sweep", schema), *sorted(schema.get("$defs", {}).items())):
        if "properties" not in kind:
            continue
        told = attributes(kind.get("description"))
        rows = [
            [f"`{key}`", f"`{_value(item['default'])}`" if "default" in item else "", plain(told.get(key, ""))]
            for key, item in kind["properties"].items()
        ]
        parts += [
            f"## {title}",
            plain(first_sentence(kind.get("description"))),
            table(["key", "default", "meaning"], rows),
        ]
    return "\n\n".join(part for part in parts if part.strip())


def audit_page() -> str:
    """Published costs against what runs, table by table."""
    from orchestrator.audit import audit, rank_changes, summary

    rows = audit()
    counts = summary(rows)
    parts = [
        "# Published costs, cell by cell",
        f"The papers print {counts.cells} numbers. {counts.accuracy_cells} are accuracies, which need training; of the "
        f"{counts.own_cost_cells} costs that the papers counted themselves, {counts.own_accounted_percent:.1f} % come "
        "out exactly, closely, or differ for a reason that was checked. `longrange audit` prints all of them.",
        "*Executed* is every multiply-accumulate that runs, in billions, attention products included (1 MAC = 2 "
        "FLOPs). *Published* is as printed, *reproduced* is ours under that paper's own rule.",
    ]
    for paper in dict.fromkeys(row.paper for row in rows):
        costs = [row for row in rows if row.paper == paper and row.metric == "gflops" and row.published.strip("- ")]
        if not costs:
            continue
        shown = [
            [
                plain(row.table),
                plain(row.model),
                row.published,
                _number(row.reproduced),
                _number(row.executed),
                row.verdict,
                plain(row.reason),
            ]
            for row in costs
        ]
        columns = ["table", "model", "published", "reproduced", "executed GMACs", "verdict", "reason"]
        parts += [f"## {paper.upper()}", table(columns, shown)]
    moved = [change for change in rank_changes(rows) if change.changed]
    shown = [
        [
            c.paper.upper(),
            plain(c.table),
            plain(c.model),
            c.published_rank,
            c.executed_rank,
            c.published_gflops,
            _number(c.executed_gmacs),
        ]
        for c in moved
    ]
    columns = ["paper", "table", "model", "rank as printed", "rank by what runs", "published", "executed GMACs"]
    parts += ["## Whose place among its neighbours changes", table(columns, shown)]
    return "\n\n".join(parts)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value)) if value is not None else ""


def cached(name: str, make: Callable[[], str], sources: Sequence[str]) -> str:
    """The page, remade only when one of its sources changed: counting 90 networks takes half a minute."""
    digest = hashlib.sha256()
    for source in ("docs/generate.py", *sources):
        path = ROOT / source
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".yaml", ".csv"):
                digest.update(file.read_bytes())
    kept = ROOT / "build" / "docs" / f"{name}-{digest.hexdigest()[:16]}.md"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        aside = kept.with_suffix(".tmp")
        aside.write_text(make(), encoding="utf-8")
        aside.replace(kept)
    return kept.read_text(encoding="utf-8")


def kept_audit_page() -> str:
    """`audit_page`, kept between builds."""
    sources = ("orchestrator/audit", "orchestrator/published", "workloads/counting", "workloads/backbones", "blocks")
    return cached("audit", audit_page, sources)


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli_page,
    "reference/blocks.md": blocks_page,
    "reference/speed.md": speed_page,
    "reference/backbones.md": backbones_page,
    "reference/workloads.md": workloads_page,
    "reference/recipes.md": recipes_page,
    "reference/sweeps.md": sweeps_page,
    "reference/sweep-keys.md": schema_page,
    "reference/audit.md": kept_audit_page,
}


def decisions() -> list[tuple[str, str]]:
    """Title and path of every recorded decision."""
    found = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    return [
        (path.read_text(encoding="utf-8").split("\n")[0].removeprefix("# "), f"decisions/{path.name}") for path in found
    ]


def on_config(config: Any) -> Any:
    """MkDocs: the decisions go into the navigation as they are found."""
    config["nav"].append({"Design decisions": [{title: path} for title, path in decisions()]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: add the pages that are made from the code."""
    from mkdocs.structure.files import File

    for uri, make in PAGES.items():
        files.append(File.generated(config, uri, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """MkDocs: where tables are wide, they get the place beside them, too."""
    if page.file.src_uri in ("compare.md", "reference/speed.md", "reference/audit.md"):
        page.meta["hide"] = ["toc"]


# blocks/README.md

BEGIN, END = "<!-- generated: python docs/generate.py -->", "<!-- end -->"


def differences() -> str:
    """One row per built-in block: paper and what differs from it."""
    from blocks.registry import BUILTIN

    rows = []
    for name in BUILTIN:
        told = sections(module_docstring(block_file(name)))
        file = block_file(name).name
        rows.append(
            [f"[`{name}`]({file})", plain(told.get("Paper", "")), plain(told.get("Differs from the paper", ""))]
        )
    return table(["block", "paper", "differs from the paper"], rows)


def blocks_readme(text: str) -> str:
    """`text` with its generated part renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{differences()}\n\n{END}{after}"


def main() -> None:
    """Renew blocks/README.md; with `--check`, fail if it is not up to date."""
    path = ROOT / "blocks" / "README.md"
    old = path.read_text(encoding="utf-8")
    new = blocks_readme(old)
    if "--check" in sys.argv[1:]:
        sys.exit(0 if old == new else "blocks/README.md is out of date: run python docs/generate.py")
    path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
