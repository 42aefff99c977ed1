"""The report in a real browser, without a network: charts are really drawn, both themes work, narrow windows fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, needs_chromium

import dashboards
from dashboards import report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def address(quickstart: dashboards.Sweep, tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        {"row_id": name, "paper": "rnl", "metric": "gflops", "published": published, "executed": executed}
        for name, published, executed in (("a", 10.0, 12.0), ("b", 20.0, 48.0), ("c", 30.0, 24.0))
    ]
    folder: Path = tmp_path_factory.mktemp("report")
    return report.write(quickstart, folder / "report.html", audit_rows=rows).as_uri()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_every_chart_is_drawn_offline(browser: Any, address: str, theme: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=theme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url != address else None)
    page.goto(address)
    for box in page.query_selector_all("[data-figure]"):
        box.scroll_into_view_if_needed()
        box.wait_for_selector(".main-svg", state="attached", timeout=30_000)
    assert said == []
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    marks = page.evaluate("document.querySelectorAll('[data-figure=frontier] .point').length")
    assert marks > 21
    page.close()


def test_the_answer_is_on_the_first_screen_and_needs_no_script(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False, viewport={"width": 1280, "height": 720})
    page = context.new_page()
    page.goto(address)
    box = page.query_selector(".sentence").bounding_box()
    assert box["y"] + box["height"] < 720
    assert page.locator("tbody svg").count() >= 21
    context.close()


def test_theme_and_zoom_buttons_redraw(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
    page.goto(address)
    page.wait_for_selector("[data-figure=frontier] .main-svg", timeout=30_000)
    ink = "getComputedStyle(document.querySelector('[data-figure=frontier] .xtick text')).fill"
    before = page.evaluate(ink)
    page.click("#theme")
    assert page.evaluate(ink) != before
    lowest = "document.querySelector('[data-figure=frontier]')._fullLayout.yaxis.range[0]"
    before = page.evaluate(lowest)
    page.click("text=Zoom to the best")
    page.wait_for_function(f"{lowest} > {before} + 10")
    page.click("text=All arms")
    page.wait_for_function(f"Math.abs({lowest} - {before}) < 1e-6")
    page.close()


def test_print_is_light_and_whole(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    page.goto(address)
    page.wait_for_selector("[data-figure=frontier] .main-svg", timeout=30_000)
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 within Chromium's margins
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"
    assert page.evaluate(wide) == 0
    cut = "[...document.querySelectorAll('.main-svg')].filter(svg => svg.getBoundingClientRect().right > 718).length"
    assert page.evaluate(cut) == 0
    assert page.locator("[data-figure]:not(:has(.main-svg))").count() == 0
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


def test_nothing_can_be_sent_away(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("[data-figure=frontier] .modebar-btn", state="attached", timeout=30_000)
    names = page.eval_on_selector_all(".modebar-btn", "found => found.map(each => each.dataset.title)")
    assert "Download plot" in names
    assert [name for name in names if "hare" in name or "loud" in name] == []
    page.close()
