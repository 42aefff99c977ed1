"""Settings of the whole suite.

Shapes in the signatures of `blocks` are executed: jaxtyping's import hook checks every call with beartype. Set
LONGRANGE_CHECK_SHAPES=0 to run without; `torch.compile` cannot trace the checks, so its tests start such a process.
"""

import gc
import os
import sys
from pathlib import Path

import pytest
from order import long_first

# The suite runs in one process per core; threads of several processes would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

if os.environ.get("LONGRANGE_CHECK_SHAPES", "1") != "0":
    from jaxtyping import install_import_hook

    _modules = (Path(__file__).resolve().parents[1] / "blocks").glob("*.py")
    _checked = sorted(f"blocks.{file.stem}" for file in _modules if "from jaxtyping import Float" in file.read_text())
    assert not set(_checked) & set(sys.modules), "blocks were imported before their shape checks were installed"
    install_import_hook(_checked, "beartype.beartype")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of xdist's workers
        items[:] = long_first(items, config.workerinput["workercount"])


def pytest_collection_finish() -> None:
    # Collecting garbage took a tenth of the time: five thousand tests and all the libraries, walked again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)
