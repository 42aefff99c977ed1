"""Started once per process by the engine tests: trains a tiny trial and writes what came out as JSON.

python engine_run.py OUT RANK WORLD PORT CACHE '{"recipe": ..., "micro_batch": ..., "stop_after": ...}'
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    out, rank, world, port, cache = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], Path(sys.argv[5])
    given = json.loads(sys.argv[6])
    if int(world) > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, **address)

    from workloads.progress import EpochDone, Finished, Stopped
    from workloads.spec import RunContext, TrialSpec

    spec = TrialSpec.model_validate(given["spec"])
    countdown = iter(range(given.get("stop_after", 10**9)))
    context = RunContext(
        cache_dir=cache,
        checkpoint_dir=out / "checkpoints",
        micro_batch=given.get("micro_batch"),
        stop=lambda: next(countdown, None) is None,
    )
    found = {"train_loss": [], "stopped": False}
    try:
        for event in spec.workload.open().run(spec, context):
            if isinstance(event, EpochDone):
                found["train_loss"].append(event.metrics["train_loss"])
            if isinstance(event, Finished):
                found |= {"top1_percent": event.metrics["top1_percent"], "notes": event.notes}
                found["scores"] = event.predictions.scores.tolist()
    except Stopped:
        found["stopped"] = True
    (out / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
