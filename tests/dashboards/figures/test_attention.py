from __future__ import annotations

import numpy as np
import pytest

from dashboards.figures.attention import draw, info, top_regions

FRAMES = np.random.default_rng(0).uniform(0, 1, (4, 16, 14))


def test_every_map_is_laid_over_every_frame() -> None:
    found = info(FRAMES, {"nl": np.ones((4, 8, 7)), "bat": np.eye(7)[None].repeat(2, axis=0)}, (1, 3, 2))
    chart = draw(found)
    assert [trace.type for trace in chart.data].count("image") == 8
    overlays = [trace for trace in chart.data if trace.type == "heatmap"]
    assert len(overlays) == 8
    assert {float(np.max(trace.z)) for trace in overlays} == {1.0}


def test_cells_cover_the_picture_and_the_reference_sits_in_its_cell() -> None:
    chart = draw(info(FRAMES, {"nl": np.ones((4, 8, 7))}, (2, 3, 2)))
    overlay = next(trace for trace in chart.data if trace.type == "heatmap")
    np.testing.assert_allclose(overlay.x, np.arange(7) * 2 + 0.5)
    np.testing.assert_allclose(overlay.y, np.arange(8) * 2 + 0.5)
    (cross,) = [trace for trace in chart.data if trace.type == "scatter"]
    assert (cross.x[0], cross.y[0], cross.xaxis) == (4.5, 6.5, "x3")


def test_grey_floats_and_colour_bytes_become_pictures() -> None:
    found = info(FRAMES, {})
    assert found.frames.shape == (4, 16, 14, 3)
    assert (found.frames.min(), found.frames.max()) == (0, 255)
    colour = np.full((2, 4, 4, 3), 7, dtype=np.uint8)
    np.testing.assert_array_equal(info(colour, {}).frames, colour)
    assert draw(found).layout.annotations[0].text == "No attention map was given."


@pytest.mark.parametrize(
    ("frames", "maps", "said"),
    [
        (np.zeros((4, 4)), {}, r"\[T, H, W\]"),
        (FRAMES, {"nl": np.ones((3, 8, 7))}, "dividing 4 frames"),
        (FRAMES, {"nl": np.full((4, 8, 7), np.nan)}, "NaN"),
    ],
)
def test_what_does_not_fit_says_so(frames: np.ndarray, maps: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        info(frames, maps)  # type: ignore[arg-type]


def test_the_strongest_regions_come_first_with_their_share() -> None:
    values = np.zeros((2, 3, 5))
    values[1, 2, 4], values[0, 1, 3] = 3.0, 1.0
    assert top_regions(values, 2) == [(1, 2, 4, 0.75), (0, 1, 3, 0.25)]
    assert len(top_regions(np.zeros((1, 2, 2)))) == 4
