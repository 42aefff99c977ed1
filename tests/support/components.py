"""Looking into trees of Dash components."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def texts(node: Any) -> Iterator[str]:
    """Every text in a component's tree, in order."""
    if isinstance(node, str | int | float):
        yield str(node)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from texts(each)
    elif node is not None:
        yield from texts(getattr(node, "children", None))


def find(node: Any, kind: str) -> list[Any]:
    """Every component of a type (its class's name) in a tree."""
    if isinstance(node, list | tuple):
        return [found for each in node for found in find(each, kind)]
    here = [node] if type(node).__name__ == kind else []
    children = getattr(node, "children", None)
    return here + (find(children, kind) if children is not None else [])
