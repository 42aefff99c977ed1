"""Markup that no callback names is sent as plain trees, and nothing in them is read as markup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from components import find
from dash import dcc, html
from plotly.io.json import to_json_plotly

from dashboards.app.parted import Parts, _inside
from dashboards.app.plain import Plain, compact
from dashboards.figures import theme


def test_markup_becomes_nested_lists_whose_texts_stay_texts() -> None:
    found = compact(html.P(["<b>x</b> ", None, [html.B("n"), 3]], className="lead", title=None))
    assert isinstance(found, Plain)
    assert found.tree == ["p", {"className": "lead"}, "<b>x</b> ", ["b", {}, "n"], 3]


def test_attributes_with_dashes_and_styles_are_kept() -> None:
    button = html.Button("a", style={"borderLeftColor": "#fff"}, **{"data-choose": "arm", "aria-label": "choose"})
    assert compact(button).tree == [
        "button",
        {"style": {"borderLeftColor": "#fff"}, "data-choose": "arm", "aria-label": "choose"},
        "a",
    ]


def test_what_callbacks_know_stays_and_markup_beside_it_is_compacted() -> None:
    box = dcc.Input(id={"control": "find", "default": ""}, value="x")
    page = html.Div([html.P("one"), html.Label([html.Span("Find"), box])])
    found = compact(page)
    assert isinstance(found, html.Div)
    assert found.children[0].tree == ["p", {}, "one"]
    assert found.children[1].children[0].tree == ["span", {}, "Find"]
    assert found.children[1].children[1] is box
    assert isinstance(page.children[0], html.P)  # what was given is left as it was


def test_an_element_with_an_id_stays() -> None:
    assert isinstance(compact(html.Nav(id="tabs")), html.Nav)


def test_links_within_the_app_are_marked_and_dangerous_ones_left_to_dash() -> None:
    assert compact(dcc.Link("go", href="/sweep?a=1")).tree == ["a", {"href": "/sweep?a=1", "data-inside": ""}, "go"]
    assert compact(html.A("run", href="https://mlflow/x")).tree[1] == {"href": "https://mlflow/x"}
    for href in ("javascript:alert(1)", "data:text/html,x", " javascript:alert(1)"):
        assert not isinstance(compact(html.A("run", href=href)), Plain)
        assert not isinstance(compact(html.P(html.A("run", href=href))), Plain)


def test_a_link_to_another_host_is_not_taken_for_one_within() -> None:
    assert not isinstance(compact(dcc.Link("out", href="//elsewhere/x")), Plain)
    assert not isinstance(compact(dcc.Link("out", href="https://elsewhere/x")), Plain)


def test_figures_become_plain_values_and_keep_their_digest() -> None:
    figure = theme.figure("light").add_scatter(x=[1, 2], y=[3, 4])
    drawn = dcc.Graph(id={"graph": "frontier"}, figure=figure)
    found = compact([html.Div(drawn)])
    sent = found[0].children.figure
    assert type(sent) is dict
    assert Parts.of(found).figures["frontier"][0]["data"][0]["type"] == "scatter"
    assert to_json_plotly(sent) == to_json_plotly(figure)
    assert drawn.figure is figure


@pytest.mark.parametrize("page", ["/", "/sweep", "/failures"])
def test_a_page_is_few_components_for_dash(quickstart_path: Path, show: Callable[..., Any], page: str) -> None:
    content, _ = show(quickstart_path, page, "?sweep=quickstart" if page != "/" else "")
    assert sum(1 for _ in _inside(compact(content))) < 50
    if page == "/sweep":
        assert sum(1 for _ in _inside(content)) > 200
        assert find(content, "Tbody")
