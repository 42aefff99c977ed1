"""What nothing reacts to, as plain elements: a table is one component for Dash, not hundreds.

Dash keeps books on every component, and each change of the page asks every one of them: of a page with a table that
was most of what a filter took. So markup without an id, which no callback can name, is sent as nested lists, and
assets/app.js makes elements of them. Texts stay texts and attributes attributes: nothing here is ever read as markup.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar, TypeAlias, cast

from dash import dcc
from dash.development.base_component import Component

Tree: TypeAlias = list[Any]  # [tag, attributes, *children]: children are trees, texts and numbers
HTML = "dash_html_components"
OUTSIDE = ("http://", "https://")


class Plain(Component):  # type: ignore[misc]  # dash has no types
    """Elements as a tree; drawn by `longrange.Plain` in assets/app.js."""

    _namespace = "longrange"
    _type = "Plain"
    _prop_names: ClassVar[list[str]] = ["tree"]
    _valid_wildcard_attributes: ClassVar[list[str]] = []
    tree: Tree

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree=tree)


def compact(node: Any) -> Any:
    """`node` with the largest possible parts as `Plain` and figures as dicts; what callbacks know stays a component."""
    found = _tree(node) if isinstance(node, Component) else None
    if found is not None:
        return Plain(found)
    if isinstance(node, list | tuple):
        return [compact(each) for each in node]
    if isinstance(node, dcc.Graph):
        return _drawn(node)
    if not isinstance(node, Component) or not hasattr(node, "children"):
        return node
    kept = copy.copy(node)
    kept.children = compact(node.children)
    return kept


def _drawn(graph: dcc.Graph) -> dcc.Graph:
    """A chart with its figure as plain values: those are written, twice, in a fraction of the time."""
    kept = copy.copy(graph)
    kept.figure = graph.figure.to_dict()
    return kept


def _tree(component: Component) -> Tree | None:
    """The elements of a component; None if Dash must know it or something in it."""
    tag = _tag(component)
    if tag is None:
        return None
    properties = cast("dict[str, Any]", component.to_plotly_json()["props"])
    children = _flat(properties.pop("children", None))
    trees = [_tree(each) if isinstance(each, Component) else each for each in children]
    if any(each is None for each in trees):
        return None
    given = {name: value for name, value in properties.items() if value is not None}
    if isinstance(component, dcc.Link):
        given["data-inside"] = ""
    return [tag, given, *trees]


def _tag(component: Component) -> str | None:
    """The element's name, where it is only markup."""
    if getattr(component, "id", None) is not None:
        return None
    href = str(getattr(component, "href", None) or "")
    inside = href.startswith("/") and not href.startswith("//")
    if isinstance(component, dcc.Link):
        return "a" if inside else None
    if href and not inside and not href.startswith(OUTSIDE):
        return None  # Dash refuses the dangerous ones
    return component._type.lower() if component._namespace == HTML else None


def _flat(children: Any) -> list[Any]:
    """Children without the holes and the nesting that Dash allows."""
    if isinstance(children, list | tuple):
        return [each for child in children for each in _flat(child)]
    return [] if children is None else [children]
