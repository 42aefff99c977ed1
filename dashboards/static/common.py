"""What all figures for papers share: sizes, fonts, marks and lines, and how a file is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline

from dashboards.errors import UnknownChoice
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from orchestrator.errors import LongrangeError

WIDTHS = {"column": 3.4, "page": 7.0}  # inches: one and two columns of common proceedings
FORMATS = (".pdf", ".svg", ".png")
BAND_ALPHA = 0.16
SMALL = 6  # points, of what stands inside a chart
SETTINGS: Any = {
    "pdf.fonttype": 42,  # TrueType, embedded: publishers refuse Type 3
    "svg.fonttype": "path",
    "svg.hashsalt": "longrange",  # the same figure gives the same file
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "savefig.dpi": 400,
}
_HOURGLASS = Outline([(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)])
_BOWTIE = Outline([(-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -1)])
MARKERS: Mapping[str, Any] = {
    "x": "x",
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "diamond-tall": "d",
    "triangle-up": "^",
    "star": "*",
    "cross": "P",
    "pentagon": "p",
    "hexagon": "h",
    "triangle-down": "v",
    "hourglass": _HOURGLASS,
    "star-square": "8",
    "bowtie": _BOWTIE,
    "star-diamond": (4, 1, 0),
}
LINES: Mapping[str, Any] = {
    "solid": "-",
    "dash": (0, (5, 2)),
    "dot": (0, (1, 1.5)),
    "dashdot": (0, (5, 2, 1, 2)),
    "longdash": (0, (9, 3)),
    "longdashdot": (0, (9, 3, 1, 3)),
}


def blank(theme: Theme, width: str, height: float) -> Figure:
    """A figure without axes; `height` in inches."""
    return Figure(figsize=(WIDTHS[width], height), layout="constrained", facecolor=themes.GROUND[theme])


def target(path: str | os.PathLike[str]) -> Path:
    """A file whose suffix is one of `FORMATS`.

    Raises:
        UnknownChoice: another suffix.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise UnknownChoice("format", file.suffix or file.name, FORMATS)
    return file


def write(chart: Figure, path: Path) -> Path:
    """Write a figure whole or not at all; the same figure gives the same bytes.

    Raises:
        LongrangeError: the file cannot be written.
    """
    kind = path.suffix.lower().removeprefix(".")
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
            aside = Path(folder) / path.name
            with matplotlib.rc_context(SETTINGS):
                chart.savefig(aside, format=kind, metadata=undated)
            aside.replace(path)
    except OSError as error:
        raise LongrangeError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def dress(axes: Axes, theme: Theme) -> None:
    """Spines, ticks and grid in a theme's colours."""
    ink = themes.INK[theme]
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(themes.FAINT)
    axes.tick_params(colors=ink, width=0.6, length=2.5)
    axes.grid(color=themes.GRID[theme], linewidth=0.5)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)


def legend(axes: Axes, theme: Theme, **where: Any) -> None:
    """A small legend."""
    axes.legend(fontsize=SMALL, labelcolor=themes.INK[theme], handlelength=2.6, **where)


def empty(axes: Axes, said: str, theme: Theme) -> None:
    """Words instead of a chart."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, said, ha="center", va="center", transform=axes.transAxes, color=themes.INK[theme])


def rows(axes: Axes, names: list[str]) -> None:
    """One row per name, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")


assert set(MARKERS) >= {style.symbol for style in (*themes.STYLES.values(), *themes.SPARE)}
