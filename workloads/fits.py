"""What does not go together in a trial: data and head, frozen stages, protocol. Found by plans; no torch, no data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workloads.backbones.insertion import insertion_points
from workloads.spec import TrialSpec


def misfits(spec: TrialSpec) -> list[str]:
    """Why this trial cannot train or be evaluated, although each of its parts is sound; empty if it can.

    The backbone can be built and the insertion names places that exist.
    """
    return [
        *spec.workload.misfits(spec.backbone, spec.protocol),
        *freeze_problems(["stem", *spec.backbone.stages()], spec.recipe.freeze),
        *_protocol_problems(spec),
    ]


def freeze_problems(stages: Sequence[str], freeze: Sequence[str]) -> list[str]:
    """Why `freeze` does not name the first stages of a network; empty if it does."""
    if list(freeze) == list(stages[: len(freeze)]) and "head" not in freeze:
        return []
    first = ", ".join(stages[:-1])
    return [f"recipe.freeze must name the first of the stages {first}, in this order: given {', '.join(freeze)}"]


def _protocol_problems(spec: TrialSpec) -> Iterator[str]:
    """Whether the network takes clips of the protocol's length and size as well as those it is trained on."""
    protocol, backbone = spec.protocol, spec.backbone
    changed = {"frames": protocol.frames or backbone.frames, "size": protocol.size or backbone.size}
    if changed == {"frames": backbone.frames, "size": backbone.size}:
        return
    where = f"protocol {protocol.name!r} shows {changed['frames']} frames of {changed['size']} pixels"
    tested = backbone.model_copy(update=changed)
    wrong = tested.problems()
    if not wrong:
        points = insertion_points(tested, spec.insertion)
        wrong = list(dict.fromkeys(reason for point in points for reason in spec.block.problems(point.shape)))
    yield from (f"{where}: {reason}" for reason in wrong)
