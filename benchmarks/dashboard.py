"""How fast is the dashboard on a large ledger? 10,000 trials of 50 epochs, made up, on as few cores as there are.

    python -m benchmarks.dashboard [--folder /tmp/large] [--arms 2000] [--seeds 5] [--epochs 50] [--out FILE]

Times what the server does for a page (cold: right after the ledger changed; warm: a filter on a page that was open),
and, where Chromium is installed, what a visitor waits for in a real browser: until the page is painted, and from
pressing Enter until both the table and the chart show what a filter leaves. The server is a process of its own, as
under `longrange ui`. Writes benchmarks/results/dashboard-cpu.json.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import socket
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from benchmarks import record
from orchestrator.records import schema as s

BLOCKS = ("none", "nl", "hgnl", "rnl", "pnl", "bat", "se", "cbam", "gc", "cgnl", "cgd")
STAGES = ("res2", "res3", "res4", "res5")
METRICS = ("top1_percent", "train_loss")
CHUNK = 500  # trials written at a time
FIRST_PAGE_SECONDS, FILTER_SECONDS = 1.0, 0.3


def write(path: Path, *, arms: int, seeds: int, epochs: int) -> Path:
    """A ledger with one sweep of `arms` x `seeds` finished trials; one trial in 200 failed."""
    engine = sa.create_engine(f"sqlite:///{path}")
    s.Base.metadata.create_all(engine)
    rng = np.random.default_rng(0)
    with engine.begin() as connection:
        _sweep(connection)
        connection.execute(sa.insert(s.ArmRow), [_arm(at) for at in range(arms)])
        connection.execute(sa.insert(s.SweepArmRow), [_link(at) for at in range(arms)])
        means = 55 + 20 * rng.random(arms)
        for first in range(0, arms * seeds, CHUNK):
            places = range(first, min(first + CHUNK, arms * seeds))
            _trials(connection, [(place, place // seeds, place % seeds) for place in places], means, epochs, rng)
    engine.dispose()
    return path


def _sweep(connection: sa.Connection) -> None:
    times = {"created_at": 1e9, "updated_at": 1e9}
    question = "Which of very many arms pays?"
    row = {"id": 1, "uid": "0" * 32, "name": "large", "question": question, "definition": {"name": "large"}, **times}
    connection.execute(sa.insert(s.SweepRow), row)
    connection.execute(sa.insert(s.EnvironmentRow), {"environment_id": "e" * 16, "facts": {"python": "3.11"}})


def _choice(at: int) -> tuple[str, str, int]:
    return BLOCKS[at % len(BLOCKS)] if at else "none", STAGES[at // len(BLOCKS) % 4], at // (4 * len(BLOCKS))


def _arm(at: int) -> dict[str, Any]:
    block, stage, width = _choice(at)
    spec = {"backbone": {"name": "resnet50", "classes": 400}, "block": {"name": block, "width": width}}
    spec |= {"insertion": {stage: [0]}, "workload": {"name": "clips"}, "recipe": {"epochs": 50}}
    counts = {"params": 24_000_000 + 1000 * at, "executed_macs": 30_000_000_000 + 9_000_000 * at}
    names = {"workload": "clips", "backbone": "resnet50", "block": block}
    profile = {"rules": {}, "per_stage": [], "per_block": []}
    return {"arm_id": f"a{at:015x}", "spec": spec, **names, **counts, "profile": profile}


def _link(at: int) -> dict[str, Any]:
    block, stage, width = _choice(at)
    settings = {"block.name": block, "block.width": width, "insertion": {stage: [0]}}
    label = f"{block}@{stage} width={width}" if at else "control"
    return {"sweep_id": 1, "arm_id": f"a{at:015x}", "position": at, "label": label, "settings": settings} | {
        "is_control": at == 0
    }


def _trials(
    connection: sa.Connection, trials: list[tuple[int, int, int]], means: Any, epochs: int, rng: np.random.Generator
) -> None:
    rows: dict[type[s.Base], list[dict[str, Any]]] = {}

    def add(table: type[s.Base], **values: Any) -> None:
        rows.setdefault(table, []).append(values)

    for place, arm, seed in trials:
        trial_id, state = f"{place:016x}", s.State.FAILED if place % 200 == 199 else s.State.FINISHED
        begun = 1e9 + 60.0 * place
        times = {"started_at": begun, "ended_at": begun + 55}
        add(s.TrialRow, trial_id=trial_id, arm_id=f"a{arm:015x}", seed=seed, state=state, **times)
        add(s.SweepTrialRow, sweep_id=1, trial_id=trial_id, position=place)
        cause = {"cause": "bug", "message": "made up"} if state == s.State.FAILED else {"cause": None, "message": None}
        add(s.AttemptRow, trial_id=trial_id, number=1, owner="driver", outcome=state, **times, **cause)
        rows[s.AttemptRow][-1]["environment_id"] = "e" * 16
        if state == s.State.FAILED:
            continue
        final = float(means[arm] + rng.normal(0, 0.6))
        finals = {"top1_percent": final, "top5_percent": 100 - (100 - final) / 3, "train_seconds": 55.0}
        for name, value in finals.items():
            add(s.ResultRow, trial_id=trial_id, name=name, value=value)
        for name in METRICS:
            for epoch in range(epochs):
                value = final * (1 - 0.9 ** (epoch + 1))
                add(s.EpochMetricRow, trial_id=trial_id, name=name, epoch=epoch, value=value, seconds=1.1)
    for table, values in rows.items():
        connection.execute(sa.insert(table), values)


def pages(path: Path) -> Iterator[tuple[str, float, float]]:
    """(what, seconds, limit) of the server's part: rendering an address and writing it as JSON."""
    from plotly.io.json import to_json_plotly

    from dashboards.app.layout import render
    from dashboards.app.store import Store
    from dashboards.app.view import View

    store = Store(path)

    def timed(path: str, search: str = "") -> float:
        begun = time.perf_counter()
        content, _, _ = render(View.of(store, path, search))
        to_json_plotly(content)
        return time.perf_counter() - begun

    unlimited = float("inf")
    yield "first page, cold", timed("/"), FIRST_PAGE_SECONDS
    yield "sweep, cold", timed("/sweep", "?sweep=large"), unlimited
    for what, search in FILTERS.items():
        yield f"sweep, {what}", timed("/sweep", f"?sweep=large&{search}"), FILTER_SECONDS
    yield "effects, cold", timed("/effects", "?sweep=large&block=nl"), unlimited
    yield "compare, cold", timed("/compare", "?sweep=large"), unlimited
    yield "failures, cold", timed("/failures", "?sweep=large"), unlimited
    yield "trial, cold", timed("/trial", f"?sweep=large&trial={7:016x}"), FIRST_PAGE_SECONDS


