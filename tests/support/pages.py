"""The pages of the documentation that people write, and what stands in their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in DOCS.rglob("*.md") if not {"examples", "changes"} & set(path.parts))
OUTSIDE = [
    ROOT / name for name in ("README.md", "docker/README.md", "blocks/README.md", "SECURITY.md", "CONTRIBUTING.md")
]


def fences(path: Path, language: str) -> list[str]:
    """The contents of a page's code blocks in one language."""
    return re.findall(
        rf"^ *```{language}[^\n]*\n(.*?)^ *```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands(path: Path) -> list[str]:
    lines = "\n".join(fences(path, "sh")).replace("\\\n", " ").split("\n")
    return [line.partition("   #")[0].strip() for line in lines if line.startswith("longrange ")]
