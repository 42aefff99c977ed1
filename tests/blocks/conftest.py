"""Small maps on the evaluations of large ones."""

import pytest

from blocks import affinity


@pytest.fixture(autouse=True)
def no_map_is_small(monkeypatch):
    """On maps as small as the tests' a block would choose the plain form, and be compared with itself."""
    monkeypatch.setattr(affinity, "_KEEP_SMALL_MAPS", False)
