"""Pieces of pages. Everything from the ledger goes in as a text child or attribute, never as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from dashboards.app.view import View
from dashboards.figures import strip
from dashboards.figures.theme import style
from orchestrator.records.schema import State

Child = Component | str | int | None
PAGE_ROWS = 25  # every cell costs the browser time: with 25 rows a filter shows at once
LEFT_OUT = ["sendChartToCloud", "select2d", "lasso2d"]  # nothing may leave this machine; selections do nothing
STATE_MARKS: Mapping[str, str] = {
    State.FINISHED: "✓",
    State.RUNNING: "▸",
    State.PLANNED: "·",
    State.DIVERGED: "∞",
    State.FAILED: "✕",
    State.INFEASIBLE: "⊘",
    State.CANCELLED: "–",
}
# A strip is an image of its own: the page's style sheet does not reach into it.
STRIP_STYLE = (
    "<style>.reference{stroke:#8490a3;stroke-dasharray:2 2}.seed{opacity:.5}.mean{stroke:#fff;stroke-width:1}</style>"
)


def card(*children: Any, title: str = "", lead: Any = None, css: str = "") -> Component:
    """A section with a heading, a sentence on how to read it, and content."""
    head = [html.H2(title)] if title else []
    said = [html.P(lead, className="lead")] if lead else []
    return html.Section([*head, *said, *children], className=f"card {css}".strip())


def notice(title: str, *text: Any, css: str = "") -> Component:
    """A coloured note."""
    return html.P([html.B(f"{title} "), *text], className=f"notice {css}".strip(), role="status")


def several(data_sets: str) -> list[Component]:
    """How a sweep over several data sets is to be read (`sections.data_sets`); nothing for one."""
    return [notice("Several data sets.", data_sets)] if data_sets else []


def noted(notes: Sequence[str]) -> list[Component]:
    """What trials noted that a reader must know; nothing where they noted nothing."""
    if not notes:
        return []
    inside = [html.B("Noted while training."), html.Ul([html.Li(note) for note in notes])]
    return [html.Div(inside, className="notice", role="status")]


def empty(title: str, *text: Any) -> Component:
    """What stands where there is nothing to show: what is missing and what to do."""
    return html.Section([html.H2(title), html.P(list(text), className="lead")], className="card empty")


def swatch(block: str) -> Component:
    """The block's colour."""
    return html.Span(className="swatch", style={"background": style(block).color}, title=block)


def tag(text: str, title: str | None = None) -> Component:
    """A small label."""
    return html.Span(text, className="tag", title=title)


def state(name: str) -> Component:
    """A trial's state, by word, mark and colour."""
    return html.Span([f"{STATE_MARKS.get(name, '')} {name}"], className=f"state {name}")


def judged(verdict: str) -> str:
    """A verdict by mark and word."""
    mark = {"better": "▲", "worse": "▼", "control": "="}.get(verdict, "?")
    return f"{mark} {verdict}"


def table(head: Sequence[Any], rows: Sequence[Component], label: str) -> Component:
    """A table that scrolls sideways in a narrow window, reachable by keyboard."""
    cells = [each if isinstance(each, Component) else th(each) for each in head]
    inside = html.Table([html.Thead(html.Tr(cells)), html.Tbody(list(rows))])
    return html.Div(inside, className="scroll", tabIndex="0", role="region", **{"aria-label": label})


def th(*text: Any, number: bool = False, css: str = "") -> Component:
    """A heading cell."""
    return html.Th(list(text), scope="col", className=f"{'number' if number else ''} {css}".strip() or None)


def td(*content: Any, number: bool = False, css: str = "", title: str | None = None) -> Component:
    """A cell."""
    return html.Td(list(content), className=f"{'number' if number else ''} {css}".strip() or None, title=title)


def facts(pairs: Mapping[str, Any]) -> Component:
    """Names and values."""
    items = [each for name, value in pairs.items() for each in (html.Dt(name), html.Dd(value))]
    return html.Dl(items)


def tiles(found: Sequence[tuple[str, str, str]]) -> Component:
    """Big number, what it is, how sure."""
    each = [html.Div([html.B(big), html.Span(what), html.Small(sure)], className="tile") for big, what, sure in found]
    return html.Div(each, className="tiles")


def code(text: str) -> Component:
    """A command or file to copy."""
    copy = dcc.Clipboard(content=text, title="copy", className="copy")
    return html.Div([html.Pre(text, tabIndex="0"), copy], className="code")


