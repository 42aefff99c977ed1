"""Where a model's multiply-accumulates go, for papers."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from dashboards.figures import stages
from dashboards.figures import theme as themes
from dashboards.figures.theme import Theme
from dashboards.static.common import SMALL, empty, legend, rows

FITS = 0.07  # share of the longest bar from which a stage's name fits into its part


def draw_stages(axes: Axes, info: stages.StagesInfo, theme: Theme) -> None:
    """A bar per arm: the backbone grey, blocks in their colour, attention products hatched."""
    if not info.arms:
        return empty(axes, "No arm has a profile: plan the sweep without --no-profile.", theme)
    longest = max(sum(part.backbone_macs + part.block_macs for part in parts) for _, _, parts in info.arms)
    for row, (_, block, parts) in enumerate(info.arms):
        end = 0
        for number, part in enumerate(parts):
            end = _part(axes, row, end, part, block=block, grey=stages.BACKBONE[number % 2], room=FITS * longest)
    rows(axes, [label for label, _, _ in info.arms])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("Executed MACs per clip")
    _explain(axes, theme)


def _part(axes: Axes, row: int, start: int, part: stages.Part, *, block: str, grey: str, room: float) -> int:
    """Draw one stage from `start` on; returns where it ends."""
    color = themes.style(block).color
    axes.barh(row, part.backbone_macs, left=start, color=grey, height=0.72)
    if part.backbone_macs > room:
        axes.text(
            start + part.backbone_macs / 2,
            row,
            part.stage,
            ha="center",
            va="center_baseline",
            fontsize=SMALL - 1,
            color=themes.INK["light"],
        )
    start += part.backbone_macs
    for macs, hatch in ((part.block_macs - part.product_macs, ""), (part.product_macs, "/////")):
        if macs:
            axes.barh(row, macs, left=start, facecolor=color, hatch=hatch, edgecolor="white", linewidth=0, height=0.72)
            start += macs
    return start


def _explain(axes: Axes, theme: Theme) -> None:
    shown = [
        Patch(facecolor=stages.BACKBONE[0], label="backbone, by stage"),
        Patch(facecolor=themes.FAINT, label="block"),
        Patch(facecolor=themes.FAINT, hatch="/////", edgecolor="white", linewidth=0, label="its attention products"),
    ]
    legend(axes, theme, handles=shown, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, columnspacing=1.2)
