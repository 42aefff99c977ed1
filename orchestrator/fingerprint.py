"""Which sources can change a trial's result: one hash over the modules that build, feed, train and measure it.

The hash covers the block's module, the backbone's, the workload's and everything of their own packages that these
import, also inside functions; nothing is imported to find that out, so it is fast and needs no torch. It is cautious:
any change of such a file changes the hash, a comment's too. Only `DECLARATIONS` are left out. Versions of libraries
are not in it, they are in the environment. A finished trial with another fingerprint is shown as such, and the user
decides whether it still counts.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from blocks.registry import BUILTIN, block_type
from workloads.spec import TrialSpec

DIGITS = 16
# Names -> modules, nothing else: what a trial takes from them is in its id, and adding a name must not void results.
DECLARATIONS = frozenset({"blocks.registry", "workloads.registry"})
BUILDER = "workloads.backbones.model"  # joins backbone and block; no config names it


def code_fingerprint(spec: TrialSpec) -> str:
    """16 hex digits over the sources that `spec` is built, trained and measured with."""
    block = BUILTIN[spec.block.name][1] if spec.block.name in BUILTIN else block_type(spec.block.name).__module__
    modules = (block.partition(":")[0], type(spec.backbone).__module__, type(spec.workload).__module__, BUILDER)
    return fingerprint_of(tuple(sorted(set(modules))))


@cache
def fingerprint_of(modules: tuple[str, ...]) -> str:
    """16 hex digits over the sources of `modules` and of all they import from their own packages."""
    packages = frozenset(name.partition(".")[0] for name in modules) | {"blocks", "workloads"}
    total = hashlib.sha256()
    for name in sorted(_closure(modules, packages)):
        content, _ = _source(name)
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()[:DIGITS]


def _closure(modules: Iterable[str], packages: frozenset[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found | DECLARATIONS or name.partition(".")[0] not in packages or _file(name) is None:
            continue
        found.add(name)
        waiting += _source(name)[1]
        waiting.append(name.rpartition(".")[0] or name)  # importing a module runs its packages
    return found


@cache
def _source(name: str) -> tuple[bytes, tuple[str, ...]]:
    """A module's source and the names it may import (some may be attributes, not modules)."""
    file = _file(name)
    assert file is not None
    content = file.read_bytes()
    package = name if file.name == "__init__.py" else name.rpartition(".")[0]
    return content.replace(b"\r\n", b"\n"), tuple(_imports(ast.parse(content), package))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue  # never runs
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node, package)


@cache
def _file(name: str) -> Path | None:
    """The file of a module, found without importing it; None if it is no Python source."""
    top, *rest = name.split(".")
    folder = _folder(top)
    if folder is None:
        return None
    if folder.is_file():
        return folder if not rest else None
    stem = folder.joinpath(*rest)
    files = (stem / "__init__.py", *([stem.with_suffix(".py")] if rest else []))
    return next((file for file in files if file.is_file()), None)


@cache
def _folder(top: str) -> Path | None:
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        return None
    origin = Path(found.origin)
    return origin.parent if origin.name == "__init__.py" else origin
