"""Where two arms look, side by side: the maps that `longrange attention` kept in the run's folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from dash import html
from dash.development.base_component import Component

from dashboards import attention as maps
from dashboards import frames
from dashboards.app import parts
from dashboards.app.store import Held
from dashboards.app.view import View
from dashboards.attention import Network, Seen
from dashboards.figures import attention as draw_attention
from orchestrator.errors import UserError

FOLDER = "attention"  # inside a run folder; files are TRIAL-CLIPS_AND_POSITIONS.npz
TITLE = "Where they look"
LEAD = (
    "The blue cross is the reference point; orange is what feeds the block's output there, the stronger the more, each "
    "map on its own scale; blue counts against. It explains the block, not the prediction."
)
Files = Mapping[str, Sequence[tuple[int, Path]]]


def card(view: View, held: Held, first: str, second: str) -> Component:
    """Frames of a clip under the attention of both arms, what each predicts, and groups or scales one by one.

    Raises:
        UnknownChoice: a clip or reference point without maps.
    """
    pairs = _pairs(view.store.folder, held, first, second)
    if not pairs:
        return _absent(view, held, first, second)
    try:
        networks = {key: _networks(held, (first, second), pair) for key, pair in pairs.items()}
    except UserError as error:  # the rest of the page says enough without
        return parts.card(parts.notice("Not shown.", str(error)), title=TITLE)
    clips = {f"{key}.{at}": name for key, each in networks.items() for at, name in enumerate(each[0].seen.clips)}
    begin = next(iter(clips))
    key, _, at = (view.among("clip", list(clips)) or begin).partition(".")
    shown = networks[key]
    points = {str(number): maps.spoken(point) for number, point in enumerate(shown[0].seen.positions)}
    point = view.among("point", list(points)) or "0"
    controls = parts.toolbar(
        parts.choice(view, "clip", "Clip", clips, begin), parts.choice(view, "point", "Reference point", points, "0")
    )
    return parts.card(controls, *_shown(view, shown, int(at), int(point)), title=TITLE, lead=LEAD)


def _shown(view: View, networks: Sequence[Network], clip: int, point: int) -> list[Component]:
    seen = networks[0].seen
    label = seen.classes[int(seen.labels[clip])]
    said = html.P([f"{seen.clips[clip]}; its label is ", html.B(label), "."])
    found = maps.overview(networks, clip, point)
    drawn = [parts.pictures(draw_attention.draw(found, view.theme, plain=True), "attention", "Attention side by side")]
    blind = [each.label for each in networks if not each.seen.maps]
    if blind:
        drawn.append(parts.notice("No map.", f"{' and '.join(blind)}: there is no attention over positions to show."))
    groups = [
        each
        for number, one in enumerate(maps.details(networks, clip, point, view.theme))
        for each in _group(number, one)
    ]
    return [said, _predictions(networks, clip), *(drawn if found.maps else drawn[1:]), *groups]


def _group(number: int, detail: maps.Detail) -> list[Component]:
    framed = f"White frames are the {detail.regions} most related cells of each scale." if detail.regions else ""
    figure = parts.pictures(detail.figure, f"groups-{number}", detail.title)
    return [html.H3(detail.title), *([html.P(framed, className="lead")] if framed else []), figure]


def _predictions(networks: Sequence[Network], clip: int) -> Component:
    rows = []
    for network in networks:
        found = maps.predicted(network, clip)
        cells = [
            parts.td(f"{'✓ ' if guess['right'] else ''}{guess['name']} ", html.Small(f"{guess['percent']} %"))
            for guess in found["guesses"]
        ]
        name = parts.td(parts.swatch(network.block), f"{network.label} ", html.Small(f"seed {network.seed}"), css="arm")
        rows.append(html.Tr([name, *cells]))
    places = ["First guess", "Second", "Third"][: networks[0].seen.top_classes.shape[1]]
    return parts.table(["Network", *places], rows, "What each network predicts for this clip")


def _pairs(folder: Path | None, held: Held, first: str, second: str) -> dict[str, tuple[tuple[int, Path], ...]]:
    """Key of clips and positions -> (seed, file) of both arms: of one seed if there is one."""
    if folder is None:
        return {}
    one, two = _files(folder, held, first), _files(folder, held, second)
    return {
        key: min(product(one[key], two[key]), key=lambda pair: (pair[0][0] != pair[1][0], pair))
        for key in one
        if key in two
    }


def _files(folder: Path, held: Held, arm: str) -> Files:
    found: dict[str, list[tuple[int, Path]]] = {}
    trials = held.trials.loc[held.trials["arm_id"] == arm, "seed"]
    for trial, seed in trials.items():
        for path in sorted((folder / FOLDER).glob(f"{trial}-*.npz")):
            found.setdefault(path.stem.rpartition("-")[2], []).append((int(seed), path))
    return found


def _networks(held: Held, arms: tuple[str, str], pair: Sequence[tuple[int, Path]]) -> list[Network]:
    rows: list[dict[str, Any]] = [frames.row(held.arms, arm) for arm in arms]
    return [
        Network(row["label"], row["block"], seed, _read(path, path.stat().st_mtime_ns))
        for row, (seed, path) in zip(rows, pair, strict=True)
    ]


@lru_cache(maxsize=8)
def _read(path: Path, _changed: int) -> Seen:
    return maps.read(path)


def _absent(view: View, held: Held, first: str, second: str) -> Component:
    folder = view.store.folder
    said = "No attention maps of these two arms on the same clips were made yet. This makes them, from the run's kept "
    said += "checkpoints or by training both once more; reload this page afterwards."
    labels = [str(held.arms.loc[arm, "label"]) for arm in (first, second)]
    where = "RUN" if folder is None else str(folder)
    return parts.card(parts.code(shlex.join(["longrange", "attention", where, *labels])), title=TITLE, lead=said)
