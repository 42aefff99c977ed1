import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from videos import make_folder

from orchestrator.cli import data


def run(*arguments):
    """Exit code and output of `longrange data ...`, errors as `main` shows them."""
    from orchestrator.errors import LongrangeError

    result = CliRunner().invoke(data.data, [str(argument) for argument in arguments])
    if isinstance(result.exception, LongrangeError):
        return result.exception.exit_code, result.output + str(result.exception)
    return result.exit_code, result.output


@pytest.fixture
def root(tmp_path):
    return make_folder(tmp_path / "squares", train=2, validation=1)


def test_check_shows_counts_and_lengths(root):
    code, text = run("check", root)
    assert code == 0
    assert "2 classes" in text
    assert "32x32 (6)" in text
    assert "0 unreadable" in text


def test_check_speaks_json(root):
    code, text = run("check", root, "--full", "--json")
    report = json.loads(text)
    assert code == 0
    assert (report["dataset"], report["train"], report["usable"]) == ("squares", {"left": 2, "right": 2}, True)


def test_check_fails_and_lists_what_a_trial_would_stumble_over(root):
    (root / "val" / "left" / "000.mp4").write_bytes(b"no video")
    code, text = run("check", root)
    assert code == 1
    assert "val/left/000.mp4: invalid data" in text
    assert "would fail" in text


def test_check_takes_a_list(root):
    rows = ["path,label,split", "train/left/000.mp4,l,train", "val/left/000.mp4,l,val", "none.mp4,r,train"]
    (root / "list.csv").write_text("\n".join(rows))
    code, text = run("check", root / "list.csv", "--json")
    assert code == 1
    assert json.loads(text[: text.rindex("}") + 1])["missing"] == ["none.mp4"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["/no/such/folder"], "does not exist"),
        ([".", "--workload", "digits"], "unknown key|no data on disk"),
        ([".", "--workload", "kinetics40"], "did you mean 'kinetics400'"),
        ([".", "--set", "colour=blue"], "colour"),
        ([".", "--set", "colour"], "FIELD=VALUE"),
        ([".", "--set", "color=grey"], "colour"),
    ],
)
def test_the_users_mistakes_are_one_message(arguments, expected):
    code, text = run("check", *arguments)
    assert code == 2
    assert any(part in text for part in expected.split("|"))


def test_pack_copies_and_says_how_much(root, tmp_path):
    code, text = run("pack", root, tmp_path / "fast", "--short-side", "16")
    assert code == 0
    assert "6 written, 0 were there" in text
    code, text = run("pack", root, tmp_path / "fast", "--short-side", "16", "--json")
    assert json.loads(text)["kept"] == 6
    assert run("check", tmp_path / "fast" / "annotation.csv")[0] == 0


def test_pack_refuses_what_makes_no_sense(root, tmp_path):
    assert run("pack", root, root)[0] == 2
    (tmp_path / "file").touch()
    code, text = run("pack", root, tmp_path / "file")
    assert code == 1
    assert "cannot write to" in text


def test_the_verbs_are_on_the_command_line():
    code = "from orchestrator.cli import main; import sys; sys.argv = ['longrange', 'data', '--help']; main()"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "check" in shown
    assert "pack" in shown
