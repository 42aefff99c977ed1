"""What a run folder remembers, and where passwords come from when a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import cli
from orchestrator.errors import UserError
from orchestrator.launch import DEFAULTS, remember, remembered, without_password
from orchestrator.paths import RunFolder
from orchestrator.records.ledger import Ledger

LEDGER = "postgresql+psycopg2://ann:s3cret@db:5432/ledger?sslmode=require"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (LEDGER, "postgresql+psycopg2://ann@db:5432/ledger?sslmode=require"),
        ("postgresql://ann@db/ledger?password=s3cret", "postgresql://ann@db/ledger"),
        ("https://ann:s3cret@mlflow:5000/x", "https://mlflow:5000/x"),
        ("https://t0ken@mlflow", "https://mlflow"),
        ("sqlite:////data/led@ger.db", "sqlite:////data/led@ger.db"),
        ("/data/ledger.db", "/data/ledger.db"),
        ("off", "off"),
    ],
)
def test_urls_lose_what_is_secret_and_nothing_else(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_an_address_that_cannot_be_read_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^a URL cannot be read \(Invalid IPv6 URL\): it looks like SCHEME://"):
        without_password("http://ann:s3cret@[::1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    for name in ("LONGRANGE_LEDGER", "LONGRANGE_MLFLOW", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return RunFolder.make(tmp_path / "run")


def test_passwords_of_urls_are_not_kept_and_come_from_the_environment(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**DEFAULTS, "sweep": "s", "ledger": LEDGER, "mlflow": "http://ann:s3cret@mlflow:5000"}
    remember(folder, settings)  # type: ignore[arg-type]
    assert "s3cret" not in (folder.root / "run.json").read_text()
    with pytest.raises(UserError, match="set LONGRANGE_LEDGER to the whole URL, or PGPASSWORD"):
        remembered(folder)
    monkeypatch.setenv("LONGRANGE_LEDGER", LEDGER.replace("ledger?", "another?"))
    with pytest.raises(UserError, match="LONGRANGE_LEDGER"):
        remembered(folder)
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    assert remembered(folder)["ledger"] == without_password(LEDGER)
    monkeypatch.setenv("LONGRANGE_LEDGER", LEDGER)
    monkeypatch.setenv("LONGRANGE_MLFLOW", "http://ann:s3cret@mlflow:5000")
    found = remembered(folder)
    assert (found["ledger"], found["mlflow"]) == (LEDGER, "http://ann:s3cret@mlflow:5000")


def test_urls_without_secrets_are_kept_as_they_are(folder: RunFolder) -> None:
    settings = {**DEFAULTS, "sweep": "s", "ledger": "postgresql://ann@db/ledger"}
    remember(folder, settings)  # type: ignore[arg-type]
    assert remembered(folder) == settings


@pytest.mark.usefixtures("_support_on_path")
def test_the_environment_says_where_ledger_and_mirror_are(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text('name: s\nbase: {workload: "scripted:Scripted", insertion: {res3: [0]}, block: nl}\nseeds: 1\n')
    monkeypatch.setenv("LONGRANGE_LEDGER", str(tmp_path / "elsewhere.db"))
    monkeypatch.setenv("LONGRANGE_MLFLOW", "off")
    words = ["run", str(sweep), "--executor", "inline", "--out", str(folder.root), "--quiet"]
    assert CliRunner().invoke(cli, words, catch_exceptions=False).exit_code == 0
    assert (tmp_path / "elsewhere.db").exists()
    assert not folder.ledger.exists()
    assert not (folder.root / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("sweep", "names"),
    [("mine", "longrange run FILE --out"), ("rnl/table2a", "longrange run rnl/table2a --out")],
)
@pytest.mark.parametrize("recorded", [False, True], ids=["no ledger", "a ledger without the sweep"])
def test_a_run_that_was_stopped_before_it_was_recorded_says_how_to_start_it(
    folder: RunFolder, sweep: str, names: str, recorded: bool
) -> None:
    remember(folder, {**DEFAULTS, "sweep": sweep, "only": ["block.name=nl"]})
    if recorded:
        Ledger.open(folder.ledger).close()
    done = CliRunner().invoke(cli, ["resume", str(folder.root)], standalone_mode=False)
    assert isinstance(done.exception, UserError)
    told = str(done.exception)
    assert repr(sweep) in told
    assert "stopped before" in told
    assert f"{names} {folder.root} --only block.name=nl" in told
    assert "\n" not in told