FILTERS = {
    "as it was": "",
    "one block": "block=nl",
    "two blocks, one verdict": "block=nl&block=rnl&verdict=better",
    "words": "find=res3",
    "second page": "page=2",
    "an arm": f"arm=a{5:015x}",
}


# The page tells when Enter was pressed, and when the table and the chart that follow it are on the screen.
WATCH = """() => {
  const seen = window.longrangeSeen = {};
  const painted = (name) => requestAnimationFrame(() => setTimeout(() => { seen[name] = performance.now(); }));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { delete seen.table; delete seen.chart; seen.pressed = performance.now(); }
  }, true);
  new MutationObserver(() => {
    const rows = [...document.querySelectorAll("tr td.arm")];
    const there = rows.length && rows.every((row) => row.textContent.includes(seen.word));
    if (there && !seen.found) { seen.found = true; painted("table"); }
  }).observe(document.body, { childList: true, subtree: true, characterData: true });
  document.querySelector(".js-plotly-plot").on("plotly_afterplot", () => painted("chart"));
}"""
WORDS = ("res3", "res4", "width=3", "hgnl", "res2", "pnl", "res5", "width=1")


def browser(path: Path) -> Iterator[tuple[str, float, float]]:
    """(what, seconds, limit) of what a visitor waits for; empty without Chromium."""
    executable = shutil.which("chromium")
    if executable is None:
        return
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with serving(path) as base, sync_playwright() as play:
        page = play.chromium.launch(executable_path=executable, args=flags).new_page()
        page.goto("about:blank")  # starting a browser is not what is timed
        yield "browser: first page", _wait(page, lambda: page.goto(base), ".card.sweep"), FIRST_PAGE_SECONDS
        opened = _wait(page, lambda: page.goto(f"{base}/sweep?sweep=large"), ".figure .point")
        yield "browser: sweep until drawn", opened, float("inf")
        page.wait_for_timeout(1500)
        page.evaluate(WATCH)
        found = [_filter(page, word) for word in WORDS]
        yield f"browser: filter, median of {len(found)}", statistics.median(found), FILTER_SECONDS
        yield f"browser: filter, slowest of {len(found)}", max(found), float("inf")


def _filter(page: Any, word: str) -> float:
    """Seconds from Enter until table and chart are painted."""
    page.evaluate("word => Object.assign(window.longrangeSeen, { word, found: false })", word)
    page.fill("input[type=search]", word)
    page.press("input[type=search]", "Enter")
    ends = time.monotonic() + 30
    while not page.evaluate("window.longrangeSeen.table && window.longrangeSeen.chart"):
        if time.monotonic() > ends:
            raise SystemExit(f"the filter {word!r} was never shown: {page.evaluate('window.longrangeSeen')}")
        time.sleep(0.2)  # rarely: asking costs the page time
    page.wait_for_timeout(500)  # nothing of this one may run into the next
    seen = page.evaluate("window.longrangeSeen")
    return float((max(seen["table"], seen["chart"]) - seen["pressed"]) / 1000)


def _wait(page: Any, act: Callable[[], Any], selector: str) -> float:
    begun = time.perf_counter()
    act()
    page.wait_for_selector(selector, state="attached", timeout=60_000)
    return time.perf_counter() - begun


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """The dashboard in a process of its own, warmed up as `longrange ui` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(path, port))
    process.start()
    base = f"http://127.0.0.1:{port}"
    try:
        _await(base)
        yield base
    finally:
        process.kill()
        process.join()


def _serve(path: Path, port: int) -> None:
    from dashboards.app import serve

    serve(path, port=port)


def _await(base: str) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(base, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the ledger here, and use the one that is there")
    parser.add_argument("--arms", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--out", type=Path, help="file to write instead of one under benchmarks/results")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "ledger.db"
        if not path.exists():
            write(path, arms=given.arms, seeds=given.seeds, epochs=given.epochs)
        found = [*pages(path), *browser(path)]
    for what, seconds, limit in found:
        said = "" if limit == float("inf") else f"  (at most {limit:g} s{'' if seconds <= limit else ': MISSED'})"
        print(f"{what:34} {seconds:7.3f} s{said}")
    rows = [
        {"what": what, "seconds": round(seconds, 4), "limit_seconds": None if limit == float("inf") else limit}
        for what, seconds, limit in found
    ]
    size = {"trials": given.arms * given.seeds, "arms": given.arms, "epochs": given.epochs}
    print(record.write("dashboard", "cpu", {"load_before": load, **size, "rows": rows}, given.out))


if __name__ == "__main__":
    main()
