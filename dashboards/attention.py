"""Where blocks look, as one HTML file: a clip's frames under each block's attention, and what each network predicts.

Input are the files that `longrange attention` keeps (`workloads/attention.py` writes them; no torch is needed here)
and, for predictions, any sweep whose trials stored theirs.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from dashboards import report
from dashboards.figures import attention as pictures
from dashboards.figures.theme import Theme, style
from orchestrator.errors import UserError

FORMAT = 1
REGIONS = 5  # PNL, Fig. 6
Position = tuple[int, int, int]


@dataclass(frozen=True)
class Seen:
    """What one network does with n clips.

    Attributes:
        clips: names.
        labels: `[n]` true classes.
        classes: names of all classes.
        frames: `[n, T, H, W, channels]` bytes.
        positions: reference points (frame, row, column) of the input clip.
        maps: place of a block -> `[n, positions, groups, T', H', W']`; empty for networks without attention maps.
        top_classes: `[n, k]`, best first.
        top_scores: `[n, k]`.
    """

    clips: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    frames: NDArray[np.uint8]
    positions: tuple[Position, ...]
    maps: Mapping[str, NDArray[np.float32]]
    top_classes: NDArray[np.int64]
    top_scores: NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """One arm on the page: its label, its block, its seed, and what it does."""

    label: str
    block: str
    seed: int
    seen: Seen


def read(path: str | os.PathLike[str]) -> Seen:
    """The content of a file that `longrange attention` kept.

    Raises:
        UserError: it is not such a file.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as opened:
            about = json.loads(str(opened["about"]))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
            return Seen(
                clips=tuple(about["clips"]),
                labels=opened["labels"],
                classes=tuple(about["classes"]),
                frames=opened["frames"],
                positions=tuple(tuple(point) for point in about["positions"]),
                maps={place: opened[f"map_{number}"] for number, place in enumerate(about["places"])},
                top_classes=opened["top_classes"],
                top_scores=opened["top_scores"],
            )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} does not hold attention maps ({error}); make it with `longrange attention`") from error


def write(networks: Sequence[Network], path: str | os.PathLike[str], *, title: str, notes: Sequence[str] = ()) -> Path:
    """Write the page, whole or not at all; returns the path.

    Args:
        networks: all shown the same clips and positions.
        path: the HTML file.
        title: what was asked, in words.
        notes: what a reader must know, e.g. which networks were trained again for this page.
    """
    return report.write_html(path, render(networks, title=title, notes=notes))


def render(networks: Sequence[Network], *, title: str, notes: Sequence[str] = ()) -> str:
    """The page as HTML text.

    Raises:
        UserError: the networks were shown different clips or positions.
    """
    check(networks)
    first = networks[0].seen
    figures: dict[str, go.Figure] = {}
    sections = [_clip(networks, at, figures) for at in range(len(first.clips))]
    blind = [each.label for each in networks if not each.seen.maps]
    return report.fill("attention.html", figures, title=title, sections=sections, notes=notes, blind=blind)


def check(networks: Sequence[Network]) -> None:
    """Nothing if the networks can stand side by side.

    Raises:
        UserError: they were shown different clips or positions.
    """
    first = networks[0].seen
    if any((each.seen.clips, each.seen.positions) != (first.clips, first.positions) for each in networks):
        raise UserError("these networks were shown different clips or positions: make their maps with one command")


def overview(networks: Sequence[Network], clip: int, position: int) -> pictures.AttentionInfo:
    """All blocks of all networks side by side, each as the mean over its groups or scales (RNL, Fig. 1, 4, 5)."""
    rows = {
        titled(each, place): maps[clip, position].mean(axis=0)
        for each in networks
        for place, maps in each.seen.maps.items()
    }
    return _info(networks[0].seen, rows, clip, position)


def by_group(network: Network, place: str, clip: int, position: int) -> pictures.AttentionInfo:
    """One block's groups (BAT, Fig. 4) or scales (PNL, Fig. 6), one row for each."""
    maps = network.seen.maps[place][clip, position]
    rows = {f"{part_of(network)} {number}": pictures.native(each) for number, each in enumerate(maps)}
    return _info(network.seen, rows, clip, position)


