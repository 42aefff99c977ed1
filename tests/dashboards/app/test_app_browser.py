"""The app in a real browser: pages are drawn without errors or outside requests, and the address holds the view.

The content security policy forbids evaluating strings, so `page.wait_for_function` cannot be used.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import pytest
from attention_maps import keep, seen
from chromium import chromium, needs_chromium

from dashboards.app import create, listen
from orchestrator.records.schema import State

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]
PATIENCE = 30_000  # milliseconds
HOSTILE = "<script>alert(1)</script>"
PAGES = {
    "/": 0,
    "/sweep?sweep=quickstart": 2,
    "/sweep?sweep=quickstart&arm=nl%40res3": 2,
    "/effects?sweep=quickstart&block=hgnl": 4,
    "/compare?sweep=quickstart": 2,
    "/failures?sweep=quickstart": 1,
    f"/trial?sweep=quickstart&trial={1:08x}{0:08x}": 1,
    "/audit": 0,
    "/sweep?sweep=nope": 0,
    "/nowhere": 0,
}


@dataclass
class Visitor:
    """A window, with everything that went wrong in it."""

    page: Any
    base: str
    wrong: list[str] = field(default_factory=list)

    def open(self, address: str) -> None:
        self.page.goto(self.base + address)
        self.page.wait_for_selector("#page h1", timeout=PATIENCE)

    def until(self, script: str) -> Any:
        """Wait until an expression is true in the page."""
        ends = time.monotonic() + PATIENCE / 1000
        while not (found := self.page.evaluate(script)):
            assert time.monotonic() < ends, f"never true: {script}"
            time.sleep(0.05)
        return found

    def arms(self) -> list[str]:
        return [text.strip() for text in self.page.locator("button.swatched").all_inner_texts()]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@contextmanager
def serving(ledger: Path, **options: Any) -> Iterator[str]:
    server = listen(create(ledger, **options), "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def base(quickstart_path: Path) -> Iterator[str]:
    with serving(quickstart_path, refresh=60.0) as address:
        yield address


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start an app for one test; `visit` needs it, so that windows close before their server does."""
    with ExitStack() as servers:
        yield lambda ledger, **options: servers.enter_context(serving(ledger, **options))


@pytest.fixture
def own_ledger(quickstart_path: Path, tmp_path: Path) -> Path:
    """A copy that the test may write to."""
    return Path(shutil.copy(quickstart_path, tmp_path / "ledger.db"))


@pytest.fixture
def visit(browser: Any, base: str, serve: Callable[..., str]) -> Iterator[Callable[..., Visitor]]:
    opened: list[tuple[Any, Visitor]] = []

    def visiting(at: str = base, width: int = 1280, theme: str = "light") -> Visitor:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme)
        visitor = Visitor(context.new_page(), at)
        visitor.page.on("console", lambda said: _complaint(visitor, said))
        visitor.page.on("pageerror", lambda error: visitor.wrong.append(str(error)))
        visitor.page.on("dialog", lambda dialog: (visitor.wrong.append(dialog.message), dialog.dismiss()))
        visitor.page.on("request", lambda asked: _outside(visitor, asked.url))
        opened.append((context, visitor))
        return visitor

    yield visiting
    for context, _ in opened:
        context.close()
    assert [wrong for _, visitor in opened for wrong in visitor.wrong] == []


def _complaint(visitor: Visitor, said: Any) -> None:
    if said.type in ("error", "warning"):
        visitor.wrong.append(f"{said.type}: {said.text}")


def _outside(visitor: Visitor, url: str) -> None:
    if not url.startswith((visitor.base, "data:", "blob:")):
        visitor.wrong.append(f"asked for {url}")


