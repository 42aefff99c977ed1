from __future__ import annotations

import numpy as np
import pytest

from dashboards.figures.attention import draw, info, native, top_regions

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
    crosses = [trace for trace in chart.data if trace.type == "scatter"]
    assert {(cross.x[0], cross.y[0], cross.xaxis) for cross in crosses} == {(4.5, 6.5, "x3")}


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


def test_regions_frame_the_strongest_cells_of_each_map_on_their_frames() -> None:
    values = np.zeros((2, 4, 7))
    values[1, 2, 5], values[0, 0, 0] = 1.0, 0.5
    chart = draw(info(FRAMES, {"pnl": values}), regions=2)
    boxes = [trace for trace in chart.data if trace.type == "scatter" and trace.line.color == "#ffffff"]
    expected = [("x3", 9.5, 11.5, 7.5, 11.5), ("x", -0.5, 1.5, -0.5, 3.5)]
    for box, (axis, *edges) in zip(boxes, expected, strict=True):
        assert box.xaxis == axis
        np.testing.assert_allclose([box.x[0], box.x[1], box.y[0], box.y[2]], edges, atol=0.2)
    assert "66.7% of the attention" in boxes[0].hovertemplate


def test_a_plain_row_shows_the_clip_first_and_every_picture_keeps_its_range() -> None:
    chart = draw(info(FRAMES, {"nl": np.ones((4, 1, 1))}, (0, 0, 0)), plain=True)
    assert [trace.type for trace in chart.data].count("image") == 8
    assert {tuple(axis.range) for axis in chart.select_yaxes()} == {(15.5, -0.5)}
    overlay = next(trace for trace in chart.data if trace.type == "heatmap")
    assert (list(overlay.x), list(overlay.y)) == ([-0.5, 13.5], [-0.5, 15.5]), "one cell covers the whole picture"


def test_large_frames_are_made_smaller_and_maps_stay_where_they_were() -> None:
    clip = np.zeros((1, 300, 200, 3), dtype=np.uint8)
    clip[:, :150] = 200
    found = info(clip, {"nl": np.ones((1, 2, 2))})
    assert found.frames.shape == (1, 100, 66, 3)
    assert (found.frames[0, 49].min(), found.frames[0, 50].max()) == (200, 0)


def test_repeated_cells_are_one_cell_unless_they_repeat_unevenly() -> None:
    coarse = np.random.default_rng(1).random((2, 2, 3))
    np.testing.assert_array_equal(native(coarse.repeat(3, axis=1).repeat(2, axis=2)), coarse)
    np.testing.assert_array_equal(native(coarse), coarse)
    uneven = coarse[:, [0, 0, 0, 1]]
    assert native(uneven).shape == (2, 4, 3)
