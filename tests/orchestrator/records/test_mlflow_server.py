"""The mirror through `mlflow server`: the same runs, several at once, and a server that is away for a while."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from mirror_world import World, ended
from mlflow_server import MlflowServer

from orchestrator.errors import MirrorError
from orchestrator.records.ledger import Ledger
from orchestrator.records.mlflow_mirror import Copied, Mirror


def many_more(ledger: Ledger, sample: Any, seeds: int) -> int:
    """Finished trials of another sweep; how many."""
    plan = sample.plan(arms=4, seeds=seeds, name="many more")
    ledger.record_plan(plan, now=50.0)
    mine = [claim.trial_id for claim in ledger.claim(sample.ids(plan), "me", 1e9, now=60.0)]
    ledger.apply([event for trial_id in mine for event in sample.whole(trial_id)], "me")
    return len(mine)


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[MlflowServer]:
    """`mlflow server` on the world's store, as `mlflow ui` starts it."""
    with MlflowServer(world.uri, tmp_path) as running:
        yield running


@pytest.mark.slow
def test_a_server_shows_runs_curves_and_artifacts(
    world: World, server: MlflowServer, sample: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """First through the file, as `longrange run` does, shown by the server; then through the server itself."""
    report = tmp_path / "report.html"
    report.write_text("<html>the report</html>")
    mirror = world.mirror()
    mirror.catch_up()
    mirror.log_artifacts("<script>alert(1)</script> & co", [report])
    parent = world.runs()["parent"]["run_id"]
    with urllib.request.urlopen(
        f"{server.address}/get-artifact?path=report.html&run_uuid={parent}", timeout=30
    ) as answer:
        assert answer.read() == report.read_bytes()
    remote = Mirror(server.address, world.ledger)
    assert remote.catch_up() == Copied(runs=5), "another address is another store to the ledger"
    assert capfd.readouterr().out == "", "MLflow prints two lines per run unless told not to"
    assert remote.catch_up() == Copied(runs=0)
    assert remote.rebuild() == Copied(runs=5)
    client = remote._client
    (experiment,) = [one for one in client.search_experiments() if one.name != "Default"]
    assert len(client.search_runs([experiment.experiment_id], "tags.`mlflow.parentRunId` LIKE '%'")) == 5


@pytest.mark.slow
def test_a_server_that_goes_away_is_caught_up_with(world: World, server: MlflowServer, sample: Any) -> None:
    """Killed in the middle of a copy by several threads, and started again: each trial has one complete run."""
    many_more(world.ledger, sample, seeds=30)
    mirror = Mirror(server.address, world.ledger)
    assert mirror.catch_up(limit=20) == Copied(runs=20)
    Timer(1.0, server.stop).start()
    with pytest.raises(MirrorError, match="catches up"):
        mirror.catch_up()
    server.start()
    left = len(ended(world.ledger)) - 20
    assert 0 < mirror.catch_up().runs <= left
    assert mirror.catch_up() == Copied(runs=0)
    copies = {(copy.sweep_uid, copy.trial_id): len(copy.points) + len(copy.results) for copy in ended(world.ledger)}
    assert len(copies) == left + 20 > 100
    found = world.query(
        "SELECT s.value, t.value, r.status, (SELECT count(*) FROM metrics m WHERE m.run_uuid = r.run_uuid "
        "AND m.key NOT LIKE 'model/%') FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND "
        "t.key = 'longrange.trial_id' JOIN tags s ON s.run_uuid = r.run_uuid AND s.key = 'longrange.sweep_uid' "
        "WHERE r.lifecycle_stage = 'active'"
    )
    assert {(uid, trial_id): points for uid, trial_id, _, points in found} == copies
    assert len(found) == len(copies), "no trial has two runs"
    assert "RUNNING" not in {status for _, _, status, _ in found}
