"""Docstrings and tables as Markdown: small pure functions that the pages in `generate.py` are made with."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SECTIONS = ("Paper:", "Code consulted:", "Differs from the paper:")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells are one line of Markdown each."""
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [columns, ["---"] * len(columns), *cells])


def plain(text: str) -> str:
    """Prose from a docstring as Markdown: code spans stay, everything else means itself."""
    parts = re.split(r"(`[^`]*`)", text)
    escaped = [part if part.startswith("`") else re.sub(r"([*_<>\[\]\\|])", r"\\\1", part) for part in parts]
    return "".join(escaped)


def blocks_of(text: str) -> str:
    """A docstring's paragraphs as Markdown; indented ones are equations or tables and stay as they are."""
    paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
    return "\n\n".join(part if part.startswith("    ") else plain(part) for part in paragraphs)


def first_sentence(text: str | None) -> str:
    """The first line of a docstring."""
    return (text or "").strip().split("\n")[0]


def sections(docstring: str) -> dict[str, str]:
    """A block's docstring by section: `summary`, `body`, and what follows each of `SECTIONS`."""
    summary, _, rest = docstring.partition("\n")
    found: dict[str, str] = {"summary": summary.strip(), "body": ""}
    current = "body"
    for line in rest.split("\n"):
        name = next((name for name in SECTIONS if line.startswith(name)), None)
        if name is not None:
            current = name.rstrip(":")
            found[current] = line.removeprefix(name).lstrip(":. ") + "\n"
        elif not line.strip() and current != "body":
            current = "body"
            found["body"] += "\n"
        else:
            found[current] += line + "\n"
    dedented = {key: textwrap.dedent(value).strip("\n") if key != "body" else value for key, value in found.items()}
    return {key: _joined(value) if key not in ("body", "summary") else value for key, value in dedented.items()}


def _joined(text: str) -> str:
    return " ".join(text.split())


def attributes(docstring: str | None) -> dict[str, str]:
    """The `Attributes:` of a Google docstring: name -> text."""
    _, _, listed = (docstring or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(listed).split("\n"):
        match = re.match(r"(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif line.startswith(" ") and name:
            found[name] += " " + line.strip()
        elif line.strip():
            break
    return found


def module_docstring(path: Path) -> str:
    """A module's docstring without importing it."""
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
