"""What fits where, as a table; and that nobody waits for a node that never comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.execution.base import Attempt, Resources
from orchestrator.execution.places import Node, unplaceable

BOX: Node = {"CPU": 8.0, "GPU": 2.0, "memory": 1e10}
SMALL: Node = {"CPU": 2.0}


@pytest.mark.parametrize(
    ("needs", "nodes", "fits"),
    [
        (Resources(), [SMALL], True),
        (Resources(cpus=3.0), [SMALL, SMALL], False),
        (Resources(cpus=0.1), [{"CPU": 0.3}], True),
        (Resources(gpus=1.0), [SMALL], False),
        (Resources(gpus=1.0), [SMALL, BOX], True),
        (Resources(gpus=0.25), [BOX], True),
        (Resources(gpus=3.0), [BOX, BOX], False),
        (Resources(gpus=1.0, cpus=9.0), [BOX], False),
        (Resources(workers=4), [SMALL, SMALL], True),
        (Resources(workers=5), [SMALL, SMALL], False),
        (Resources(workers=4, gpus=1.0), [BOX, BOX, SMALL], True),
        (Resources(workers=5, gpus=1.0), [BOX, BOX, SMALL], False),
        (Resources(workers=4, cpus=3.0), [BOX, BOX], True),
        (Resources(workers=5, cpus=3.0), [BOX, BOX], False),
        (Resources(), [], False),
    ],
)
def test_a_trial_fits_where_its_nodes_have_room_for_each_process(
    needs: Resources, nodes: list[Node], *, fits: bool
) -> None:
    assert (unplaceable(needs, nodes) is None) == fits


def test_the_message_says_what_is_asked_for_and_what_there_is() -> None:
    assert unplaceable(Resources(workers=3, gpus=1.0), [BOX, SMALL, SMALL]) == (
        "a trial asks for 1 CPUs and 1 GPUs for each of 3 processes; "
        "Ray's nodes have 8 CPUs and 2 GPUs; 2 CPUs and 0 GPUs"
    )


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("_support_on_path")
def test_a_gpu_that_this_machine_has_not_is_an_error_at_once(tmp_path: Path) -> None:
    from orchestrator.execution.ray_tune import RayExecutor

    asks = Attempt("x", {}, 1, tmp_path / "x", tmp_path, Resources(cpus=1.0, gpus=99.0))
    with RayExecutor(workers=2) as executor, pytest.raises(UserError, match="asks for 1 CPUs and 99 GPUs"):
        list(executor.run([asks]))
