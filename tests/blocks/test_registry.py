"""Names lead to blocks: built in, by decorator, by entry point, by import path; wrong ones say what is known."""

import subprocess
import sys

import pytest

from blocks import registry
from blocks.configs import BlockConfig, NonLocalConfig, Shape
from blocks.none import NoBlock
from blocks.registry import (
    UnknownBlock,
    block_names,
    block_type,
    build,
    closed_form,
    config_dict,
    config_type,
    parse_config,
    register_block,
)

SHAPE = Shape(8, 2, 3, 5)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


class Installed:
    """What `importlib.metadata` gives for an installed entry point."""

    name = "installed"

    def load(self):
        return NoBlock


def test_every_built_in_block_loads_and_has_the_config_it_is_listed_with():
    for name, (config, _) in registry.BUILTIN.items():
        assert config_type(name) is config
        assert config.name == name
        assert block_type(name).__name__


def test_names_and_configs_do_not_import_torch():
    code = (
        "import sys, blocks; blocks.block_names(); blocks.parse_config({'name': 'rnl'});"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_decorated_block_is_found_by_name(registered):
    @register_block("unheard_of")
    class Mine(NoBlock):
        Config = BlockConfig

    assert block_type("unheard_of") is Mine
    assert config_type("unheard_of") is BlockConfig
    assert "unheard_of" in block_names()


def test_registering_the_same_class_again_is_a_reload(registered):
    first, second = (type("Mine", (NoBlock,), {"__module__": "m", "__qualname__": "Mine"}) for _ in range(2))
    register_block("unheard_of")(first)
    register_block("unheard_of")(second)
    assert block_type("unheard_of") is second


@pytest.mark.parametrize("name", ["nl", "unheard_of"])
def test_a_taken_name_is_refused(registered, name):
    register_block("unheard_of")(type("Mine", (NoBlock,), {}))
    with pytest.raises(ValueError, match=f"block name '{name}' is taken"):
        register_block(name)(type("Other", (NoBlock,), {}))


def test_an_installed_block_is_found_by_entry_point(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group: [Installed()])
    assert "installed" in block_names()
    assert block_type("installed") is NoBlock


def test_a_block_is_found_by_its_import_path():
    assert block_type("blocks.none:NoBlock") is NoBlock


@pytest.mark.parametrize("path", ["blocks.none:Missing", "no_such_package:Block"])
def test_a_wrong_import_path_says_what_failed(path):
    with pytest.raises(UnknownBlock, match=f"cannot load block '{path}'"):
        block_type(path)


def test_a_module_that_is_not_found_says_where_python_looks():
    with pytest.raises(UnknownBlock, match="run from the folder that holds it, install its package, or set PYTHONPATH"):
        block_type("no_such_package:Block")


@pytest.mark.parametrize(("path", "why"), [("os:path", "no class"), ("pathlib:Path", "needs an attribute Config")])
def test_what_is_no_block_says_so(path, why):
    with pytest.raises(UnknownBlock, match=why):
        parse_config({"name": path})


def test_an_unknown_name_that_resembles_none_asks_for_an_import_path():
    with pytest.raises(UnknownBlock, match=r"cgd.*, or MODULE:CLASS of your own$"):
        block_type("my_own_thing")


def test_an_unknown_name_lists_the_known_ones_and_the_closest():
    with pytest.raises(UnknownBlock, match=r"unknown block 'rln'; known blocks: none, nl, .*did you mean 'rnl'"):
        block_type("rln")


def test_a_config_parses_with_its_defaults_and_goes_back():
    config = parse_config({"name": "rnl", "kernel": [3, 3, 3]})
    values = config_dict(config)
    assert values["kernel"] == (3, 3, 3)
    assert values["affinity"] == "gaussian"
    assert parse_config(values) == config


@pytest.mark.parametrize("own", ["nl", "nobody"])
def test_a_block_that_would_be_rebuilt_as_another_is_refused(own, tmp_path, monkeypatch):
    source = f"""
from dataclasses import dataclass
from blocks.configs import NonLocalConfig
from blocks.non_local import NonLocal

@dataclass(frozen=True, kw_only=True)
class MineConfig(NonLocalConfig):
    name = {own!r}

class Mine(NonLocal):
    Config = MineConfig
"""
    (tmp_path / f"renamed_{own}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"let the config's name be 'renamed_{own}:Mine'"):
        parse_config({"name": f"renamed_{own}:Mine"})


def test_a_config_without_a_name_is_refused():
    with pytest.raises(ValueError, match="a block needs a 'name'"):
        parse_config({"heads": 2})


def test_build_and_closed_form_use_the_block_of_the_config():
    config = NonLocalConfig(affinity="dot_product")
    block = build(config, SHAPE)
    assert block.config is config
    assert closed_form(config, SHAPE) == block.cost()
