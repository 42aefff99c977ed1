"""Whether trials fit onto the nodes that are there. Ray itself would wait for a better node, for ever and silently."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.execution.base import Resources

Node = Mapping[str, float]  # what Ray says a node has in all: CPU, GPU


def unplaceable(needs: Resources, nodes: Sequence[Node]) -> str | None:
    """Why a trial can never run on these nodes; None if it can once they are free."""
    if sum(_places(needs, node) for node in nodes) >= needs.workers:
        return None
    wanted = f"a trial asks for {needs.cpus:g} CPUs and {needs.gpus:g} GPUs"
    if needs.workers > 1:
        wanted = f"{wanted} for each of {needs.workers} processes"
    held = dict.fromkeys(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
    return f"{wanted}; Ray's nodes have {'; '.join(held) or 'nothing'}"


def _places(needs: Resources, node: Node) -> int:
    """How many such processes a node can hold at once."""
    ratios = [node.get(kind, 0.0) / share for kind, share in (("CPU", needs.cpus), ("GPU", needs.gpus)) if share]
    return math.floor(min(ratios) + 1e-6)
