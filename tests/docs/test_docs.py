"""The documentation says what is there, its links lead somewhere, and its commands and files do what it says."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from chromium import chromium, needs_chromium
from click.testing import CliRunner
from pages import DOCS, OUTSIDE, ROOT, WRITTEN, commands, fences

from blocks import registry
from blocks.registry import BUILTIN
from orchestrator.cli import cli
from orchestrator.errors import LongrangeError
from orchestrator.plan import make_plan
from orchestrator.sweep import parse_sweep, shipped_sweeps
from workloads.backbones.families import PRESETS
from workloads.registry import WORKLOADS

sys.path.insert(0, str(DOCS))

import generate

QUICK = {
    "longrange sweeps",
    "longrange plan quickstart --no-profile --json",
    "longrange plan quickstart --set seeds=3 --set recipe.epochs=2",
    "longrange plan rnl/table2a",
    "longrange table runs/quickstart --columns help",
    "longrange profile --backbone resnet_tiny --block nl --insert res3=0",
}


COMMANDS = sorted({command for path in [*WRITTEN, *OUTSIDE] if path.exists() for command in commands(path)})


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """All pages made from the code but the audit, which takes half a minute."""
    return {uri: make() for uri, make in generate.PAGES.items() if "audit" not in uri}


def test_everything_that_exists_is_mentioned(generated: dict[str, str]) -> None:
    verbs = [" ".join(words) for words, _ in generate.verbs(cli)]
    for uri, names in {
        "reference/cli.md": verbs,
        "reference/blocks.md": BUILTIN,
        "reference/backbones.md": PRESETS,
        "reference/workloads.md": WORKLOADS,
        "reference/sweeps.md": shipped_sweeps(),
    }.items():
        assert [name for name in names if f"`{name}`" not in generated[uri]] == [], uri


def test_every_option_says_what_it_does() -> None:
    """By help; `--theme` and the like say it by their choices or default."""
    silent = [
        f"{' '.join(words)} {option.opts[0]}"
        for words, command in generate.verbs(cli)
        for option in command.params
        if isinstance(option, click.Option) and option.opts[0] != "-o" and not generate.meaning(option)
    ]
    assert silent == []


def test_every_block_tells_its_paper_and_differences(generated: dict[str, str]) -> None:
    for name in set(BUILTIN) - {"none"}:
        told = generate.sections(generate.module_docstring(generate.block_file(name)))
        assert told["Paper"], name
        assert told["Differs from the paper"], name
        assert generate.plain(told["Paper"]) in generated["reference/blocks.md"]


def test_equations_stay_as_they_are_written(generated: dict[str, str]) -> None:
    assert (
        "\n    gaussian           exp(x_i . x_j),             C = sum_j f        (2)\n"
        in generated["reference/blocks.md"]
    )


def test_prose_of_docstrings_means_itself() -> None:
    assert generate.plain("all T*H*W of `a_b*c` < 3") == r"all T\*H\*W of `a_b*c` \< 3"
    assert generate.table(["a"], [["x | y\nz"]]).endswith(r"| x \| y z |")


def test_blocks_readme_is_up_to_date() -> None:
    path = ROOT / "blocks" / "README.md"
    assert generate.blocks_readme(path.read_text(encoding="utf-8")) == path.read_text(encoding="utf-8"), (
        "run python docs/generate.py"
    )


@pytest.mark.parametrize("page", [*WRITTEN, *OUTSIDE], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|#", target):
            continue
        place = (page.parent / target.partition("#")[0]).resolve()
        made = {(DOCS / uri).resolve() for uri in generate.PAGES}
        assert place.exists() or place in made, f"{page.name}: {target}"


def test_the_navigation_holds_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown = set(re.findall(r"[\w/-]+\.md", text))
    here = {str(path.relative_to(DOCS)) for path in WRITTEN if "decisions" not in path.parts}
    assert shown == here | set(generate.PAGES)
    recorded = {uri for _, uri in generate.decisions()}
    assert recorded == {str(path.relative_to(DOCS)) for path in (DOCS / "decisions").glob("*.md")}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command: str) -> None:
    words = shlex.split(re.split(r" [>|;] ", command)[0])[1:]
    group: Any = cli
    while hasattr(group, "commands"):
        word = words.pop(0)
        if word == "VERB":
            return
        found = group.commands.get(word)
        assert found is not None, f"no verb {word!r}"
        group = found
    group.make_context(group.name, words)


def test_sweeps_named_in_commands_exist() -> None:
    named = {words[2] for command in COMMANDS if (words := shlex.split(command))[1] in ("run", "plan")}
    given = {name for name in named if not name.endswith(".yaml")} - {"quickstrat"}
    assert given <= set(shipped_sweeps())


def invoke(command: str) -> str:
    """What a command prints, errors as `main` prints them."""
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(cli, words)
    if isinstance(result.exception, LongrangeError):
        return f"{result.output}error: {result.exception}"
    assert result.exit_code == 0, (command, result.output, result.exception)
    return result.output


def test_quick_commands_are_in_the_docs() -> None:
    assert set(COMMANDS) >= QUICK


@pytest.mark.parametrize("command", sorted(QUICK))
def test_quick_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(invoke(command)) > 100


def troubles() -> list[tuple[str, str]]:
    """Pairs of a command and what it prints, as the page has them."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return [(a.strip(), b.strip()) for a, b in re.findall(r"```sh\n(.*?)```\s+```text\n(.*?)```", text, re.DOTALL)]


