"""Pydantic's errors in our words: place, what was given, what is allowed. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from workloads.frozen import Frozen

LONGEST = 200  # characters of a wrong value in a message
YAML_WORDS = {"a valid tuple": "a list", "a valid list": "a list", "a valid dictionary": "a mapping"}


def explain(error: ValidationError, prefix: tuple[Any, ...] = ()) -> list[str]:
    """Every problem, once, with its place."""
    model = _model_named(error.title)
    found: list[str] = []
    for item in error.errors():
        place = (*prefix, *item["loc"])
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ValidationError):
            found += explain(inner, place)
        else:
            found.append(f"{_dotted(place)}: {_reason(item, inner, model)}")
    return list(dict.fromkeys(found))


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` where something known is close, else nothing."""
    close = get_close_matches(given, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _model_named(title: str, root: type[Frozen] = Frozen) -> type[Frozen]:
    """The config class a validation error is about; pydantic tells only its name."""
    found = (_model_named(title, kind) for kind in root.__subclasses__())
    return root if root.__name__ == title else next((kind for kind in found if kind.__name__ == title), Frozen)


def _reason(item: Any, inner: Any, model: type[Frozen]) -> str:
    if inner is not None:
        return str(inner)
    if item["type"] == "extra_forbidden":
        known = _fields_at(model, item["loc"][:-1])
        return f"unknown key, allowed: {', '.join(known)}{did_you_mean(str(item['loc'][-1]), known)}"
    if item["type"] == "missing":
        return "required, but not given"
    message = item["msg"][0].lower() + item["msg"][1:]
    for theirs, ours in YAML_WORDS.items():
        message = message.replace(theirs, ours)
    return f"{message}, given {short(item['input'])}"


def short(given: Any) -> str:
    """How a wrong value is shown: its beginning says which one it is."""
    text = repr(given)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def _fields_at(model: type[Frozen], loc: Iterable[Any]) -> list[str]:
    for part in loc:
        field = model.model_fields.get(part)
        model = (_model_in(field.annotation) if field else None) or model
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[Frozen] | None:
    """The config class inside an annotation such as `tuple[Rule, ...]` or `Rule | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _dotted(place: Iterable[Any]) -> str:
    text = ""
    for part in place:
        if isinstance(part, str) and part.endswith("]"):  # which form of a value pydantic tried: `tuple[int, ...]`
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(file)"
