"""Population based training: who goes on from whose checkpoint, and under which settings. Pure, no torch.

A member is a configuration like any other: its settings are what was drawn, and where it was changed on its way,
`recipe.changes` says from which epoch on. So what a member trained, all its ancestors' epochs included, can be trained
again from the first epoch by anybody, with any seed; a checkpoint that it took over is a shortcut, not a cause.

Paper: Jaderberg et al. 2017, "Population Based Training of Neural Networks" (arXiv:1711.09846): truncation selection,
then each setting multiplied or drawn anew. Differs from the paper: the whole population decides at the same epochs, and
its members share one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from orchestrator.search.proposals import Proposals
from orchestrator.search.space import CHANGES, Dimension, Search

Setting = Mapping[str, Any]


@dataclass(frozen=True)
class Move:
    """A member's place is taken.

    Attributes:
        member: whose place.
        parent: the member whose training goes on there.
        setting: what the new member is; the parent's up to now.
    """

    member: int
    parent: int
    setting: Setting


def first_population(search: Search, epochs: int) -> list[Setting]:
    """What the members are before the first decision."""
    proposals = Proposals(search, epochs=epochs)
    return [proposals.draw() for _ in range(search.configurations)]


def decisions(search: Search, members: Sequence[Setting], scores: Sequence[float | None], epoch: int) -> list[Move]:
    """Who is replaced after `epoch` epochs, and by what.

    Args:
        search: the sweep's section.
        members: what each is.
        scores: of each after `epoch` epochs; None or not finite if it has failed.
        epoch: how many all have trained.

    Returns:
        In the order of the members; empty if none has a score.
    """
    sign = 1.0 if search.mode == "max" else -1.0
    values = [sign * score if score is not None and math.isfinite(score) else -math.inf for score in scores]
    ranked = sorted(range(len(members)), key=lambda member: (-values[member], member))
    some = max(1, round(search.quantile * len(members)))
    best = [member for member in ranked[:some] if values[member] > -math.inf]
    replaced = {*ranked[-some:], *(member for member in ranked if values[member] == -math.inf)} - set(best)
    if not best:
        return []
    moves = []
    for member in sorted(replaced):
        random = Random(f"{search.seed}/{epoch}/{member}")
        parent = random.choice(best)
        moves.append(Move(member, parent, _explored(search, members[parent], epoch, random)))
    return moves


def settings_at(setting: Setting, epoch: int) -> dict[str, Any]:
    """What the drawn paths of a member are in `epoch` (0-based)."""
    now = {path: value for path, value in setting.items() if path != CHANGES}
    for change in setting.get(CHANGES, ()):
        if change["epoch"] <= epoch:
            now |= {f"recipe.{name}": value for name, value in change.items() if name != "epoch"}
    return now


def schedule(setting: Setting) -> list[dict[str, Any]]:
    """What a member was trained under: one row for the start, and one for each epoch at which something changed."""
    epochs = [0, *(change["epoch"] for change in setting.get(CHANGES, ()))]
    return [{"from_epoch": epoch, **settings_at(setting, epoch)} for epoch in epochs]


def _explored(search: Search, parent: Setting, epoch: int, random: Random) -> Setting:
    """The parent's settings, changed from `epoch` on; the parent's own where every value stays at its bound."""
    before = settings_at(parent, epoch)
    after = {path: _perturbed(search, kind, before[path], random) for path, kind in search.space.items()}
    changed = {path.removeprefix("recipe."): value for path, value in after.items() if value != before[path]}
    if not changed:
        return parent
    return {**parent, CHANGES: [*parent.get(CHANGES, ()), {"epoch": epoch, **changed}]}


def _perturbed(search: Search, kind: Dimension, value: Any, random: Random) -> Any:
    anew, factor = random.random() < search.resample, random.choice(search.perturb)  # always both: one order of draws
    if kind.choice is not None:
        return random.choice(kind.choice)
    low, high = kind.bounds
    if anew:
        found = random.uniform(low, high)
        if kind.kind.startswith("log"):
            found = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        found = value * factor
    found = min(max(found, low), high)
    return round(found) if kind.kind.endswith("integer") else found
