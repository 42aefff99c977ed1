"""Name -> block. Built-in blocks are listed here by name and import path; others register themselves.

Three ways for somebody else's block: the decorator `register_block`, the entry-point group ``longrange.blocks`` of an
installed package, or ``"module:Class"`` as the name in a sweep. None of them touches this project's files.
Reading names and configs of the built-in blocks does not import torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, TypeVar

from blocks import configs
from blocks.configs import BlockConfig, Shape

if TYPE_CHECKING:
    from blocks.base import Block, Cost

ENTRY_POINT_GROUP = "longrange.blocks"

BUILTIN: Mapping[str, tuple[type[BlockConfig], str]] = {
    "none": (configs.NoneConfig, "blocks.none:NoBlock"),
    "nl": (configs.NonLocalConfig, "blocks.non_local:NonLocal"),
    "hgnl": (configs.HGNLConfig, "blocks.hgnl:HGNL"),
    "rnl": (configs.RNLConfig, "blocks.rnl:RNL"),
    "se_rnl": (configs.SERNLConfig, "blocks.chain:SERNL"),
    "pnl": (configs.PNLConfig, "blocks.pnl:PNL"),
    "bat": (configs.BATConfig, "blocks.bat:BAT"),
    "se": (configs.SEConfig, "blocks.se:SE"),
    "cbam": (configs.CBAMConfig, "blocks.cbam:CBAM"),
    "gc": (configs.GCConfig, "blocks.gc:GC"),
    "cgnl": (configs.CGNLConfig, "blocks.cgnl:CGNL"),
    "cgd": (configs.CGDConfig, "blocks.cgd:CGD"),
}

_registered: dict[str, type[Block[Any]]] = {}

BlockT = TypeVar("BlockT", bound="type[Block[Any]]")


class UnknownBlock(ValueError):
    """A block name that nothing registered; the message lists the known ones."""


def register_block(name: str) -> Callable[[BlockT], BlockT]:
    """Class decorator: make a block known under `name`.

    The class needs an attribute `Config`, a frozen dataclass derived from `BlockConfig`.

    Raises:
        ValueError: the name is taken by another class.
    """

    def register(block: BlockT) -> BlockT:
        known = _registered.get(name)
        same = known is not None and (known.__module__, known.__qualname__) == (block.__module__, block.__qualname__)
        if name in BUILTIN or (known is not None and not same):
            raise ValueError(f"block name {name!r} is taken; choose another for {block.__qualname__}")
        _registered[name] = block
        return block

    return register


def block_names() -> list[str]:
    """Every known block name: built in, registered by decorator, and installed as entry point."""
    installed = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return [*BUILTIN, *sorted((installed | set(_registered)) - set(BUILTIN))]


def config_type(name: str) -> type[BlockConfig]:
    """The config class of block `name`; does not import torch for the built-in blocks.

    Raises:
        UnknownBlock: no such block, or something that is no block.
    """
    if name in BUILTIN:
        return BUILTIN[name][0]
    config = getattr(block_type(name), "Config", None)
    if not (isinstance(config, type) and issubclass(config, BlockConfig)):
        raise UnknownBlock(
            f"{name} is no block: it needs an attribute Config, a frozen dataclass derived from BlockConfig"
        )
    return config


def block_type(name: str) -> type[Block[Any]]:
    """The class of block `name`; imports its module.

    Raises:
        UnknownBlock: no such block.
    """
    if name in BUILTIN:
        return _load(BUILTIN[name][1])
    if name in _registered:
        return _registered[name]
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            loaded: type[Block[Any]] = point.load()
            return loaded
    if ":" in name:
        return _load(name)
    close = get_close_matches(name, block_names(), n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ", or MODULE:CLASS of your own"
    raise UnknownBlock(f"unknown block {name!r}; known blocks: {', '.join(block_names())}{hint}")


def parse_config(given: Mapping[str, Any]) -> BlockConfig:
    """A validated config from a mapping with the block's `name` and any of its fields.

    Raises:
        UnknownBlock: no such block.
        ValueError: an unknown field or an invalid value, every problem listed; or a config whose own name, by which a
            trial is rebuilt elsewhere, leads to another block or to none.
    """
    fields = dict(given) if isinstance(given, Mapping) else {}
    name = fields.pop("name", None)
    if not isinstance(name, str):
        shown = f"only {', '.join(map(str, given))}" if isinstance(given, Mapping) and given else repr(given)
        raise ValueError(f"a block needs a 'name', given {shown}; known blocks: {', '.join(block_names())}")
    config = config_type(name).parse(fields)
    if wrong := misnamed(name, config):
        raise ValueError(wrong)
    return config


def misnamed(name: str, config: BlockConfig) -> str:
    """Why no trial can be rebuilt from the config of the block found by `name`; empty if it can."""
    if config.name == name or _leads_to(config.name, block_type(name)):
        return ""
    return (
        f"block {name!r} is called {config.name!r} in its config, which is another block or none: let the config's "
        f"name be {name!r}, or make {config.name!r} an entry point of its package"
    )


def _leads_to(name: str, block: type[Block[Any]]) -> bool:
    try:
        return block_type(name) is block
    except UnknownBlock:
        return False


def config_dict(config: BlockConfig) -> dict[str, Any]:
    """The inverse of `parse_config`, defaults included, ready for JSON."""
    return {"name": config.name, **asdict(config)}


def build(config: BlockConfig, shape: Shape) -> Block[Any]:
    """Construct the block that belongs to `config` for a map of `shape`."""
    return block_type(config.name)(config, shape)


def closed_form(config: BlockConfig, shape: Shape) -> Cost:
    """The closed-form cost of the block that belongs to `config` at `shape`."""
    return block_type(config.name).closed_form(config, shape)


def _load(path: str) -> type[Block[Any]]:
    module, _, qualname = path.partition(":")
    try:
        loaded = getattr(importlib.import_module(module), qualname)
    except (ImportError, AttributeError) as error:
        raise UnknownBlock(f"cannot load block {path!r}: {error}{where_to_look(error, module)}") from error
    except Exception as error:  # whatever somebody else's module raises while it is imported
        raise UnknownBlock(f"cannot load block {path!r}: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, type):
        raise UnknownBlock(f"cannot load block {path!r}: it is no class")
    return loaded


def where_to_look(error: Exception, module: str) -> str:
    """What to do if it is the named module itself that Python does not find."""
    if not isinstance(error, ModuleNotFoundError) or error.name not in (module, module.partition(".")[0]):
        return ""
    return "; run from the folder that holds it, install its package, or set PYTHONPATH"
