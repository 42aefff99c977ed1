"""The app's frame: header, live refresh, and the one callback that renders an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import dash
from dash import ALL, ClientsideFunction, Input, Output, State, dcc, html
from dash.development.base_component import Component
from dash.exceptions import CallbackException
from flask import Response, request

from dashboards.app import parts
from dashboards.app.pages import audit, compare, effects, failures, sweep, sweeps, trial
from dashboards.app.parted import Content, Parts
from dashboards.app.plain import compact
from dashboards.app.store import NoSweep, Store
from dashboards.app.view import View, link
from dashboards.errors import UnknownChoice, UnknownSweep
from dashboards.figures.theme import Theme
from orchestrator.errors import LedgerError, LongrangeError

Render = Callable[[View], Content]
PAGES: Mapping[str, tuple[str, Render]] = {
    "/": (sweeps.TITLE, sweeps.render),
    "/sweep": (sweep.TITLE, sweep.render),
    "/effects": (effects.TITLE, effects.render),
    "/compare": (compare.TITLE, compare.render),
    "/failures": (failures.TITLE, failures.render),
    "/audit": (audit.TITLE, audit.render),
    "/trial": (trial.TITLE, trial.render),
}
TABS = ("/sweep", "/effects", "/compare", "/failures")
LOOK = "/look/report.css"
ICON = "/look/icon.svg"
DRAWN_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M2 13 6 6l4 4 4-7" fill="none"
stroke="#0072b2" stroke-width="2.5" stroke-linecap="round"/></svg>"""
INDEX = f"""<!doctype html>
<html lang="en" data-theme="light">
<head>{{%metas%}}<meta name="viewport" content="width=device-width, initial-scale=1"><title>{{%title%}}</title>
<link rel="icon" href="{ICON}">
{{%css%}}</head>
<body>{{%app_entry%}}<noscript><main><h1>longrange</h1><p>This dashboard needs JavaScript; <code>longrange report</code>
writes a page that does not.</p></main></noscript>
<footer>{{%config%}}{{%scripts%}}{{%renderer%}}</footer></body></html>"""


def build(store: Store, refresh: float) -> dash.Dash:
    """The app on `store`, without its guards.

    Args:
        store: the ledger.
        refresh: seconds between looks at whether it changed.
    """
    app = dash.Dash(
        "dashboards.app",
        assets_folder=str(Path(__file__).parent / "assets"),
        external_stylesheets=[LOOK],
        serve_locally=True,
        enable_mcp=False,
        suppress_callback_exceptions=True,  # controls come and go with pages
        title="longrange",
        update_title=None,
        add_log_handler=False,
        index_string=INDEX,
    )
    app.interpolate_index = partial(_index, app)
    app.layout = lambda: _frame(store.version(), refresh)
    app.server.add_url_rule(LOOK, "look", _look)
    app.server.add_url_rule(ICON, "icon", _icon)
    _wire(app, store)
    return app