def _info(seen: Seen, rows: Mapping[str, NDArray[Any]], clip: int, position: int) -> pictures.AttentionInfo:
    clip_thwc = seen.frames[clip]
    frames, height, width, channels = clip_thwc.shape
    shown = clip_thwc[..., 0] if channels == 1 else clip_thwc
    return pictures.info(shown, rows, seen.positions[position], (frames, height, width))


def titled(network: Network, place: str) -> str:
    """A network's label, with the block's place where it has several."""
    several = len(network.seen.maps) > 1
    return f"{network.label}, block at {place}" if several else network.label


def _clip(networks: Sequence[Network], at: int, figures: dict[str, go.Figure]) -> dict[str, Any]:
    seen = networks[0].seen
    points = [_point(networks, at, number, figures) for number in range(len(seen.positions))]
    return {
        "name": seen.clips[at],
        "label": seen.classes[int(seen.labels[at])],
        "predictions": [predicted(each, at) for each in networks],
        "points": [point for point in points if point["figure"]],
    }


def predicted(network: Network, at: int) -> dict[str, Any]:
    """A network's best guesses for a clip, as texts (PNL, Fig. 5): label, seed, color, guesses."""
    seen = network.seen
    guesses = [
        {
            "name": seen.classes[int(number)],
            "percent": f"{100 * score:.1f}",
            "right": int(number) == int(seen.labels[at]),
        }
        for number, score in zip(seen.top_classes[at], seen.top_scores[at], strict=True)
    ]
    return {"label": network.label, "seed": network.seed, "color": style(network.block).color, "guesses": guesses}


def spoken(position: Position) -> str:
    """A reference point in words."""
    frame, row, column = position
    return f"frame {frame}, row {row}, column {column}"


def _point(networks: Sequence[Network], at: int, number: int, figures: dict[str, go.Figure]) -> dict[str, Any]:
    found = overview(networks, at, number)
    said = spoken(networks[0].seen.positions[number])
    if not found.maps:
        return {"said": said, "figure": "", "details": []}
    name = f"clip-{at}-{number}"
    figures[name] = pictures.draw(found, plain=True)
    return {"said": said, "figure": name, "details": [_packed(each, figures) for each in details(networks, at, number)]}


@dataclass(frozen=True)
class Detail:
    """One block of several groups or scales, one by one; `regions` of each scale are framed."""

    title: str
    figure: go.Figure
    regions: int


def details(networks: Sequence[Network], clip: int, position: int, theme: Theme = "light") -> list[Detail]:
    """The blocks that have several groups (BAT, Fig. 4) or scales (PNL, Fig. 6), each in a figure of its own."""
    return [_detail(each, place, clip, position, theme) for each, place in detailed(networks)]


def detailed(networks: Sequence[Network]) -> list[tuple[Network, str]]:
    """The networks and places of blocks that have several groups or scales."""
    return [
        (each, place)
        for each in networks
        for place, maps in each.seen.maps.items()
        if maps.shape[2] > 1 or each.block == "pnl"
    ]


def part_of(network: Network) -> str:
    """What each of a block's maps is of."""
    return {"pnl": "scale", "nl": "head"}.get(network.block, "group")


def regions_of(network: Network) -> int:
    """How many of each map's most related cells are framed: PNL's, as in its Fig. 6."""
    return REGIONS if network.block == "pnl" else 0


def _detail(network: Network, place: str, clip: int, position: int, theme: Theme) -> Detail:
    regions = regions_of(network)
    figure = pictures.draw(by_group(network, place, clip, position), theme, regions=regions)
    return Detail(f"{titled(network, place)}: each {part_of(network)}", figure, regions)


def _packed(detail: Detail, figures: dict[str, go.Figure]) -> dict[str, str]:
    name = f"detail-{len(figures)}"
    figures[name] = detail.figure
    return {"title": detail.title, "figure": name, "regions": str(detail.regions or "")}
