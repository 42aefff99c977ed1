from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from components import texts

from dashboards.app.layout import render
from dashboards.app.store import Store
from dashboards.app.view import View


@pytest.fixture
def show() -> Callable[..., tuple[list[Any], str]]:
    """show(where, path, search) renders an address of a ledger: its components and all its text."""

    def showing(where: Any, path: str, search: str = "") -> tuple[list[Any], str]:
        store = where if isinstance(where, Store) else Store(where)
        content, _, _ = render(View.of(store, path, search))
        return content, " ".join(texts(content))

    return showing
