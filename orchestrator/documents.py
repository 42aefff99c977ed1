"""YAML documents as plain values: read safely, with keys that are text, nothing that contains itself.

YAML can say things that no sweep means: one key twice, `on` as a key, lists that contain themselves, a few lines that
stand for millions of values. Each is an error of its own here, before anything walks through the document.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import UserError

MOST_LEVELS = 60
MOST_VALUES = 1_000_000


class _Loader(yaml.SafeLoader):
    """The safe loader; a key given twice is an error, where YAML's own would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"the same key twice: {', '.join(twice)}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file, by the safe loader.

    Raises:
        UserError: unreadable, not YAML, not a mapping, or nested beyond reason.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise UserError(f"{path} is nested too deep, at most {MOST_LEVELS} levels are read") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} must hold a mapping (name, question, base, ...), given {type(document).__name__}")
    _limit(document, path)
    return document


def with_text_keys(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The document with every key as text, and which were not: YAML reads `1`, `on` and `no` as something else."""
    wrong: list[str] = []
    return _texted(document, "", wrong), wrong


def _texted(node: Any, place: str, wrong: list[str]) -> Any:
    if isinstance(node, list):
        return [_texted(item, place, wrong) for item in node]
    if not isinstance(node, Mapping):
        return node
    here = place or "(file)"
    wrong += [f"{here}: keys must be text, given {key!r}: put it in quotes" for key in node if not isinstance(key, str)]
    return {str(key): _texted(value, f"{place}.{key}" if place else str(key), wrong) for key, value in node.items()}


def _limit(document: Mapping[str, Any], path: Path) -> None:
    """Refuse what contains itself, and aliases of aliases that stand for more than anybody wrote."""
    values, level = 0, [document]
    for _ in range(MOST_LEVELS):
        values += len(level)
        if values > MOST_VALUES:
            raise UserError(f"{path} stands for more than {MOST_VALUES:,} values: are there aliases (*x) of aliases?")
        level = [inner for node in level for inner in _inside(node)]
        if not level:
            return
    raise UserError(f"{path} is nested too deep, at most {MOST_LEVELS} levels are read; does an alias contain itself?")


def _inside(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield from node.values()
    elif isinstance(node, list):
        yield from node
