"""What an accuracy is of: the settings of a workload that choose its validation clips, or what is asked about them.

Everything else in a workload (sampling, augmentation, which clips are trained on) can be ablated: the accuracies are
of the same clips and can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By name, for the workloads of other people too.
JUDGED_ON = (
    "name", "dataset", "split", "splits", "annotation", "class_list", "draw_classes", "draw_validation", "draw_seed",
    "keys", "seed", "validation_clips", "validation_scans",
)  # fmt: skip


def judged_on(workload: Mapping[str, Any]) -> dict[str, Any]:
    """Setting -> value of those that are set. Equal ones mean the same validation clips.

    Args:
        workload: its config as JSON, complete or not.
    """
    found = {name: workload[name] for name in JUDGED_ON if workload.get(name) is not None}
    for name in ("splits", "annotation"):
        if isinstance(found.get(name), list | tuple) and len(found[name]) == 2:
            found[name] = found[name][1]  # the first is for training
    if not found.keys() & {"draw_classes", "draw_validation"}:
        found.pop("draw_seed", None)
    return found
