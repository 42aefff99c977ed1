"""Shapes in signatures (jaxtyping), executed while a block runs; needs beartype, which only these checks use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from inspect import isclass, isfunction
from typing import Any, get_args, get_type_hints
from unittest.mock import patch

from jaxtyping import AbstractArray, TypeCheckError, jaxtyped
from torch import nn

MISSING = "shapes in signatures were not executed: beartype is not installed (pip install beartype)"


def available() -> bool:
    """Whether annotations can be executed here."""
    return find_spec("beartype") is not None


@contextmanager
def executed(block: nn.Module) -> Iterator[None]:
    """Within, functions and methods of the modules that `block` is made of check the shapes in their signatures.

    What is not written by the block's own package (torch's layers, say), or names no shape, stays as it is.
    """
    package = type(block).__module__.partition(".")[0]
    kinds = {kind for part in block.modules() for kind in type(part).__mro__ if _within(kind, package)}
    modules = {sys.modules[kind.__module__] for kind in kinds}
    with ExitStack() as stack:
        for owner in (*modules, *kinds):
            for name, value in list(vars(owner).items()):
                if isfunction(value) and _within(value, package) and _names_shapes(value):
                    stack.enter_context(patch.object(owner, name, _checked(value)))
        yield


def told(error: TypeCheckError) -> str:
    """What was given and what the signature says, without the list of all arguments."""
    given, _, rest = str(error).partition("----")
    _, known, axes = rest.partition("annotation are as follows.")
    return " ".join(given.split()) + (f" Axes: {', '.join(axes.split())}." if known else "")


def _within(what: type | Callable[..., Any], package: str) -> bool:
    return what.__module__.partition(".")[0] == package


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    from beartype import beartype

    checked: Callable[..., Any] = jaxtyped(typechecker=beartype)(function)
    return checked


def _names_shapes(function: Callable[..., Any]) -> bool:
    try:
        hints = get_type_hints(function)
    except NameError:
        return False  # names that exist for type checkers only cannot be executed
    except Exception as error:  # whatever an annotation does when it is evaluated
        raise TypeError(f"cannot read the signature of {function.__qualname__}: {error}") from error
    return any(map(_is_shape, hints.values()))


def _is_shape(hint: object) -> bool:
    return (isclass(hint) and issubclass(hint, AbstractArray)) or any(map(_is_shape, get_args(hint)))