@pytest.mark.parametrize(("address", "graphs"), PAGES.items(), ids=list(PAGES))
@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_every_page_is_drawn(visit: Callable[..., Visitor], address: str, graphs: int, width: int, theme: str) -> None:
    visitor = visit(width=width, theme=theme)
    visitor.open(address)
    visitor.until(f"document.querySelectorAll('.js-plotly-plot .main-svg').length >= {graphs}")
    for at in range(graphs):
        shape = (
            f"document.querySelectorAll('.js-plotly-plot')[{at}].querySelector('.point path, path.point, .hm image')"
        )
        visitor.until(f"{shape} && {shape}.getBoundingClientRect().width > 0")
    assert visitor.page.evaluate("document.documentElement.dataset.theme") == theme
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_newcomer_sees_the_answer_first(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/")
    box = visitor.page.locator(".answer .sentence").bounding_box()
    assert box["y"] + box["height"] < 400
    assert "nl@res3 is best" in visitor.page.inner_text(".sentence")


def test_the_frontier_has_its_blocks_colours(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart")
    visitor.page.wait_for_selector(".js-plotly-plot .point", state="attached", timeout=PATIENCE)
    fills = "[...document.querySelectorAll('.js-plotly-plot')][0].querySelectorAll('.legendpoints path')"
    colours = visitor.page.evaluate(f"[...{fills}].map(path => getComputedStyle(path).fill)")
    assert "rgb(0, 114, 178)" in colours
    shot = visitor.page.locator(".js-plotly-plot").first.screenshot()
    assert len(shot) > 10_000  # an empty chart compresses to less


def test_filters_go_into_the_address_and_come_back_from_it(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart")
    assert len(visitor.arms()) == 21
    visitor.page.fill("input[type=search]", "res3")
    visitor.page.press("input[type=search]", "Enter")
    visitor.until("document.querySelectorAll('button.swatched').length < 21")
    assert "find=res3" in visitor.page.url
    kept, found = visitor.page.url, visitor.arms()
    assert visitor.page.evaluate("document.activeElement.type") == "search"
    other = visit()
    other.open(kept.removeprefix(other.base))
    assert other.arms() == found
    assert other.page.input_value("input[type=search]") == "res3"
    visitor.page.go_back()
    visitor.until("document.querySelectorAll('button.swatched').length == 21")
    assert visitor.page.input_value("input[type=search]") == ""


def test_a_link_may_name_arms_by_label(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/compare?sweep=quickstart&a=nl%40res3&b=bat+k%3D4")
    visitor.page.wait_for_selector(".js-plotly-plot .main-svg", state="attached", timeout=PATIENCE)
    visitor.until("location.search.includes('b=a0')")  # from then on by id
    assert "against bat k=4" in visitor.page.inner_text(".sentence")
    assert "bat k=4" in visitor.page.locator(".pick", has_text="Against").inner_text()


def test_choices_by_keyboard(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart")
    cost = visitor.page.locator(".pick", has_text="Cost").locator("button, [role=combobox]").first
    cost.focus()
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_selector("text=Parameters", timeout=PATIENCE)
    visitor.until("document.activeElement.value == 'executed_macs'")
    visitor.page.keyboard.press("ArrowDown")
    visitor.until("document.activeElement.value == 'params'")
    visitor.page.keyboard.press("Enter")
    visitor.until("location.search.includes('cost=params')")
    visitor.until("document.querySelector('.js-plotly-plot .xtitle')?.textContent.startsWith('Parameters')")


def test_every_way_is_reachable_by_tab(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart")
    names = []
    for _ in range(32):
        visitor.page.keyboard.press("Tab")
        names.append(
            visitor.page.evaluate("document.activeElement.innerText || document.activeElement.ariaLabel || ''")
        )
    assert names[0] == "Skip to content"
    assert {"longrange", "Sweeps", "Answer", "Effects", "Compare", "Failures", "Audit"} <= set(names)
    assert any("cheapest first" in name for name in names)
    assert visitor.page.locator("[data-title*=Share]").count() == 0  # it would send the chart away


def test_click_through_from_point_to_trial(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart&block=se&block=bat")
    point = visitor.page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace path.point").last
    point.wait_for(state="attached", timeout=PATIENCE)
    point.evaluate("node => node.scrollIntoView({block: 'center'})")
    box = point.bounding_box()
    visitor.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
    visitor.page.wait_for_selector(".hoverlayer .hovertext", timeout=PATIENCE)
    visitor.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    visitor.page.wait_for_selector(".card.chosen", timeout=PATIENCE)
    assert "arm=a" in visitor.page.url
    visitor.page.click(".card.chosen >> text=seed 1")
    visitor.until("location.pathname == '/trial'")
    visitor.page.wait_for_selector("text=Run it again", timeout=PATIENCE)


def test_an_arm_is_chosen_in_the_table_and_closed(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/sweep?sweep=quickstart")
    visitor.page.click("button.swatched >> text=bat k=4")
    visitor.page.wait_for_selector(".card.chosen h2 >> text=bat k=4", timeout=PATIENCE)
    visitor.page.click(".card.chosen >> text=Close")
    visitor.until("!document.querySelector('.card.chosen')")
    assert "arm=" not in visitor.page.url


def test_learning_curves_have_room_on_a_phone(visit: Callable[..., Visitor]) -> None:
    visitor = visit(width=390)
    visitor.open("/sweep?sweep=quickstart")
    visitor.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2")
    size = visitor.page.evaluate("document.querySelectorAll('.js-plotly-plot')[1]._fullLayout._size")
    assert size["w"] > 200
    assert size["h"] > 120


def test_the_theme_is_remembered_and_charts_follow(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.open("/compare?sweep=quickstart")
    ink = "getComputedStyle(document.querySelector('.js-plotly-plot .xtick text')).fill"
    visitor.page.wait_for_selector(".js-plotly-plot .xtick text", state="attached", timeout=PATIENCE)
    light = visitor.page.evaluate(ink)
    visitor.page.click("#theme-button")
    visitor.until(f"{ink} != '{light}'")
    visitor.page.reload()
    visitor.page.wait_for_selector(".js-plotly-plot .xtick text", state="attached", timeout=PATIENCE)
    assert visitor.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert visitor.page.evaluate(ink) != light


def test_a_running_sweep_grows_and_keeps_what_was_chosen(
    visit: Callable[..., Visitor], serve: Callable[..., str], tmp_path: Path
) -> None:
    arms = [
        ledgers.Arm("none", {"name": "none"}, {}, 50.0, 0.5, 1_620_000, control=True),
        ledgers.Arm("nl", {"name": "nl"}, {"res3": [0]}, 60.0, 0.5, 1_980_000, states={4: State.RUNNING}),
    ]
    path = ledgers.write(tmp_path / "ledger.db", arms, name=HOSTILE)
    visitor = visit(serve(path, refresh=0.3))
    visitor.open("/")
    visitor.page.click(f"text={HOSTILE} →")
    visitor.page.wait_for_selector("button.swatched", timeout=PATIENCE)
    visitor.page.click("button.swatched >> text=nl")
    visitor.page.wait_for_selector(".card.chosen >> text=▸ running", timeout=PATIENCE)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trials SET state = 'finished', ended_at = started_at + 6 WHERE state = 'running'")
        connection.execute(f"INSERT INTO results VALUES ('{1:08x}{4:08x}', 'top1_percent', 61.25)")
    connection.close()
    visitor.page.wait_for_selector(".card.chosen >> text=61.25", timeout=PATIENCE)
    assert visitor.page.locator(".notice", has_text="Partial").count() == 0
    assert HOSTILE in visitor.page.title()


def test_a_refresh_keeps_what_is_typed_and_leaves_other_charts_alone(
    visit: Callable[..., Visitor], serve: Callable[..., str], own_ledger: Path
) -> None:
    visitor = visit(serve(own_ledger, refresh=0.3))
    visitor.open("/sweep?sweep=quickstart")
    visitor.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2")
    curves = "document.querySelectorAll('.js-plotly-plot')[1]"
    visitor.page.locator("[data-title='Zoom in']").nth(1).dispatch_event("click")
    visitor.page.fill("input[type=search]", "half a wo")
    zoomed = visitor.until(f"{curves}._fullLayout.xaxis.range[0] > 1.1 && {curves}._fullLayout.xaxis.range.join()")
    with sqlite3.connect(own_ledger) as connection:
        connection.execute("UPDATE results SET value = 99.5 WHERE name = 'top1_percent' AND trial_id LIKE '00000002%'")
    connection.close()
    visitor.page.wait_for_selector(".tile >> text=99.5 %", timeout=PATIENCE)
    assert visitor.page.evaluate(f"{curves}._fullLayout.xaxis.range.join()") == zoomed
    assert visitor.page.evaluate("document.activeElement.value") == "half a wo"


@pytest.mark.parametrize("name", ["frontier", "curves"])
def test_a_chart_whose_own_data_change_keeps_its_zoom_and_selection(
    visit: Callable[..., Visitor], serve: Callable[..., str], own_ledger: Path, name: str
) -> None:
    visitor = visit(serve(own_ledger, refresh=0.3))
    visitor.open("/sweep?sweep=quickstart&arm=nl%40res3")
    visitor.until("document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2")
    visitor.until("!document.querySelector('.dash-graph--pending')")
    visitor.page.wait_for_timeout(500)  # dcc.Graph listens only once Plotly has settled
    at = ["frontier", "curves"].index(name)
    chart = f"document.querySelectorAll('.js-plotly-plot')[{at}]"
    ranges = f"[...{chart}._fullLayout.xaxis.range, ...{chart}._fullLayout.yaxis.range].join()"
    data = f"JSON.stringify({chart}.data.map(trace => Array.from(trace.y)))"
    whole, first = visitor.page.evaluate(ranges), visitor.page.evaluate(data)
    visitor.page.locator("[data-title='Zoom in']").nth(at).dispatch_event("click")
    zoomed = visitor.until(f"{ranges} != '{whole}' && {ranges}")
    with sqlite3.connect(own_ledger) as connection:
        connection.execute("UPDATE results SET value = 99.5 WHERE name = 'top1_percent' AND trial_id LIKE '00000002%'")
        connection.execute("UPDATE epoch_metrics SET value = value / 2 WHERE trial_id LIKE '00000002%'")
    connection.close()
    visitor.until(f"{data} != {json.dumps(first)}")
    assert visitor.page.evaluate(ranges) == zoomed
    assert visitor.page.inner_text(".card.chosen h2") == "nl@res3"


def test_attention_stands_side_by_side_and_follows_the_choice(
    visit: Callable[..., Visitor], serve: Callable[..., str], own_ledger: Path
) -> None:
    for arm in (2, 17):
        keep(seen(1 + arm // 16, clips=("near", "far")), own_ledger.parent / "attention" / f"{arm:08x}{0:08x}-k.npz")
    visitor = visit(serve(own_ledger, refresh=60.0), width=390)
    visitor.open("/compare?sweep=quickstart&a=nl%40res3&b=pnl+n%3D4")
    shot = ".js-plotly-plot .imagelayer-above image, .js-plotly-plot .imagelayer image"
    visitor.until(f"document.querySelectorAll('{shot}').length >= 12")
    assert "its label is zero" in visitor.page.inner_text("#page")
    assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    choice = visitor.page.locator(".pick", has_text="Clip").locator("button, [role=combobox]").first
    choice.click()
    visitor.page.click("[role=option] >> text=far")
    visitor.until("location.search.includes('clip=k.1')")
    visitor.until("document.querySelector('#page').innerText.includes('its label is one')")


def test_a_token_opens_the_door_once(
    visit: Callable[..., Visitor], serve: Callable[..., str], quickstart_path: Path
) -> None:
    visitor = visit(serve(quickstart_path, auth_token="s3cret & more", refresh=60.0))
    visitor.page.goto(visitor.base + "/sweep?sweep=quickstart")
    visitor.page.fill("input[name=token]", "s3cret & more")
    visitor.page.click("button")
    visitor.page.wait_for_selector(".answer", timeout=PATIENCE)
    assert "s3cret" not in visitor.page.url
    assert visitor.page.evaluate("document.cookie").count("longrange=") == 0
    visitor.open("/sweep?sweep=quickstart")
    visitor.page.close()
    visitor.wrong[:] = [said for said in visitor.wrong if "401" not in said]  # the form itself