@pytest.mark.parametrize(("command", "message"), troubles(), ids=lambda value: value[:60])
def test_error_messages_are_the_real_ones(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in invoke(command)


def test_quoted_messages_are_in_the_code() -> None:
    """What stands in bold and quotes is what a program says; dots stand for what differs."""
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    ours = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("orchestrator", "workloads", "dashboards")
        for path in (ROOT / folder).rglob("*.py")
    )
    said = re.findall(r'\*\*"([^"]+)"\*\*', text)
    parts = {part.strip() for quoted in said for part in quoted.split("…")} - {"", "InvalidAuthToken"}  # Ray's
    assert len(parts) >= 4
    assert {part for part in parts if part not in ours} == set()


def sweeps_in_pages() -> list[Any]:
    found = []
    for page in [*WRITTEN, *OUTSIDE]:
        for text in fences(page, "yaml") if page.exists() else []:
            document = yaml.safe_load(text)
            if isinstance(document, dict) and {"name", "base"} <= set(document):
                found.append(pytest.param(document, id=f"{page.stem}-{document['name']}"))
    return found


@pytest.mark.parametrize("document", sweeps_in_pages())
def test_sweep_files_in_pages_plan(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    monkeypatch.syspath_prepend(str(DOCS / "examples" / "my_block"))
    monkeypatch.setitem(registry._registered, "mean", registry.block_type("my_block:MeanBlock"))  # as if installed
    made = make_plan(parse_sweep(document))
    assert len(made.arms) >= 2


def test_the_example_workload_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "examples"))
    monkeypatch.chdir(tmp_path)
    source = (DOCS / "examples" / "my_workload.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in source.split("\n")) <= 30
    page = fences(DOCS / "howto" / "model.md", "yaml")
    (text,) = [text for text in page if "my_workload:Corners" in text]
    (tmp_path / "corners.yaml").write_text(text)
    said = invoke("longrange run corners.yaml --executor inline --mlflow off --set seeds=1 --quiet")
    assert "2 finished" in said
    assert (tmp_path / "runs" / "corners" / "report.html").is_file()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site, in its own folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_asks_nobody(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        asked = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(https?:[^\" >]+)", text)
        assert [url for url in asked if "canonical" not in url] == [], page.name


@pytest.mark.slow
@needs_chromium
def test_the_search_finds_a_word_when_the_site_is_opened_from_disk(site: Path) -> None:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        outside: list[str] = []
        page.on("request", lambda request: outside.append(request.url) if request.url.startswith("http") else None)
        page.goto((site / "howto" / "block.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("Kronecker")
        page.wait_for_selector(".md-search-result__item")
        assert outside == []


@pytest.mark.slow
@needs_chromium
def test_no_table_is_cut_off_on_a_laptop(site: Path) -> None:
    boxes = "[...document.querySelectorAll('.md-typeset__scrollwrap')]"  # the theme's script wraps every table
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        found = {}
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            page.wait_for_function(f"{boxes}.length == document.querySelectorAll('article table').length")
            found[path.name] = page.evaluate(f"{boxes}.filter(box => box.scrollWidth > box.clientWidth).length")
    assert {name: count for name, count in found.items() if count} == {}


def test_pages_include_the_example_files() -> None:
    """A mark that is not quite right stays as text on the page, and nothing complains."""
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        included = re.findall(r'^--8<-- "([^"]+)"$', text, re.MULTILINE)
        assert len(included) == len(re.findall("8 *< *-", text)), page.name
        assert all((DOCS / name).is_file() for name in included), page.name
    assert '--8<-- "examples/my_workload.py"' in (DOCS / "howto" / "model.md").read_text(encoding="utf-8")


def test_the_citation_names_the_four_papers() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    titles = {item["title"] for item in cited["references"]}
    assert len(titles) == 4
    for item in cited["references"]:  # the format wants authors to differ; two of one paper share a family name
        whole = [(author["family-names"], author["given-names"]) for author in item["authors"]]
        assert len(set(whole)) == len(whole), item["title"]
    for name in ("hgnl", "rnl", "pnl", "bat"):
        paper = generate.sections(generate.module_docstring(generate.block_file(name)))["Paper"]
        assert any(title in paper for title in titles), name


@pytest.mark.parametrize("path", sorted(ROOT.glob(".github/**/*.y*ml")), ids=lambda path: path.name)
def test_issue_templates_are_complete(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    assert all(item["validations"]["required"] for item in form["body"])


def test_pre_commit_runs_what_make_check_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    ours = " ".join(hook["entry"] for hook in hooks)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for tool in ("ruff check", "ruff format", "mypy", "lint-imports"):
        assert tool in ours
        assert f"$(BIN)/{tool}" in makefile
