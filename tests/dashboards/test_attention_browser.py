"""The attention page in a real browser, without a network: pictures are drawn and crosses are where the point is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import chromium, needs_chromium

from dashboards.attention import Network, Seen, write

pytestmark = needs_chromium
GREY = 40


@pytest.fixture
def address(tmp_path: Path) -> str:
    map_thw = np.zeros((2, 4, 4), dtype=np.float32)
    map_thw[1, 0, 0] = 1
    seen = Seen(
        clips=("clip",),
        labels=np.array([1]),
        classes=("no", "yes"),
        frames=np.full((1, 2, 16, 16, 3), GREY, dtype=np.uint8),
        positions=((0, 15, 15),),
        maps={"res3.0": map_thw[None, None, None]},
        top_classes=np.array([[1, 0]]),
        top_scores=np.array([[0.9, 0.1]], dtype=np.float32),
    )
    return write([Network("nl", "nl", 0, seen)], tmp_path / "page.html", title="Where?").as_uri()


def test_the_strongest_cell_is_orange_the_others_are_the_clip(address: str) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(address)
        page.wait_for_selector("[data-drawn=yes] .main-svg", state="attached", timeout=30_000)
        page.wait_for_timeout(500)
        box = page.locator("[data-figure=clip-0-0]").bounding_box()
        places = page.evaluate(_PLACES)
        shot = _pixels(page.screenshot())
        assert page.evaluate("document.documentElement.scrollWidth") <= 1200
    assert said == []
    assert box is not None
    plain, second = places["plots"][0], places["plots"][3]
    assert _at(shot, plain, 0.1, 0.1) == pytest.approx([GREY] * 3, abs=6), "the first row is the clip alone"
    assert _at(shot, second, 0.6, 0.6) == pytest.approx([GREY] * 3, abs=6), "nothing covers what is not looked at"
    red, green, blue = _at(shot, second, 0.1, 0.1)
    assert red > 150 > green > blue
    cross = places["crosses"][0]
    assert cross["x"] == pytest.approx(plain["x"] + plain["width"] * 15.5 / 16, abs=3)
    assert cross["y"] == pytest.approx(plain["y"] + plain["height"] * 15.5 / 16, abs=3)


_PLACES = """() => {
  const middle = (box) => ({x: box.x + box.width / 2, y: box.y + box.height / 2});
  const plain = (box) => ({x: box.x, y: box.y, width: box.width, height: box.height});
  const all = (query) => [...document.querySelectorAll(query)].map((each) => each.getBoundingClientRect());
  const plots = all('.bglayer .bg, .plot .imagelayer image').map(plain);
  return {plots, crosses: all('.scatterlayer .point').map(middle)};
}"""


def _pixels(png: bytes) -> Any:
    from io import BytesIO

    from matplotlib.image import imread

    return imread(BytesIO(png)) * 255


def _at(shot: Any, box: dict[str, float], across: float, down: float) -> list[float]:
    row, column = int(box["y"] + down * box["height"]), int(box["x"] + across * box["width"])
    return [float(value) for value in shot[row, column, :3]]
