"""How figures look: one colour and one marker per block everywhere, light and dark.

Colours are Okabe and Ito's, with five more chosen to stay furthest from them and from each other in normal sight and in
the three forms of colour blindness; each reads on white and on near-black. Markers differ too, so that a grey print can
be read. Nothing else has these colours: what is not about one block is drawn in greys, patterns or Cividis.
"""

from __future__ import annotations

import hashlib
from typing import Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

Theme = Literal["light", "dark"]


class Style(NamedTuple):
    """How one block is drawn."""

    color: str
    symbol: str


STYLES: dict[str, Style] = {
    "none": Style("#6b6b6b", "x"),
    "nl": Style("#0072b2", "circle"),
    "hgnl": Style("#e69f00", "square"),
    "rnl": Style("#009e73", "diamond"),
    "se_rnl": Style("#8cbf73", "diamond-tall"),
    "pnl": Style("#d55e00", "triangle-up"),
    "bat": Style("#cc79a7", "star"),
    "se": Style("#56b4e9", "cross"),
    "cbam": Style("#804073", "pentagon"),
    "gc": Style("#8c401a", "hexagon"),
    "cgnl": Style("#7326f2", "triangle-down"),
    "cgd": Style("#b259f2", "hourglass"),
}
SPARE = (Style("#b07d48", "star-square"), Style("#6aa84f", "bowtie"), Style("#8e7cc3", "star-diamond"))

INK = {"light": "#1c2430", "dark": "#e6e9ee"}
GROUND = {"light": "#ffffff", "dark": "#1b2129"}
GRID = {"light": "#e4e7ec", "dark": "#333a45"}
FAINT = "#8490a3"  # reads on both
DEEPEST = 0.65  # how far the last of several tones goes towards the ink
BAND = "rgba(128,140,163,0.18)"  # on both
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def style(block: str) -> Style:
    """The block's colour and marker; a block from elsewhere always gets the same spare one."""
    if block in STYLES:
        return STYLES[block]
    return SPARE[hashlib.sha256(block.encode()).digest()[0] % len(SPARE)]


def shades(block: str, count: int, theme: Theme) -> list[str]:
    """Tones of a block's colour for the levels of one of its settings, from the colour itself towards the ink."""
    start, end = (np.array(hex_to_rgb(color)) for color in (style(block).color, INK[theme]))
    shares = np.linspace(0, DEEPEST, count) if count > 1 else [0.0]
    return ["#" + "".join(f"{round(part):02x}" for part in start + share * (end - start)) for share in shares]


def template(theme: Theme) -> go.layout.Template:
    """The Plotly template of a theme; backgrounds are transparent, so that a page's own shows through."""
    axis = {
        "gridcolor": GRID[theme],
        "linecolor": GRID[theme],
        "zerolinecolor": GRID[theme],
        "ticks": "",
        "automargin": True,
        "title": {"font": {"size": 13}, "standoff": 10},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 13, "color": INK[theme]},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": [each.color for name, each in STYLES.items() if name != "none"],
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 60, "r": 20, "t": 30, "b": 55},
            "hoverlabel": {
                "align": "left",
                "bgcolor": GROUND[theme],  # text on a block's colour cannot be read
                "bordercolor": FAINT,
                "font": {"family": FONT, "size": 12, "color": INK[theme]},
            },
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": FAINT, "activecolor": INK[theme]},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": {"text": ""}},
            "colorscale": {"sequential": "Cividis"},
            "hovermode": "closest",
        }
    )


def figure(theme: Theme, *, height: int = 420) -> go.Figure:
    """An empty figure in a theme."""
    return go.Figure(layout={"template": template(theme), "height": height})


def message(text: str, theme: Theme = "light") -> go.Figure:
    """What is drawn instead of an empty chart: words."""
    chart = figure(theme, height=180)
    chart.add_annotation(text=text, showarrow=False, x=0.5, y=0.5, xref="paper", yref="paper", font={"size": 14})
    chart.update_xaxes(visible=False)
    chart.update_yaxes(visible=False)
    return chart
