"""What a new rendering changes of the page that is open.

Dash mounts anew whatever a callback returns as children: focus, open lists, zoom and scroll would be lost at every
refresh. So a page is a row of slots; only slots whose content differs are sent, charts in a slot that stays get a new
figure if theirs changed, and values of controls never count as a difference: the browser has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dash
from dash import dcc, html
from dash.development.base_component import Component
from plotly.io.json import to_json_plotly

Content = Sequence[Component | None]


@dataclass(frozen=True)
class Parts:
    """A rendered page: each slot's digest, and each chart's.

    Attributes:
        content: components, None for a slot that is empty now.
        slots: digests by place, without figures and control values.
        figures: (figure as a dict, digest) by the chart's name.
        places: the slot that holds each chart.
    """

    content: Content
    slots: tuple[str, ...]
    figures: Mapping[str, tuple[Mapping[str, Any], str]]
    places: Mapping[str, int]

    @classmethod
    def of(cls, content: Content) -> Parts:
        """Take the digests of a page that `plain.compact` made ready."""
        slots, figures, places = [], {}, {}
        for place, component in enumerate(content):
            left_out = []
            for each in _inside(component):
                prop = _loose(each)
                if prop is None:
                    continue
                value: Any = getattr(each, prop, None)
                left_out.append((each, prop, value))
                setattr(each, prop, None)
                if prop == "figure":
                    figures[each.id["graph"]] = (value, _digest(value))
                    places[each.id["graph"]] = place
            slots.append(_digest(component))
            for each, prop, value in left_out:
                setattr(each, prop, value)
        return cls(content, tuple(slots), figures, places)

    def shown(self, address: str) -> dict[str, Any]:
        """What the browser remembers of it until the next change."""
        figures = {name: [digest, _revision(figure)] for name, (figure, digest) in self.figures.items()}
        return {"address": address, "slots": list(self.slots), "figures": figures}

    def whole(self) -> list[Component]:
        """Every slot."""
        return [html.Div(each, id={"slot": place}) for place, each in enumerate(self.content)]

    def changes(
        self, before: Mapping[str, Any] | None, address: str, graphs: Sequence[str], moved: Sequence[Any] = ()
    ) -> tuple[Any, Any, Any]:
        """(page, slots, figures) to send to a browser that shows `before`.

        Args:
            before: what `shown` gave it last.
            address: the page's path.
            graphs: the charts it has.
            moved: what its visitor did last to each chart's axes (Plotly's `relayoutData`).
        """
        zoomed = {name: _is_zoom(last) for name, last in zip(graphs, moved, strict=False)}
        known = before or {}
        slots = known.get("slots") or []
        if known.get("address") != address or len(slots) != len(self.slots):
            return self.whole(), [dash.no_update] * len(slots), [dash.no_update] * len(graphs)
        changed = [old != new for old, new in zip(slots, self.slots, strict=True)]
        children = [each if new else dash.no_update for each, new in zip(self.content, changed, strict=True)]
        return (
            dash.no_update,
            children,
            [self._figure(name, changed, known["figures"], zoomed.get(name, False)) for name in graphs],
        )

    def _figure(self, name: str, changed: Sequence[bool], known: Mapping[str, Sequence[str]], zoomed: bool) -> Any:
        if name not in self.figures or changed[self.places[name]]:
            return dash.no_update  # it goes, or comes with its slot
        figure, digest = self.figures[name]
        old, revision = known.get(name) or ("", "")
        if old == digest:
            return dash.no_update
        return _within_axes(figure) if zoomed and revision == _revision(figure) else figure


def _inside(node: Any) -> Iterator[Component]:
    if isinstance(node, list | tuple):
        for each in node:
            yield from _inside(each)
    elif isinstance(node, Component):
        yield node
        yield from _inside(getattr(node, "children", None))


def _loose(component: Component) -> str | None:
    """The property that may differ without mounting the slot anew."""
    if isinstance(component, dcc.Graph):
        return "figure"
    named = getattr(component, "id", None)
    return "value" if isinstance(named, dict) and "control" in named else None


def _revision(figure: Mapping[str, Any]) -> str:
    """What the chart's view is of (`parts.graph`)."""
    return str(figure["layout"].get("uirevision") or "")


def _is_zoom(last: Any) -> bool:
    return isinstance(last, dict) and any(".range" in str(key) for key in last)


def _within_axes(figure: Mapping[str, Any]) -> dash.Patch:
    """A figure's content for axes that stay where the visitor moved them.

    Plotly's `uirevision` is meant for this, but dcc.Graph writes every zoom into its own figure, after which Plotly
    takes it for the server's and drops it at the next figure.
    """
    patch = dash.Patch()
    patch["data"] = figure["data"]
    for name, value in {"annotations": [], "shapes": [], **figure["layout"]}.items():
        if name[1:].startswith("axis"):
            for key in set(value) - {"range", "autorange"}:
                patch["layout"][name][key] = value[key]
        else:
            patch["layout"][name] = value
    return patch


def _digest(value: Any) -> str:
    return hashlib.sha1(to_json_plotly(value).encode(), usedforsecurity=False).hexdigest()
