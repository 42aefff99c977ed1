"""What a visitor looks at, as said by the address: page, sweep, choices. A link reproduces the view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode

from dashboards.app.store import Held, Store
from dashboards.errors import UnknownChoice
from dashboards.figures.theme import Theme
from dashboards.numbers import DEFAULT_COST, DEFAULT_METRIC


def link(path: str, **query: str | Sequence[str] | None) -> str:
    """An address in the app; empty choices are left out. Names go into the query, where no character is special."""
    pairs = [
        (name, each)
        for name, value in query.items()
        for each in ([value] if isinstance(value, str) else value or [])
        if each
    ]
    return path + (f"?{urlencode(pairs)}" if pairs else "")


@dataclass(frozen=True)
class View:
    """One address, with the ledger it is about.

    Attributes:
        store: the ledger.
        path: e.g. "/sweep".
        query: choices by name, each a tuple of values.
        theme: of figures.
    """

    store: Store
    path: str
    query: Mapping[str, tuple[str, ...]]
    theme: Theme = "light"

    @classmethod
    def of(cls, store: Store, path: str | None, search: str | None, theme: Theme = "light") -> View:
        """Read an address."""
        query = parse_qs((search or "").removeprefix("?"), max_num_fields=200)
        return cls(store, (path or "/").rstrip("/") or "/", {name: tuple(each) for name, each in query.items()}, theme)

    def one(self, name: str, default: str = "") -> str:
        """A choice, or its default."""
        return self.query.get(name, (default,))[0]

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a choice."""
        return self.query.get(name, ())

    def number(self, name: str, default: int = 1) -> int:
        """A counting choice such as a page; nonsense is the default."""
        text = self.one(name)
        return max(1, int(text)) if text.isascii() and text.isdigit() and len(text) < 9 else default

    def among(self, name: str, allowed: Sequence[str], default: str = "") -> str:
        """A choice that must be one of `allowed`.

        Raises:
            UnknownChoice: with those there are.
        """
        given = self.one(name, default)
        if given and given not in allowed:
            raise UnknownChoice(name, given, allowed)
        return given

    @property
    def metric(self) -> str:
        """What arms are judged by."""
        return self.one("metric", DEFAULT_METRIC)

    @property
    def cost(self) -> str:
        """The frontier's horizontal axis."""
        return self.one("cost", DEFAULT_COST)

    def sweep(self) -> Held:
        """The sweep the address names; where it names none, the newest.

        Raises:
            UnknownSweep: with the names there are.
            NoSweep: the ledger holds none.
        """
        return self.store.sweep(self.one("sweep") or self.store.newest())

    def link(self, path: str, **query: str | Sequence[str] | None) -> str:
        """An address about the same sweep."""
        return link(path, **{"sweep": self.one("sweep") or self.store.newest(), **query})

    def here(self, **changes: str | Sequence[str] | None) -> str:
        """This address with some choices changed; None removes one."""
        return link(self.path, **{**self.query, **changes})
