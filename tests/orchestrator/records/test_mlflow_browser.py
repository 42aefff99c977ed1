"""MLflow's own pages in a real browser: the report opens on the parent's, curves are drawn on a child's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, needs_chromium
from mirror_world import World
from mlflow_server import MlflowServer

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]
SLOW = 90_000  # ms; MLflow's page is several megabytes of script


@pytest.fixture
def page() -> Iterator[Any]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1400, "height": 900})


def test_the_report_opens_on_the_parent_and_curves_on_a_child(world: World, tmp_path: Path, page: Any) -> None:
    report = tmp_path / "report.html"
    report.write_text("<html><body><h1>which block pays</h1></body></html>")
    mirror = world.mirror()
    mirror.catch_up()
    mirror.log_artifacts("<script>alert(1)</script> & co", [report])
    runs = world.runs()
    parent = runs.pop("parent")
    child = next(run for run in runs.values() if run["status"] == "FINISHED")
    alerts: list[str] = []
    page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    ((experiment,),) = world.query("SELECT experiment_id FROM runs WHERE run_uuid = ?", parent["run_id"])
    with MlflowServer(world.uri, tmp_path) as server:
        place = f"{server.address}/#/experiments/{experiment}/runs"
        page.goto(f"{place}/{parent['run_id']}/artifacts/report.html", wait_until="domcontentloaded")
        page.frame_locator("iframe").get_by_text("which block pays").wait_for(timeout=SLOW)
        page.goto(f"{place}/{child['run_id']}/model-metrics", wait_until="domcontentloaded")
        page.locator(".main-svg .scatterlayer .trace path.js-line").first.wait_for(state="attached", timeout=SLOW)
        page.goto(place, wait_until="domcontentloaded")
        page.get_by_text("<script>alert(1)</script> & co").first.wait_for(timeout=SLOW)
    assert alerts == []
