"""A sweep as a job on a Ray cluster: the working directory without its data, and `longrange run` on the head."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from ray.exceptions import RayError
from ray.job_submission import JobStatus, JobSubmissionClient

from orchestrator.errors import LongrangeError, UserError
from orchestrator.provenance import without_secrets

# What a job does not need from the working directory, besides what .gitignore names: data, results, environments; and
# what it must not take along, since every holder of the cluster's token can read it there: secrets.
EXCLUDED = (
    *("runs/", "data/", "datasets/", "checkpoints/", "mlruns/", ".git/", ".venv/", "venv/", "**/__pycache__/"),
    *("*.mp4", "*.avi", "*.mkv", "*.mov", "*.webm", "*.jpg", "*.jpeg", "*.png", "*.tfrecord", "*.hdf5", "*.h5"),
    *("*.npy", "*.npz", "*.pt", "*.pth", "*.ckpt", "*.safetensors", "*.db", "*.sqlite", "*.tar", "*.gz", "*.zip"),
    *(".env", ".env.*", "*.pem", "*.key", "id_rsa*", "id_ed25519*", ".netrc", ".pgpass"),
    *(".ssh/", ".aws/", ".ray/", ".mlflow/", ".kube/", ".docker/"),
)
POLL_SECONDS = 1.0
START_SECONDS = 60.0
LOST_SECONDS = 60.0

T = TypeVar("T")


class Jobs:
    """The jobs of a cluster.

    Args:
        address: of Ray's dashboard, e.g. `http://head:8265`.

    Raises:
        UserError: no such address.
        LongrangeError: nothing answers there, or it asks for a token that the environment has not.
    """

    def __init__(self, address: str) -> None:
        if not address.startswith(("http://", "https://")):
            raise UserError(f"jobs go to Ray's dashboard, e.g. --ray http://HOST:8265, given {address!r}")
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            self._client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, RayError) as error:
            (shown,) = without_secrets([address], {})
            raise LongrangeError(f"cannot reach Ray's dashboard at {shown}: {_first_line(error)}") from error

    def submit(self, words: Sequence[str], folder: Path, excludes: Sequence[str] = ()) -> str:
        """Send `folder` and run a command in it; returns the job's id.

        Raises:
            LongrangeError: the folder is too large, or the cluster refuses the job.
        """
        runtime = {"working_dir": str(folder), "excludes": [*EXCLUDED, *excludes]}
        patience = time.monotonic() + START_SECONDS
        while True:
            try:
                return str(self._client.submit_job(entrypoint=shlex.join(words), runtime_env=runtime))
            except (RuntimeError, ValueError) as error:
                # A head that has just started, or is busy, says so.
                if "try again later" not in str(error) or time.monotonic() > patience:
                    raise LongrangeError(f"the cluster did not take the job: {error}") from error
            time.sleep(POLL_SECONDS)

    def follow(self, job: str) -> Iterator[str]:
        """What the job prints, as it comes, until it has ended.

        Raises:
            LongrangeError: the dashboard does not answer for `LOST_SECONDS`; the job may go on.
        """
        told = 0
        over = False
        while not over:
            over = self._asked(lambda: self._client.get_job_status(job)).is_terminal()
            printed = self._asked(lambda: self._client.get_job_logs(job))
            if len(printed) > told:
                yield printed[told:]
                told = len(printed)
            if not over:
                time.sleep(POLL_SECONDS)

    def end(self, job: str) -> str:
        """How an ended job ended: `succeeded`, `failed` or `stopped`."""
        status: JobStatus = self._asked(lambda: self._client.get_job_status(job))
        return str(status.value).lower()

    def _asked(self, question: Callable[[], T]) -> T:
        """What the dashboard answers; a connection that was lost, or a head that restarts, may come back."""
        patience = time.monotonic() + LOST_SECONDS
        while True:
            try:
                return question()
            except (OSError, RuntimeError, RayError) as error:
                if time.monotonic() > patience:
                    raise LongrangeError(f"Ray's dashboard no longer answers: {_first_line(error)}") from error
            time.sleep(POLL_SECONDS)


def _first_line(error: Exception) -> str:
    """Ray's errors quote whole tracebacks of its servers."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
