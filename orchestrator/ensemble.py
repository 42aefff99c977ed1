"""Ensembles of recorded trials: their stored per-clip scores are averaged, nothing runs again.

    from orchestrator.ensemble import ensemble

    found = ensemble(["runs/hgnl::hgnl g1=2", "runs/tsn::none"], weights=[2, 1])
    found.rating["averaged_error_percent"], found.members[0].gains["top1_percent"]

A member is `FOLDER::NAME`, see `orchestrator.members`. An arm stands for its finished trials: the ensemble is made once
for each seed that all arms have, and numbers are means over those. Members may come from different sweeps and ledgers
as long as they were evaluated on the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.members import Member, find_member
from workloads import ensemble as mixing
from workloads.ensemble import METRICS, Average, Interval
from workloads.progress import Predictions

Verdict = Literal["better", "worse", "undecided"]

LEVEL = 0.95
_SUMS = 0.02  # by how much stored probabilities may miss a sum of 1: they are float16


@dataclass(frozen=True)
class Gain:
    """The ensemble minus a member, in percentage points of one metric.

    Attributes:
        difference: of the means over clips and seeds.
        interval: 95 % paired bootstrap over clips.
        verdict: `better` or `worse` where an interval of 95 % for all members together leaves out 0 (Bonferroni).
    """

    difference: float
    interval: Interval
    verdict: Verdict


@dataclass(frozen=True)
class MemberResult:
    """One member on the clips that are shown.

    Attributes:
        name: as it was given.
        trials: seed -> trial id.
        weight: its share, over all members 1.
        rating: metric -> mean over seeds, in percent.
        gains: metric -> the ensemble compared with it.
    """

    name: str
    trials: dict[int, str]
    weight: float
    rating: dict[str, float]
    gains: dict[str, Gain]


@dataclass(frozen=True)
class Ensemble:
    """Members, and what they give together.

    Attributes:
        members: in the order given.
        rating: metric -> mean over seeds, in percent.
        average: scores are averaged after (`softmax`) or before (`logits`) the softmax.
        weights_from: `equal`, `given` or `searched`.
        clips: on which everything here was measured.
        searched_on: other clips, on which the weights were searched; 0 if they were not.
        half_seed: drew the two halves; None if weights were not searched.
        seeds: of the trials; one trial per member has the seeds of the first.
    """

    members: tuple[MemberResult, ...]
    rating: dict[str, float]
    average: Average
    weights_from: Literal["equal", "given", "searched"]
    clips: int
    searched_on: int
    half_seed: int | None
    seeds: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        for member in values["members"]:
            member["gains"] = {
                name: {**gain, "interval": [*gain["interval"]]} for name, gain in member["gains"].items()
            }
            member["trials"] = {str(seed): trial for seed, trial in member["trials"].items()}
        return values


def ensemble(
    members: Sequence[str],
    *,
    weights: Sequence[float] | Literal["equal", "search"] = "equal",
    average: Average = "softmax",
    half_seed: int = 0,
) -> Ensemble:
    """Average stored scores and compare the result with every member, on the same clips.

    Args:
        members: two or more, `FOLDER::NAME` each.
        weights: one number per member (only ratios matter), `equal`, or `search`: on one half of the clips; then
            everything is measured on the other half.
        average: scores are averaged after (`softmax`) or before (`logits`) the softmax.
        half_seed: draws the halves.

    Raises:
        UserError: no such member, no stored scores, other clips, no common seed, or weights that cannot be used.
    """
    if len(members) < 2:
        raise UserError(f"an ensemble needs two members or more, given {len(members)}")
    found = [_with_probabilities(find_member(member)) for member in members]
    seeds, scores, labels = _aligned(found)
    shown, searched = np.arange(len(labels)), np.arange(0)
    if weights == "search":
        searched, shown = mixing.halves(labels, half_seed)
    try:
        shares = _shares(weights, average, [one[:, searched] for one in scores], labels[searched])
    except ValueError as error:
        raise UserError(f"--weights: {error}") from error
    rated = [_per_clip(one[:, shown], labels[shown]) for one in scores]
    whole = np.stack([mixing.combine([one[at] for one in scores], shares, average) for at in range(len(seeds))])
    together = _per_clip(whole[:, shown], labels[shown])
    return Ensemble(
        members=tuple(
            MemberResult(one.name, _used(one, seeds), share, _means(own), _gains(together - own, len(found)))
            for one, share, own in zip(found, shares, rated, strict=True)
        ),
        rating=_means(together),
        average=average,
        weights_from="searched" if weights == "search" else "equal" if weights == "equal" else "given",
        clips=len(shown),
        searched_on=len(searched),
        half_seed=half_seed if weights == "search" else None,
        seeds=seeds,
    )


def _used(member: Member, seeds: tuple[int, ...]) -> dict[int, str]:
    return {seed: trial for seed, trial in member.trials.items() if seed in seeds or not member.is_arm}


def _shares(
    weights: Sequence[float] | Literal["equal", "search"],
    average: Average,
    scores: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
) -> tuple[float, ...]:
    """Weights with a sum of 1; a search takes all seeds' scores `[s, n, k]` together."""
    if weights == "search":
        stacked = [one.reshape(-1, one.shape[-1]) for one in scores]
        return mixing.search_weights(stacked, np.tile(labels, len(scores[0])), average)
    numbers = [1.0] * len(scores) if weights == "equal" else [float(weight) for weight in weights]
    return mixing.normalised(numbers, len(scores))


