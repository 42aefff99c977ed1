"""How a trial looks in MLflow: names, params, metrics, tags and status. Pure: no MLflow here, nothing is written.

- params: the trial's whole configuration, flattened (`block.kernel`, `recipe.lr`, `insertion.res3`), and its seed.
- metrics: per epoch under their own names, step = epoch; final values under `final/NAME`; `model/params` and
  `model/executed_macs`, so that MLflow's own charts can put accuracy over cost.
- tags `longrange.*`: what one searches and groups by.
- notes: a link to the same trial or sweep in the dashboard, which links back.
- dataset: the workload by its name; its digest is the fingerprint of the data, or of the configuration where that says
  everything (embedded data).
"""

from __future__ import annotations

import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from orchestrator.records.mirroring import Copy, Sweep
from orchestrator.records.schema import State
from orchestrator.trial import canonical_json

PREFIX = "longrange."
KIND, TRIAL, UID, ENDED_AT = (PREFIX + name for name in ("kind", "trial_id", "sweep_uid", "ended_at"))
PARENT = "mlflow.parentRunId"
NAME = "mlflow.runName"
NOTE = "mlflow.note.content"
DASHBOARD = "http://127.0.0.1:8050"  # where `longrange ui` serves unless told otherwise

STATUS = {
    State.FINISHED: "FINISHED",
    State.DIVERGED: "FAILED",  # a result, but no model; the tag `longrange.state` tells it from a fault
    State.INFEASIBLE: "FAILED",
    State.FAILED: "FAILED",
    State.CANCELLED: "KILLED",
}
CONTEXT = ("mlflow.data.context", "training")  # how a run uses its dataset; MLflow's own word
NAME_LIMIT, DIGEST_LIMIT = 500, 36  # characters, of datasets
VALUE_LIMIT = 5_000  # characters of a param or tag, below the limits of every MLflow since 3.4


@dataclass(frozen=True)
class Value:
    """One point of a metric's series."""

    name: str
    value: float
    at_ms: int
    step: int


@dataclass(frozen=True)
class Data:
    """What a run was trained on, as MLflow's datasets say it; `source` is the workload's configuration as JSON."""

    name: str
    digest: str
    source: str
    source_type: str = "longrange"


def data(copy: Copy) -> Data:
    """The trial's workload as a dataset; trials on the same data share it."""
    workload = copy.spec["workload"]
    source = canonical_json(workload)
    digest = copy.data_fingerprint or hashlib.sha256(source.encode()).hexdigest()
    return Data(str(workload["name"])[:NAME_LIMIT], digest[:DIGEST_LIMIT], source)


def key(name: str) -> str:
    """A name MLflow accepts: its alphabet, at most 250 characters, no path that climbs."""
    plain = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    plain = "/".join(part for part in plain.split("/") if part not in ("", ".", ".."))
    return plain[:250] or "_"


def folder_name(name: str) -> str:
    """Where artifacts of a sweep go, from its name."""
    plain = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-.")
    return plain[:80] or "sweep"


def milliseconds(seconds: float) -> int:
    """MLflow's clock."""
    return round(seconds * 1000)


def params(copy: Copy) -> dict[str, str]:
    """The configuration, one param per leaf."""
    flat = {key(name): _text(value)[:VALUE_LIMIT] for name, value in _leaves(copy.spec, "")}
    return {**flat, "seed": str(copy.seed)}


def metrics(copy: Copy) -> list[Value]:
    """Series, then final values; what was not finite in the ledger is NaN here too."""
    end = milliseconds(copy.ended_at)
    found = list(_series(copy))
    last = max((point.epoch for point in copy.points), default=0)
    found += [Value(key(f"final/{name}"), _number(value), end, last) for name, value in copy.results.items()]
    costs = {"model/params": copy.params, "model/executed_macs": copy.executed_macs}
    found += [Value(name, float(cost), end, 0) for name, cost in costs.items() if cost is not None]
    return found


def tags(copy: Copy, parent: str) -> dict[str, str]:
    """What runs are found, grouped and compared by."""
    spec = copy.spec
    insertion: Mapping[str, Any] = spec.get("insertion") or {}
    own = {
        "kind": "trial",
        "trial_id": copy.trial_id,
        "arm_id": copy.arm_id,
        "arm": copy.label,
        "sweep": copy.sweep_name,
        "sweep_uid": copy.sweep_uid,
        "block": spec["block"]["name"],
        "backbone": spec["backbone"]["name"],
        "workload": spec["workload"]["name"],
        "stage": ",".join(insertion) or "none",
        "insertion": _text(insertion),
        "seed": copy.seed,
        "control": str(copy.is_control).lower(),
        "state": copy.state.value,
        "attempts": copy.attempts,
        "ended_at": repr(copy.ended_at),
        "cause": copy.cause,
        "message": copy.message,
        "host": copy.host,
        "device": copy.device,
    }
    shown = {PREFIX + name: str(value)[:VALUE_LIMIT] for name, value in own.items() if value is not None}
    sha = copy.facts.get("git_sha")
    commit = {"mlflow.source.git.commit": str(sha)} if sha else {}
    link = _dashboard("This trial", "/trial", sweep=copy.sweep_name, trial=copy.trial_id)
    return {**shown, **commit, PARENT: parent, NAME: f"{copy.label[:200]} seed {copy.seed}", NOTE: link, **SOURCE}


SOURCE = {"mlflow.source.name": "longrange", "mlflow.source.type": "LOCAL"}


def parent_tags(sweep: Sweep) -> dict[str, str]:
    """Tags of the run that stands for the whole sweep; its note is markdown, so the question is escaped."""
    link = _dashboard("This sweep", "/sweep", sweep=sweep.name)
    note = "\n\n".join([*([html.escape(sweep.question)] if sweep.question else []), link])
    return {KIND: "sweep", UID: sweep.uid, PREFIX + "sweep": sweep.name, NAME: sweep.name, NOTE: note, **SOURCE}


def _dashboard(what: str, page: str, **query: str) -> str:
    """A link in markdown to where `longrange ui` shows the same; names are percent-encoded, so they cannot end it."""
    return f"[{what} in the dashboard]({DASHBOARD}{page}?{urlencode(query)}), while `longrange ui` runs on its ledger"


def _series(copy: Copy) -> Iterator[Value]:
    """Points at the times their epochs ended, counted from the start: the ledger keeps durations."""
    durations = {point.epoch: point.seconds for point in copy.points}
    ends: dict[int, int] = {}
    clock = copy.started_at
    for epoch in sorted(durations):
        clock += durations[epoch]
        ends[epoch] = milliseconds(clock)
    for point in copy.points:
        yield Value(key(point.name), _number(point.value), ends[point.epoch], point.epoch)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    else:
        yield path, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
