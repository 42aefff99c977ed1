"""The attention page: read from plain files, checked in its parts, and drawn in a browser by test_attention_browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attention_maps import keep, seen

from dashboards import attention, static
from dashboards.attention import Network, Seen, by_group, overview, read, render
from dashboards.figures.attention import cover
from orchestrator.errors import UserError

RNG = np.random.default_rng(0)


def test_networks_stand_side_by_side_with_the_mean_over_their_groups() -> None:
    first, second = Network("bat", "bat", 0, seen(3)), Network("nl", "nl", 0, seen(places=2))
    info = overview([first, second], 1, 0)
    assert list(info.maps) == ["bat", "nl, block at res3.0", "nl, block at res4.0"]
    mean = first.seen.maps["res3.0"][1, 0].mean(axis=0)
    np.testing.assert_allclose(info.maps["bat"], mean / mean.max(), rtol=1e-6)
    assert (info.reference, info.grid) == ((2, 8, 9), (4, 16, 12)), "the point itself, whatever the maps' sizes"


def test_groups_are_shown_one_by_one_and_coarse_scales_in_their_own_cells() -> None:
    coarse = RNG.random((2, 2, 3), dtype=np.float32)
    maps = np.stack([RNG.random((2, 4, 6), dtype=np.float32), coarse.repeat(2, axis=1).repeat(2, axis=2)])
    network = Network("pnl", "pnl", 0, seen())
    network = Network(
        "pnl", "pnl", 0, Seen(**{**vars(network.seen), "maps": {"res3.0": maps[None, None].repeat(2, 0)}})
    )
    info = by_group(network, "res3.0", 0, 0)
    assert {label: each.shape for label, each in info.maps.items()} == {"scale 0": (2, 4, 6), "scale 1": (2, 2, 3)}
    np.testing.assert_allclose(info.maps["scale 1"], coarse / coarse.max(), rtol=1e-6)


def test_the_page_names_clips_predictions_and_networks_without_maps() -> None:
    blind = Network("se", "se", 1, Seen(**{**vars(seen()), "maps": {}}))
    page = render([Network("nl <x>", "nl", 0, seen()), blind], title="Where?", notes=["made again"])
    assert "✓ zero <small>70.0 %" in page
    assert "Its label is <b>one</b>" in page
    assert "&lt;b&gt;" in page
    assert "nl &lt;x&gt;" in page
    assert "for want of an attention map over positions: “se”" in page
    assert "made again" in page
    assert page.count('data-figure="clip-') == 2
    assert "http://" not in page.split('id="plotly"')[0].replace("http://www.w3.org", "")


def test_only_networks_without_maps_leave_predictions() -> None:
    blind = Network("se", "se", 1, Seen(**{**vars(seen()), "maps": {}}))
    page = render([blind], title="Where?")
    assert "data-figure=" not in page.split("<script")[0]
    assert "✓ zero" in page


def test_different_clips_are_not_compared() -> None:
    with pytest.raises(UserError, match="different clips"):
        render([Network("a", "nl", 0, seen()), Network("b", "nl", 0, seen(clips=("c", "d")))], title="?")


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    whole = seen(2)
    path = keep(whole, tmp_path / "maps.npz")
    found = read(path)
    assert (found.clips, found.classes, found.positions) == (whole.clips, whole.classes, whole.positions)
    np.testing.assert_array_equal(found.maps["res3.0"], whole.maps["res3.0"])


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\x03\x04broken"])
def test_a_file_that_is_no_map_says_how_to_make_one(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="longrange attention"):
        read(path)


def test_objects_that_need_pickle_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "maps.npz", about=np.array([{"format": 1}], dtype=object))
    with pytest.raises(UserError, match="longrange attention"):
        attention.read(tmp_path / "maps.npz")


def test_figures_for_papers_show_clips_maps_guesses_and_regions(tmp_path: Path) -> None:
    blind = Network("none", "none", 0, seen(blind=True))
    networks = [Network("nl", "nl", 0, seen()), Network("p", "pnl", 0, seen(2)), blind]
    files = static.attention.save(networks, tmp_path / "a.svg", theme="dark")
    assert [file.name for file in files] == [
        "a.svg",
        "a-2.svg",
        "a-3.svg",
        "a-4.svg",
    ]
    assert {file.read_bytes()[:5] for file in files} == {b"<?xml"}
    info = overview(networks[:2], 0, 0)
    chart = static.attention.draw(info, said={"nl": "✓ zero (70.0 %)"}, plain=True)
    assert len(chart.axes) == 3 * len(info.frames)
    assert [text.get_text() for text in chart.texts][:3] == ["the clip", "nl   ✓ zero (70.0 %)", "p"]
    scales = static.attention.draw(by_group(networks[1], "res3.0", 0, 0), said={}, regions=5)
    assert sum(len(axes.patches) for axes in scales.axes) == 2 * 5 * 2  # scales, regions, black and white


def test_a_map_covers_a_picture_as_on_the_page() -> None:
    shown = cover(np.array([[-1.0, 0.0, 1.0]]))
    assert shown[0, 0].tolist() == pytest.approx([0, 114 / 255, 178 / 255, 0.85])
    assert shown[0, 1, 3] == 0, "nothing is covered where nothing is looked at"
    assert shown[0, 2].tolist() == pytest.approx([230 / 255, 100 / 255, 0, 0.85])