def pictures(figure: go.Figure, name: str, label: str) -> Component:
    """A figure of pictures in its own size, which a narrow window scrolls: stretched pictures mislead."""
    figure.update_layout(uirevision=name)
    size = {"width": f"{figure.layout.width or 600}px", "height": f"{figure.layout.height}px"}
    config = {"displayModeBar": False, "plotlyServerURL": ""}
    drawn = dcc.Graph(id={"graph": name}, figure=figure, config=config, style=size, responsive=False)
    inside = html.Div(drawn, className="figure", role="img", **{"aria-label": label})
    return html.Div(inside, className="scroll", tabIndex="0", role="region", **{"aria-label": label})


def graph(figure: go.Figure, name: str, label: str, *, keep: str = "", least: int = 0) -> Component:
    """A chart. `keep` names what it shows: while it stays the same, a refresh leaves zoom and legend alone.

    Args:
        figure: the chart.
        name: its place on the page; a click on a point with an arm chooses the arm.
        label: said to those who cannot see it.
        keep: what the view is of.
        least: pixels below which it cannot be read; a narrower window scrolls it.
    """
    figure.update_layout(uirevision=keep or name)
    config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": LEFT_OUT, "plotlyServerURL": ""}
    size = {"height": f"{figure.layout.height or 420}px"}
    drawn = dcc.Graph(id={"graph": name}, figure=figure, config=config, style=size, responsive=True)
    shown = html.Div(drawn, className="figure", role="img", style={"minWidth": f"{least}px"}, **{"aria-label": label})
    if not least:
        return shown
    return html.Div(shown, className="scroll", tabIndex="0", role="region", **{"aria-label": label})


def strip_image(info: strip.StripInfo, scale: tuple[float, float]) -> Component:
    """The seeds of a row as a small picture."""
    drawn = strip.draw(info, scale).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    drawn = drawn.replace("<title>", f"{STRIP_STYLE}<title>", 1)
    said = ", ".join(f"{seed:.1f}" for seed in info.seeds)
    return html.Img(
        src=f"data:image/svg+xml,{quote(drawn)}",
        alt=f"seeds: {said}" if said else "no result",
        width=strip.WIDTH,
        height=strip.HEIGHT,
        title=said,
    )


def choice(
    view: View, name: str, label: str, options: Mapping[str, str], default: str = "", *, chosen: str = ""
) -> Component:
    """A drop-down whose choice is part of the address; `chosen` where the address may spell it otherwise."""
    offered = [{"label": text, "value": value} for value, text in options.items()]
    chosen = chosen or view.one(name, default)
    looks: dict[str, Any] = {"clearable": not default, "searchable": len(options) > 8, "placeholder": "all"}
    box = dcc.Dropdown(offered, chosen or None, id=_id(name, default), **looks)
    return _control(label, box, "choice")


def choices(view: View, name: str, label: str, options: Sequence[str]) -> Component:
    """A drop-down for several values."""
    chosen = [value for value in view.many(name) if value in options]
    box = dcc.Dropdown(list(options), chosen, id=_id(name, ""), multi=True, placeholder="all")
    return _control(label, box, "choice wide")


def search(view: View, name: str, label: str, hint: str) -> Component:
    """A text box whose content is part of the address once it is left or Enter is pressed."""
    box = dcc.Input(
        value=view.one(name), id=_id(name, ""), type="search", debounce=True, placeholder=hint, className="find"
    )
    return _control(label, box, "choice")


def toolbar(*controls: Component) -> Component:
    """Controls in a row."""
    return html.Div(list(controls), className="controls", role="group", **{"aria-label": "Choices"})


def pager(view: View, total: int, noun: str) -> Component:
    """Links to the other pages of a long list; empty for a short one."""
    page, pages = page_of(view, total), -(-total // PAGE_ROWS)
    if pages < 2:
        return html.Div()
    first = (page - 1) * PAGE_ROWS
    said = f"{first + 1}–{min(first + PAGE_ROWS, total)} of {total} {noun}"
    back = dcc.Link("← before", href=view.here(page=str(page - 1))) if page > 1 else html.Span("← before")
    on = dcc.Link("next →", href=view.here(page=str(page + 1))) if page < pages else html.Span("next →")
    return html.Nav([back, html.Span(said), on], className="pager", **{"aria-label": f"Pages of {noun}"})


def page_of(view: View, total: int) -> int:
    """The page asked for, if there are so many."""
    return min(view.number("page"), max(1, -(-total // PAGE_ROWS)))


def paged(view: View, items: Sequence[Any]) -> Sequence[Any]:
    """Those of `items` that are on the page asked for."""
    first = (page_of(view, len(items)) - 1) * PAGE_ROWS
    return items[first : first + PAGE_ROWS]


def _id(name: str, default: str) -> dict[str, str]:
    return {"control": name, "default": default}


def _control(label: str, box: Component, css: str) -> Component:
    return html.Label([html.Span(label), box], className=f"pick {css}")
