"""The example of one's own network and training function: short, and ablated with everything that comes for free."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from orchestrator.cli import cli

DOCS = Path(__file__).parents[2] / "docs"


def test_it_has_at_most_thirty_lines_and_is_on_the_page() -> None:
    source = (DOCS / "examples" / "my_model.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.split("\n")) <= 30
    assert '--8<-- "examples/my_model.py"' in (DOCS / "howto" / "model.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_sweep_shows_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    page = (DOCS / "howto" / "model.md").read_text(encoding="utf-8")
    (text,) = [part.split("```")[0] for part in page.split("```yaml\n")[1:] if "name: bars" in part]
    sweep, run = tmp_path / "bars.yaml", tmp_path / "run"
    sweep.write_text(yaml.safe_dump(yaml.safe_load(text) | {"seeds": 1}))

    def longrange(*words: object) -> str:
        done = CliRunner().invoke(cli, [*map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    planned = json.loads(longrange("plan", sweep, "--only", "block.name=nl", "--json"))
    assert planned["estimate"]["trials"] == 2
    quiet = ("--executor", "inline", "--mlflow", "off", "--quiet", "--only", "block.name=nl")
    longrange("run", sweep, "--out", run, *quiet)
    assert (run / "report.html").is_file()
    table = longrange("table", run, "--format", "csv", "--columns", "arm,mean,executed_macs")
    rows = {row["label"]: row for row in csv.DictReader(table.splitlines())}
    assert float(rows["none"]["mean"]) < 65
    assert float(rows["nl"]["mean"]) > 95
    assert float(rows["nl"]["executed_macs"]) > float(rows["none"]["executed_macs"]) > 0
