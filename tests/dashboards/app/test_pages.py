from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
import yaml
from components import find
from sqlalchemy.orm import Session

from dashboards import metrics
from dashboards.app import paired
from dashboards.app.layout import PAGES
from dashboards.app.pages.compare import flatten
from dashboards.app.pages.trial import rerun
from dashboards.app.store import Store
from dashboards.app.view import View, link
from orchestrator.records import schema as s

Show = Callable[..., tuple[list[Any], str]]
TWO = [
    ledgers.Arm("none", {"name": "none"}, {}, 50.0, 0.5, 1_620_000, control=True),
    ledgers.Arm("nl", {"name": "nl"}, {"res3": [0]}, 60.0, 0.5, 1_980_000),
]
SWEEP_PAGES = ["/", "/sweep", "/effects", "/compare", "/failures"]


@pytest.fixture(scope="module")
def store(quickstart_path: Path) -> Store:
    return Store(quickstart_path)


def write(folder: Path, arms: list[ledgers.Arm] = TWO, **options: Any) -> Path:
    return ledgers.write(folder / "ledger.db", arms, **options)


def change(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def test_the_first_page_starts_with_the_newest_sweeps_answer(store: Store, show: Show) -> None:
    _content, said = show(store, "/")
    assert "nl@res3 is best: +42.9 points" in said
    assert "105 / 105 ended" in said
    assert "103 finished, 1 diverged, 1 failed" in said


def test_the_sweeps_page_has_answer_table_and_two_charts(store: Store, show: Show) -> None:
    content, said = show(store, "/sweep", "?sweep=quickstart")
    assert "95 % certain" in said
    assert "digits supports no claim about video recognition" in said
    assert [graph.id["graph"] for graph in find(content, "Graph")] == ["frontier", "curves"]
    assert len(find(content, "Img")) == 21
    rows = find(find(content, "Tbody")[0], "Tr")
    assert len(rows) == 21
    assert "nl@res3" in str(rows[0])


@pytest.mark.parametrize(
    ("search", "labels"),
    [
        ("block=se", ["se"]),
        ("block=bat&block=se&sort=label", ["bat k=4", "bat k=8", "se"]),
        ("verdict=undecided", ["nl@res5"]),
        ("find=RNL+1×3×3", ["rnl [1, 3, 3]"]),
        ("find=KERNEL%3D3×1", ["rnl [3, 1, 1]"]),
        ("block=pnl&sort=cost", ["pnl n=1", "pnl n=2", "pnl n=4"]),
    ],
)
def test_filters(store: Store, show: Show, search: str, labels: list[str]) -> None:
    content, _ = show(store, "/sweep", f"?sweep=quickstart&{search}")
    shown = [button.children for button in find(content, "Button") if "swatched" in (button.className or "")]
    assert shown == labels
    points = [trace for trace in find(content, "Graph")[0].figure.data if trace.customdata is not None]
    assert sum(len(trace.customdata) for trace in points) == len(labels)


def test_a_filter_changes_what_is_shown_but_no_verdict(store: Store, show: Show) -> None:
    _, every = show(store, "/sweep", "?sweep=quickstart")
    _, few = show(store, "/sweep", "?sweep=quickstart&block=se")
    assert "+36.7" in every
    assert "+36.7" in few
    assert "Holm over 20 comparisons" in few


def test_filters_that_leave_nothing_say_so(store: Store, show: Show) -> None:
    _content, said = show(store, "/sweep", "?sweep=quickstart&find=nonsense")
    assert "No arm fits these filters" in said
    assert "Show all arms" in said


def test_the_chosen_arm_links_to_its_trials(store: Store, show: Show) -> None:
    content, said = show(store, "/sweep", "?sweep=quickstart&arm=nl%40res5")
    hrefs = [each.href for each in find(content, "Link")]
    assert [href for href in hrefs if href.startswith("/trial")] == [
        f"/trial?sweep=quickstart&trial={4:08x}{seed:08x}" for seed in range(5)
    ]
    assert any(href.startswith("/compare?sweep=quickstart&a=") for href in hrefs)
    assert "∞ diverged" in said


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_follow_the_theme(store: Store, theme: Any) -> None:
    held = View.of(store, "/sweep", "?sweep=quickstart", theme)
    figure = find(PAGES["/sweep"][1](held), "Graph")[0].figure
    ink = {"light": "#1c2430", "dark": "#e6e9ee"}
    assert figure.layout.template.layout.font.color == ink[theme]


def test_effects(store: Store, show: Show) -> None:
    content, said = show(store, "/effects", "?sweep=quickstart&block=hgnl")
    main, _ = store.sweep("quickstart").effects("hgnl")
    assert f"{main['mean'].iloc[0]:.1f}" in said
    assert "4 of 9 combinations were not run" in said
    assert [graph.id["graph"] for graph in find(content, "Graph")] == ["ablation", "cells", "lines"]
    _, said = show(store, "/effects", "?sweep=quickstart&block=hgnl&first=block.g1&second=block.g1")
    assert "Choose two different ones" in said


def test_compare_gives_the_sweeps_numbers(store: Store, show: Show) -> None:
    content, said = show(store, "/compare", "?sweep=quickstart&a=nl%40res3&b=none")
    held = store.sweep("quickstart")
    row = held.table().loc[held.arm_id("nl@res3")]
    assert f"+{row['difference']:.1f} points [+{row['diff_low']:.1f}, +{row['diff_high']:.1f}]" in said
    found = held.by_clip("nl@res3", "none")
    assert found is not None
    assert f"{found.only_first:.1f}" in said
    assert "block.heads" in said
    assert [graph.id["graph"] for graph in find(content, "Graph")] == ["seeds", "classes"]


def test_compare_without_a_choice_is_best_against_control(store: Store, show: Show) -> None:
    assert show(store, "/compare", "?sweep=quickstart")[1] == show(store, "/compare", "?a=nl%40res3&b=none")[1]


def test_differences_by_seed() -> None:
    values = pd.DataFrame([[3.0, 5.0, 4.0], [1.0, 2.0, np.nan]], index=["a", "b"], columns=[0, 1, 7])
    found = paired.info(values, "a", "b", metrics.TOP1, ("nl", "none"))
    assert (found.difference, found.pairs, found.method) == (2.5, 2, "paired t")
    assert found.seeds[:2] == ((0, 3.0, 1.0), (1, 5.0, 2.0))
    assert math.isnan(found.seeds[2][2])
    assert paired.draw(found).data[0].x == (2.0, 3.0)


def test_one_shared_seed_decides_nothing(tmp_path: Path, show: Show) -> None:
    _, said = show(write(tmp_path, seeds=1), "/compare", "?sweep=quickstart")
    assert "one shared seed decides nothing" in said
    assert "undecided" in show(tmp_path, "/sweep")[1]


def test_a_configuration_is_flat_but_insertion_is_one_choice() -> None:
    spec = {"block": {"name": "rnl", "kernel": [3, 1, 1]}, "insertion": {"res3": [0], "res4": [1, 3]}}
    assert flatten(spec) == {"block.name": "rnl", "block.kernel": "3×1×1", "insertion": "res3 + res4[1,3]"}


def test_a_finished_trial(store: Store, show: Show) -> None:
    content, said = show(store, "/trial", f"?trial={1:08x}{0:08x}")
    assert "nl@res2" in said
    assert "✓ finished" in said
    assert "cpu on laptop" in said
    figure = find(content, "Graph")[0].figure
    assert len(figure.data) == 5
    assert "this trial" in figure.data[0].name


def test_the_command_to_run_a_trial_again() -> None:
    spec = {"block": {"name": "rnl", "kernel": [3, 1, 1]}, "insertion": {"res3": [0]}, "recipe": {"epochs": 4}}
    command = rerun("my sweep.yaml", {"spec": spec, "seed": 3, "trial_id": "ab" * 8})
    assert command == (
        """longrange run 'my sweep.yaml' --only 'block={"name": "rnl", "kernel": [3, 1, 1]}' """
        """--only 'insertion={"res3": [0]}' --set 'seeds=[3]' --out runs/again-abababababababab"""
    )
    assert yaml.safe_load('{"name": "rnl", "kernel": [3, 1, 1]}') == spec["block"]


def test_a_failed_trial_says_why(store: Store, show: Show) -> None:
    content, said = show(store, "/trial", f"?trial={20:08x}{0:08x}")
    assert "This trial failed." in said
    assert "ValueError: <script>alert(1)</script> & co" in said
    assert not find(content, "Graph")


def test_links_to_mlflow_only_over_http(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    trial = f"{0:08x}{0:08x}"
    row = f"('{trial}', '{{}}', 1, 'r1', 'finished', 1.0)"
    change(
        path,
        *(
            f"INSERT INTO mirror VALUES {row.format(uri)}"
            for uri in ("https://mlflow.example/", "javascript:alert(1)", "sqlite:////x y/mlflow.db")
        ),
    )
    content, said = show(path, "/trial", f"?trial={trial}")
    assert sorted(each.href for each in find(content, "A")) == [
        "http://127.0.0.1:5000/#/runs/r1",
        "http://127.0.0.1:5000/#/runs/r1",
        "https://mlflow.example/#/runs/r1",
    ]
    assert "mlflow ui --backend-store-uri 'sqlite:////x y/mlflow.db'" in said


def test_failures(store: Store, show: Show) -> None:
    content, said = show(store, "/failures", "?sweep=quickstart")
    assert "pnl n=3" in said
    assert "32 channels are not divisible by n=3" in said
    assert len(find(find(content, "Tbody")[1], "Tr")) == 2
    content, said = show(store, "/failures", "?sweep=quickstart&cause=bug")
    assert len(find(find(content, "Tbody")[1], "Tr")) == 1


def test_no_audit_says_how_to_make_one(store: Store, show: Show) -> None:
    assert "longrange audit --json -o" in show(store, "/audit")[1]


def test_audit(tmp_path: Path, show: Show) -> None:
    rows = [
        {
            "row_id": f"r{i}",
            "paper": "rnl",
            "model": f"model {i}",
            "metric": "gflops",
            "published": str(p),
            "executed": e,
        }
        | {"reproduced": float(p), "verdict": "exact" if i else "not reproduced", "reason": "why", "rule": ""}
        for i, (p, e) in enumerate(((10, 12.0), (20, 48.0), (30, 24.0)))
    ]
    (tmp_path / "audit.json").write_text(json.dumps({"rows": rows}))
    content, said = show(write(tmp_path), "/audit")
    assert "67 %" in said
    assert "2 of 3 models change places" in said
    content, said = show(tmp_path, "/audit", "?verdict=exact&find=model+2")
    assert len(find(find(content, "Tbody")[1], "Tr")) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 3}', '{"rows": [1]}', "\x00"])
def test_a_broken_audit_says_how_to_make_a_new_one(tmp_path: Path, show: Show, content: str) -> None:
    (tmp_path / "audit.json").write_text(content)
    assert "write it again with `longrange audit --json -o`" in show(write(tmp_path), "/audit")[1]


@pytest.mark.parametrize("path", SWEEP_PAGES)
def test_no_sweep_at_all(tmp_path: Path, show: Show, path: str) -> None:
    ledger = tmp_path / "ledger.db"
    s.Base.metadata.create_all(sa.create_engine(f"sqlite:///{ledger}"))
    assert "longrange run quickstart" in show(ledger, path)[1]


@pytest.mark.parametrize(
    ("path", "search", "said"),
    [
        ("/sweep", "sweep=nope", "no sweep named 'nope'; it holds: quickstart"),
        ("/sweep", "arm=nope", "unknown arm 'nope'; use one of: none"),
        ("/sweep", "metric=nope", "unknown metric 'nope'; use one of: top1_percent"),
        ("/sweep", "cost=nope", "unknown cost 'nope'"),
        ("/sweep", "sort=nope", "unknown sort 'nope'"),
        ("/effects", "block=nope", "unknown block 'nope'; use one of: nl"),
        ("/effects", "block=hgnl&first=nope", "unknown first 'nope'; use one of: block.g1"),
        ("/compare", "a=nope", "unknown arm 'nope'"),
        ("/compare", "a=nl%40res2&b=nl%40res2", "Choose two different arms"),
        ("/trial", "trial=nope", "no trial 'nope'"),
        ("/trial", "", "Choose an arm on the answer page"),
        ("/nope", "", "There is no such page"),
        ("/sweep", "page=0&page=x&page=-1", "Every arm"),
        ("/sweep", "page=99999", "Every arm"),
        ("/sweep", "block=nope", "No arm fits these filters"),
    ],
)
def test_addresses_that_name_what_is_not_there(store: Store, show: Show, path: str, search: str, said: str) -> None:
    assert said in show(store, path, f"?{search}")[1]


@pytest.mark.parametrize("path", SWEEP_PAGES)
@pytest.mark.parametrize(
    "state", [s.State.PLANNED, s.State.RUNNING, s.State.FAILED, s.State.DIVERGED, s.State.CANCELLED]
)
def test_sweeps_without_a_finished_trial(tmp_path: Path, show: Show, path: str, state: s.State) -> None:
    _content, said = show(write(tmp_path, state=state), path)
    assert "cannot be shown" not in said
    if path == "/sweep":
        assert {
            s.State.PLANNED: "This page fills itself as trials end",
            s.State.RUNNING: "This page fills itself as trials end",
            s.State.FAILED: "All trials ended without one (10 failed)",
            s.State.DIVERGED: "All trials ended without one (10 diverged)",
            s.State.CANCELLED: "All trials ended without one (10 cancelled)",
        }[state] in said
    if path == "/" and state == s.State.RUNNING:
        assert "Running now" in said
        assert "0 of 4" in said


def test_nan_metrics_count_at_chance(tmp_path: Path, show: Show) -> None:
    broken = ledgers.Arm("nl", {"name": "nl"}, {"res3": [0]}, 60.0, 0.5, 1_980_000, values=dict.fromkeys(range(5)))
    path = write(tmp_path, [TWO[0], broken], predictions=False)
    for page in SWEEP_PAGES:
        _content, said = show(path, page)
        assert "cannot be shown" not in said
    assert "5 diverged, counted at chance level" in show(path, "/sweep")[1]
    assert "NaN" in show(path, "/trial", f"?trial={1:08x}{0:08x}")[1]


def test_one_seed_has_no_interval(tmp_path: Path, show: Show) -> None:
    _, said = show(write(tmp_path, seeds=1), "/sweep")
    assert "One seed decides nothing" in said
    assert "one seed: its spread is unknown" in said


def test_a_sweep_of_rejections_only(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path, [])
    assert "32 channels are not divisible" in show(path, "/sweep")[1]
    for page in SWEEP_PAGES:
        assert "cannot be shown" not in show(path, page)[1]


def test_names_are_text_and_addresses_survive_them(tmp_path: Path, show: Show) -> None:
    name = "../<script>alert('1')</script>?a=1&b=%2F#x ü"
    path = write(tmp_path, name=name)
    content, said = show(path, "/")
    assert name in said
    href = next(each.href for each in find(content, "Link") if each.children == name)
    assert name in show(path, *href.split("?", 1))[1] or "Which block" in show(path, *href.split("?", 1))[1]
    assert not find(content, "Markdown")
    assert href == link("/sweep", sweep=name)


def test_long_tables_come_in_pages(tmp_path: Path, show: Show) -> None:
    many = [
        TWO[0],
        *(
            ledgers.Arm(f"nl {i:02}", {"name": "nl", "i": i}, {"res3": [0]}, 60.0 - i, 0.5, 2_000_000 + i)
            for i in range(60)
        ),
    ]
    path = write(tmp_path, many, seeds=2, predictions=False)
    content, said = show(path, "/sweep", "?sort=plan&page=3")
    assert "51–61 of 61 arms" in said
    assert len(find(content, "Img")) == 11
    assert find(content, "Graph")[0].figure.data[0] is not None


def test_a_changed_ledger_is_read_again(tmp_path: Path, show: Show) -> None:
    path, now = write(tmp_path, state=s.State.PLANNED), [0.0]
    store = Store(path, clock=lambda: now[0])
    before = store.version()
    assert "0 / 10 ended" in show(store, "/")[1]
    change(path, "UPDATE trials SET state = 'cancelled'")
    assert "0 / 10 ended" in show(store, "/")[1]
    assert store.version() != before
    assert "10 / 10 ended" in show(store, "/")[1]


def test_a_busy_ledger_is_not_read_more_often_than_it_can_be(tmp_path: Path) -> None:
    path, now = write(tmp_path), [0.0]
    store = Store(path, clock=lambda: now[0])

    def slow() -> None:
        now[0] += 2.0

    store.timed(slow)
    change(path, "UPDATE sweeps SET updated_at = 1")
    first = store.version()
    change(path, "UPDATE sweeps SET updated_at = 2")
    assert store.version() == first
    now[0] += 21.0
    assert store.version() != first


def test_a_locked_ledger_says_so_and_recovers(tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dashboards.queries.BUSY_SECONDS", 0.05)
    path = write(tmp_path)
    store = Store(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    _, said = show(store, "/sweep")
    assert "The ledger cannot be read now" in said
    assert "tries again by itself" in said
    writer.execute("ROLLBACK")
    writer.close()
    assert "Every arm" in show(store, "/sweep")[1]


def test_the_ledger_goes_away_while_it_is_shown(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    store = Store(path)
    path.unlink()
    store.version()
    assert "The ledger cannot be read now" in show(store, "/sweep")[1]


def test_nothing_is_written(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    before = path.read_bytes()
    for page in PAGES:
        show(path, page)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_trial_of_two_sweeps_is_shown_in_either(tmp_path: Path, show: Show) -> None:
    path = write(tmp_path)
    engine = sa.create_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        row = {"uid": "1" * 16, "question": "Again?", "definition": {}, "created_at": 1.0, "updated_at": 2.0}
        session.add(s.SweepRow(id=2, name="again", **row))
        session.flush()
        session.add(s.SweepTrialRow(sweep_id=2, trial_id=f"{1:08x}{0:08x}", position=0))
        session.commit()
    engine.dispose()
    assert "← quickstart" in show(path, "/trial", f"?trial={1:08x}{0:08x}")[1]
    assert "← again" in show(path, "/trial", f"?trial={1:08x}{0:08x}&sweep=again")[1]