def _per_clip(scores: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each clip adds to each metric, mean over seeds, `[n, 3]`, from scores `[s, n, k]`."""
    every: NDArray[np.float64] = np.mean([mixing.per_clip(one, labels) for one in scores], axis=0)
    return every


def _means(per_clip: NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(METRICS, per_clip.mean(axis=0).tolist(), strict=True))


def _gains(gains: NDArray[np.float64], members: int) -> dict[str, Gain]:
    narrow = mixing.paired_bootstrap(gains, LEVEL)
    wide = mixing.paired_bootstrap(gains, 1 - (1 - LEVEL) / members)
    return {
        name: Gain(float(mean), one, _verdict(other, lower_is_better="error" in name))
        for name, mean, one, other in zip(METRICS, gains.mean(axis=0), narrow, wide, strict=True)
    }


def _verdict(interval: Interval, *, lower_is_better: bool) -> Verdict:
    if interval.low <= 0 <= interval.high:
        return "undecided"
    return "better" if (interval.high < 0) == lower_is_better else "worse"


def _aligned(found: Sequence[Member]) -> tuple[tuple[int, ...], list[NDArray[np.float32]], NDArray[np.int64]]:
    """Common seeds, each member's scores `[s, n, k]` with the clips in the first one's order, and labels `[n]`."""
    seeds = _common_seeds(found)
    first = next(iter(found[0].predictions.values()))
    scores = []
    for one in found:
        mine = [one.predictions[seed] for seed in seeds] if one.is_arm else list(one.predictions.values()) * len(seeds)
        scores.append(np.stack([_in_order(first, other, found[0].name, one.name) for other in mine]))
    return seeds, scores, first.labels


def _common_seeds(found: Sequence[Member]) -> tuple[int, ...]:
    arms = [one for one in found if one.is_arm]
    if not arms:
        return (next(iter(found[0].trials)),)
    common = set.intersection(*(set(one.trials) for one in arms))
    if not common:
        seeds = "; ".join(f"{one.name}: {', '.join(map(str, one.trials))}" for one in arms)
        raise UserError(f"the arms have no finished seed in common ({seeds}): name one trial of each by its id instead")
    return tuple(sorted(common))


def _in_order(first: Predictions, other: Predictions, one: str, two: str) -> NDArray[np.float32]:
    """The scores of `other`, its clips in the order of `first`'s.

    Raises:
        UserError: they are not the same clips, labels or classes.
    """
    if first.clips != other.clips and len(set(other.clips)) == len(other.clips):
        here, there = set(first.clips), set(other.clips)
        if here != there:
            lacking = sorted(here ^ there)[:3]
            raise UserError(
                f"{one} and {two} were not evaluated on the same clips: {len(here)} and {len(there)}, "
                f"{len(here & there)} in common; only one has {', '.join(lacking)}"
            )
    if first.scores.shape != other.scores.shape:
        shapes = f"{list(first.scores.shape)} and {list(other.scores.shape)}"
        raise UserError(f"{one} and {two} do not have scores of the same clips and classes: {shapes}")
    order = {clip: at for at, clip in enumerate(other.clips)}
    places = np.arange(len(first.clips)) if first.clips == other.clips else np.array([order[c] for c in first.clips])
    differing = int((first.labels != other.labels[places]).sum())
    if differing:
        raise UserError(f"{one} and {two} disagree on the labels of {differing} of {len(places)} clips")
    scores: NDArray[np.float32] = other.scores[places].astype(np.float32)
    return scores


def _with_probabilities(member: Member) -> Member:
    for one in member.predictions.values():
        sums = one.scores.astype(np.float32).sum(axis=1)
        if one.scores.min() < 0 or np.abs(sums - 1).max() > _SUMS:
            raise UserError(
                f"{member.name}: its stored scores are no probabilities (a clip's sum to {sums.min():.3g} .. "
                f"{sums.max():.3g}): a workload that is to be mixed must store scores after the softmax"
            )
    return member
