"""What each page shows of a sweep that went well."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dashboard_ledgers as ledgers
import numpy as np
import pandas as pd
import pytest
import yaml
from components import find
from dashboard_ledgers import TWO

from dashboards import metrics
from dashboards.app import paired
from dashboards.app.layout import PAGES
from dashboards.app.pages.compare import flatten
from dashboards.app.pages.trial import rerun
from dashboards.app.store import Store
from dashboards.app.view import View

Show = Callable[..., tuple[list[Any], str]]


@pytest.fixture(scope="module")
def store(quickstart_path: Path) -> Store:
    return Store(quickstart_path)


def test_the_first_page_starts_with_the_newest_sweeps_answer(store: Store, show: Show) -> None:
    _content, said = show(store, "/")
    assert "nl@res3 is best: +42.9\xa0points" in said
    assert "105 / 105 ended" in said
    assert "103 finished, 1 diverged, 1 failed" in said


def test_the_sweeps_page_has_answer_table_and_two_charts(store: Store, show: Show) -> None:
    content, said = show(store, "/sweep", "?sweep=quickstart")
    assert "better than none at the 5 % level (paired t test" in said
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
    assert [graph.id["graph"] for graph in find(content, "Graph")] == ["ablation", "cells", "lines", "parallel"]
    _, said = show(store, "/effects", "?sweep=quickstart&block=hgnl&first=block.g1&second=block.g1")
    assert "Choose two different ones" in said


def test_compare_gives_the_sweeps_numbers(store: Store, show: Show) -> None:
    content, said = show(store, "/compare", "?sweep=quickstart&a=nl%40res3&b=none")
    held = store.sweep("quickstart")
    row = held.table().loc[held.arm_id("nl@res3")]
    assert f"+{row['difference']:.1f}\xa0points [+{row['diff_low']:.1f}, +{row['diff_high']:.1f}]" in said
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
    _, said = show(ledgers.write(tmp_path / "ledger.db", TWO, seeds=1), "/compare", "?sweep=quickstart")
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
    path = ledgers.write(tmp_path / "ledger.db", TWO)
    trial = f"{0:08x}{0:08x}"
    row = f"('{trial}', '{{}}', 1, 'r1', 'finished', 1.0)"
    ledgers.change(
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
    content, said = show(ledgers.write(tmp_path / "ledger.db", TWO), "/audit")
    assert "67 %" in said
    assert "2 of 3 models change places" in said
    content, said = show(tmp_path, "/audit", "?verdict=exact&find=model+2")
    assert len(find(find(content, "Tbody")[1], "Tr")) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": 3}', '{"rows": [1]}', "\x00"])
def test_a_broken_audit_says_how_to_make_a_new_one(tmp_path: Path, show: Show, content: str) -> None:
    (tmp_path / "audit.json").write_text(content)
    assert (
        "write it again with `longrange audit --json -o`"
        in show(ledgers.write(tmp_path / "ledger.db", TWO), "/audit")[1]
    )