def _wire(app: dash.Dash, store: Store) -> None:
    address = [Input("url", "pathname"), Input("url", "search")]
    control = {"control": ALL, "default": ALL}
    page = [Output("page", "children"), Output({"slot": ALL}, "children"), Output({"graph": ALL}, "figure")]
    frame = [Output("tabs", "children"), Output("title", "data"), Output("shown", "data")]

    def show(
        path: str | None, search: str | None, _version: str, _theme_changed: str, shown: Any, moved: list[Any]
    ) -> tuple[Any, ...]:
        if not (_is_text(path) and _is_text(search) and isinstance(shown, Mapping | None)):
            raise CallbackException("no page of ours sends this")
        view = View.of(store, path, search, _theme())
        content, tabs, title = render(view)
        parted = Parts.of(compact(content))
        graphs = [each["id"]["graph"] for each in dash.ctx.outputs_list[2]]
        return (*parted.changes(shown, view.path, graphs, moved), tabs, title, parted.shown(view.path))

    def look(_ticks: int, known: str) -> Any:
        now = _version(store)
        return dash.no_update if now == known else now

    refreshed = [Input("version", "data"), Input("theme", "data"), State("shown", "data")]
    refreshed.append(State({"graph": ALL}, "relayoutData"))
    app.callback([*page, *frame], *address, *refreshed)(show)
    # Not at first: the page came with the version, and would be asked for only after this answer.
    watched = [Output("version", "data"), Input("tick", "n_intervals"), State("version", "data")]
    app.callback(*watched, prevent_initial_call=True)(look)
    app.clientside_callback(
        ClientsideFunction("longrange", "controls"),
        Output("synced", "data"),
        Input("url", "search"),
        State(control, "value"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("longrange", "address"),
        Output("url", "search"),
        Input(control, "value"),
        Input({"graph": ALL}, "clickData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(ClientsideFunction("longrange", "title"), Output("titled", "data"), Input("title", "data"))


def _index(app: dash.Dash, **pieces: Any) -> str:
    """The page's frame, in the theme the visitor chose last."""
    page = str(dash.Dash.interpolate_index(app, **pieces))
    return page.replace('data-theme="light"', f'data-theme="{_theme()}"', 1)


def render(view: View) -> tuple[Content, list[Component], str]:
    """Content, navigation and window title of an address; a message where it cannot be shown."""
    name, page = PAGES.get(view.path, ("Not found", _unknown))
    about = view.one("trial")[:8] if view.path == "/trial" else view.one("sweep")
    try:
        content = view.store.timed(lambda: page(view))
    except LongrangeError as error:
        content = _message(view, error)
    return content, _tabs(view), " · ".join(part for part in (name, about, "longrange") if part)


def _frame(version: str, refresh: float) -> Component:
    brand = dcc.Link([html.Span("longrange", className="brand")], href="/", title="All sweeps")
    theme = html.Button("Light or dark", id="theme-button", **{"aria-label": "switch between light and dark"})
    head = html.Header([brand, html.Nav(id="tabs", **{"aria-label": "Pages"}), theme])
    page = html.Div(html.P("Reading the ledger …", className="lead waiting"), id="page")
    return html.Div(
        [
            html.A("Skip to content", href="#page", className="skip"),
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Interval(id="tick", interval=int(1000 * refresh)),
            dcc.Store(id="version", data=version),
            *(dcc.Store(id=name, data=None) for name in ("theme", "shown", "title", "titled", "synced")),
            html.Main([head, page]),
        ]
    )


def _tabs(view: View) -> list[Component]:
    known = view.one("sweep")
    about = {"sweep": known} if known else {}
    found = [_tab(view, "/", "/")]
    if view.path not in ("/", "/audit") or known:
        found += [_tab(view, path, link(path, **about)) for path in TABS]
    return [*found, _tab(view, "/audit", link("/audit", **about))]


def _tab(view: View, path: str, href: str) -> Component:
    css = "place current" if view.path == path else "place"
    return dcc.Link(PAGES[path][0], href=href, className=css, title="this page" if view.path == path else None)


def _unknown(view: View) -> list[Component]:
    return [html.H1("There is no such page"), parts.empty("Nothing here", dcc.Link("All sweeps", href="/"))]


def _message(view: View, error: LongrangeError) -> list[Component]:
    """What is wrong and what to do, instead of a page."""
    if isinstance(error, NoSweep):
        return [html.H1("Nothing has been asked yet"), parts.empty("No sweep", str(error))]
    titles = {UnknownSweep: "There is no such sweep", LedgerError: "The ledger cannot be read now"}
    title = next((text for kind, text in titles.items() if isinstance(error, kind)), "This cannot be shown")
    if isinstance(error, LedgerError):
        do: list[Any] = ["This page tries again by itself."]
    elif isinstance(error, UnknownChoice):
        whole = link(view.path, sweep=view.one("sweep"), trial=view.one("trial"))
        do = ["Open ", dcc.Link("the page without these choices", href=whole), "."]
    else:
        do = ["Check the address, or start from ", dcc.Link("all sweeps", href="/"), "."]
    said = [html.P(str(error)), html.P(do, className="lead")]
    return [html.H1(title), html.Section(said, className="card trouble-card", role="alert")]


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _version(store: Store) -> str:
    """The ledger's version; while it cannot be read, why."""
    try:
        return store.version()
    except LongrangeError as error:
        return f"unreadable: {error}"


def _theme() -> Theme:
    return "dark" if request.cookies.get("longrange-theme") == "dark" else "light"


def _look() -> Response:
    css = (files("dashboards") / "templates" / "report.css").read_bytes()
    return Response(css, mimetype="text/css")


def _icon() -> Response:
    """The window's icon; kept by browsers, which otherwise ask for it again at every change of the address."""
    return Response(DRAWN_ICON, mimetype="image/svg+xml", headers={"Cache-Control": "max-age=86400"})
