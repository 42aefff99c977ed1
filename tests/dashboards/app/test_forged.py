"""What no page of ours asks: refused in a line, without a traceback in the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from dashboards.app import create

HERE = {"base_url": "http://localhost:8050"}
CALLBACKS = "/_dash-update-component"
KNOWN = {"output": "version.data", "outputs": {"id": "version", "property": "data"}, "changedPropIds": []}

PAGE = (("url", "pathname"), ("url", "search"), ("version", "data"), ("theme", "data"), ("shown", "data"))


def ask_for_page(client: Any, values: dict[str, Any]) -> Any:
    """The callback that renders an address, with the values of its properties."""
    listed = client.get("/_dash-dependencies", **HERE).json
    (output,) = [each["output"] for each in listed if "page.children" in each["output"]]
    given = [{"id": name, "property": of, "value": values[f"{name}.{of}"]} for name, of in PAGE]
    outputs = [{"id": "page", "property": "children"}, [], []]
    outputs += [{"id": "tabs", "property": "children"}, {"id": "title", "property": "data"}]
    outputs.append({"id": "shown", "property": "data"})
    body = {"output": output, "outputs": outputs, "inputs": given[:4], "state": [given[4], []]}
    return client.post(CALLBACKS, json=body | {"changedPropIds": ["url.pathname"]}, **HERE)


@pytest.fixture(scope="module")
def client(quickstart_path: Path) -> Any:
    return create(quickstart_path).server.test_client()


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        None,
        {"output": "x.y", "outputs": {"id": "x", "property": "y"}, "inputs": [], "changedPropIds": []},
        {"output": "synced.data", "outputs": {"id": "synced", "property": "data"}, "inputs": []},  # the browser's own
        {"output": ["version.data"]},
        {**KNOWN, "inputs": []},
        {**KNOWN, "inputs": None},
        {**KNOWN, "inputs": [1]},
        {**KNOWN, "inputs": [{"id": "tick"}]},
    ],
    ids=repr,
)
def test_an_unknown_callback_is_a_bad_request(client: Any, body: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.post(CALLBACKS, json=body, **HERE)
    assert answer.status_code == 400, answer.text
    assert "reload" in answer.text
    assert caplog.records == []


@pytest.mark.parametrize(
    "forged", [{"url.pathname": 5}, {"url.search": {}}, {"shown.data": "x"}, {"url.pathname": []}], ids=repr
)
def test_values_of_other_kinds_are_a_bad_request(
    client: Any, forged: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    shown = {f"{name}.{of}": None for name, of in PAGE}
    assert ask_for_page(client, shown).status_code == 200
    with caplog.at_level(logging.ERROR):
        answer = ask_for_page(client, shown | forged)
    assert answer.status_code == 400
    assert caplog.records == []


@pytest.mark.parametrize("path", ["nope/x.js", "dash/nope.js"])
def test_an_unknown_script_is_not_found(client: Any, path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answer = client.get(f"/_dash-component-suites/{path}", **HERE)
    assert answer.status_code == 404
    assert caplog.records == []


def test_what_pages_ask_is_answered(client: Any) -> None:
    asked = {**KNOWN, "inputs": [{"id": "tick", "property": "n_intervals", "value": 1}]}
    asked |= {"state": [{"id": "version", "property": "data", "value": "old"}], "changedPropIds": ["tick.n_intervals"]}
    answer = client.post(CALLBACKS, json=asked, **HERE)
    assert answer.status_code == 200
    assert answer.json["response"]["version"]["data"] != "old"


def test_mistakes_of_ours_are_still_told(quickstart_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise KeyError("ours")

    app = create(quickstart_path)
    app.server.add_url_rule("/broken", "broken", broken)
    with caplog.at_level(logging.ERROR):
        answer = app.server.test_client().get("/broken", **HERE)
    assert answer.status_code == 500
    assert "KeyError: 'ours'" in caplog.text
