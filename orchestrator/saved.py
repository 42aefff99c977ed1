"""Plans that were saved for review: what was reviewed runs, or nothing does.

A saved plan is the plan's JSON with the sweep it was made of, the `--only` conditions, and the fingerprint of every
arm's code. To run it, the sweep is planned again and compared: other trials, or the same trials under other code, are
refused. Estimates may differ: they follow from what has run since. No torch here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.fingerprint import code_fingerprint
from orchestrator.plan import Plan
from orchestrator.planner import load, plan_sweep
from orchestrator.sweep import Sweep, parse_sweep

FORMAT = 1
SHOWN = 3  # trials, in messages


@dataclass(frozen=True)
class Request:
    """What is asked for, by the name of a sweep, a sweep file, or a saved plan.

    Attributes:
        sweep: what to plan.
        only: `path=value` texts; arms for which all hold stay.
        source: named in errors.
        reviewed: the content of the saved plan; None if there was none.
    """

    sweep: Sweep
    only: tuple[str, ...]
    source: str
    reviewed: Mapping[str, Any] | None = None

    def plan(self, *, profiled: bool = True, ledger: str | Path | None = None) -> Plan:
        """The plan, which is the reviewed one if there was one.

        Raises:
            SweepError: as `planner.plan_sweep`.
            UserError: this version of longrange would run something else than what was reviewed.
        """
        made = plan_sweep(self.sweep, self.only, profiled=profiled, ledger=ledger, source=self.source)
        if self.reviewed is not None:
            _compare(made, self.reviewed, self.source)
        return made


def to_json(made: Plan, only: Sequence[str] = ()) -> dict[str, Any]:
    """A plan as `longrange plan --save` writes it."""
    review = {
        "format": FORMAT,
        "sweep": made.sweep.to_json(),
        "only": list(only),
        "code": {arm.arm_id: code_fingerprint(arm.spec) for arm in made.arms},
    }
    return {**made.to_json(), "review": review}


def request(source: str, overrides: Sequence[str] = (), only: Sequence[str] = ()) -> Request:
    """Read a sweep by name or path, or a plan that was saved (`.json`).

    Raises:
        UserError: as `planner.load`; a file that is no saved plan; overrides of a saved plan.
    """
    path = Path(source)
    if path.suffix != ".json" or not path.is_file():
        return Request(load(source, overrides), tuple(only), source)
    if overrides or only:
        raise UserError(f"{source} is a plan that was saved: it runs as it is; give --set and --only with its sweep")
    found = _read(path)
    review = found["review"]
    return Request(parse_sweep(review["sweep"], source=source), tuple(review["only"]), source, found)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        review = found["review"]
        known = review["format"] == FORMAT
        complete = {"sweep", "only", "code"} <= set(review) and all("trial_id" in one for one in found["trials"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no saved plan; `longrange plan SWEEP --save {path}` makes one") from error
    if not (known and complete):
        raise UserError(f"{path} was saved by another version of longrange; save it again: longrange plan SWEEP --save")
    return dict(found)


def _compare(made: Plan, reviewed: Mapping[str, Any], source: str) -> None:
    """Raise if the plan is not the one that was reviewed."""
    before = [one["trial_id"] for one in reviewed["trials"]]
    now = [trial.trial_id for _, trial in made.ordered()]
    gone, new = [key for key in before if key not in set(now)], [key for key in now if key not in set(before)]
    code = reviewed["review"]["code"]
    changed = [arm.label for arm in made.arms if arm.arm_id in code and code[arm.arm_id] != code_fingerprint(arm.spec)]
    found = []
    if gone:
        found.append(f"{len(gone)} of its {len(before)} trials are no longer planned ({_some(gone)})")
    if new:
        found.append(f"{len(new)} trials are new ({_some(new)})")
    if changed:
        found.append(f"the code of {len(changed)} arms has changed ({_some(changed)})")
    if found:
        raise UserError(
            f"{source} is not what would run now: {'; '.join(found)}. Nothing was started; review it again: "
            f"longrange plan SWEEP --save {source}"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
