"""When a reproduced number counts as the published one. Pure functions.

    exact            equal at the printed precision
    close            at most 0.5 % off on the total *and* on the increment over its baseline: a small add-on always
                     looks close on the total, so the increment decides
    explained        differs, or needs a setting that the paper does not state, for a reason named in one line
    not reproduced   nothing found

A row that needs a fitted setting is never `exact` nor `close`.
"""

from __future__ import annotations

from typing import Literal

Verdict = Literal["exact", "close", "explained", "not reproduced", "accuracy: needs training"]

TOLERANCE = 0.005


def agrees(
    published: float, reproduced: float, decimals: int, increments: tuple[float, float] | None = None
) -> Literal["exact", "close"] | None:
    """Whether two numbers are equal at the printed precision, close, or neither.

    Args:
        published: as printed.
        reproduced: ours, same unit.
        decimals: digits after the point that are printed.
        increments: published and reproduced increment over the baseline, where there is one.
    """
    if abs(round(reproduced, decimals) - published) < 10.0 ** -(decimals + 3):
        return "exact"
    pairs = [(published, reproduced), *([increments] if increments else [])]
    return "close" if all(abs(ours - theirs) <= TOLERANCE * abs(theirs) for theirs, ours in pairs) else None


def judge(agreement: Literal["exact", "close"] | None, *, fitted: bool = False, explained: bool = False) -> Verdict:
    """The verdict of one cell.

    Args:
        agreement: of the published value with ours.
        fitted: ours needs a setting that the paper does not state, or contradicts.
        explained: the difference has a named reason that was checked (a typo that reads as our value, a wrong
            derivation).
    """
    if agreement:
        return "explained" if fitted else agreement
    return "explained" if explained else "not reproduced"
