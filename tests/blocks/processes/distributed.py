"""Every block trains under DistributedDataParallel: no unused parameters, and both ranks end with equal gradients."""

import os
import socket
import sys

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from blocks import affinity, block_names, block_type, config_type
from blocks.cases import Case
from blocks.variants import fitting_shape, resized, variants

RANKS = 2


def rank(number: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    affinity._KEEP_SMALL_MAPS = False  # the evaluations of large maps, on maps that are quick
    dist.init_process_group("gloo", rank=number, world_size=RANKS)
    for name in block_names():
        default = config_type(name)()
        for config in (*variants(default), *resized(default)):
            shape = fitting_shape(config)
            assert shape is not None
            check(Case(block_type(name), config, shape), number)
    dist.destroy_process_group()


def check(case: Case, number: int) -> None:
    block = case.build(dtype=torch.float32)
    if not any(parameter.requires_grad for parameter in block.parameters()):
        return
    wrapped = DistributedDataParallel(block, find_unused_parameters=False)
    for _ in range(2):  # the second step raises if a parameter of the first one got no gradient
        wrapped(case.clips(dtype=torch.float32) + number).square().mean().backward()
    total = sum(p.grad.double().abs().sum() for p in block.parameters() if p.grad is not None)
    gathered = [torch.zeros((), dtype=torch.float64) for _ in range(RANKS)]
    dist.all_gather(gathered, torch.as_tensor(total))
    assert gathered[0] == gathered[1], f"{case.config}: ranks disagree: {gathered}"


def main() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(rank, args=(port,), nprocs=RANKS)


if __name__ == "__main__":
    main()
    sys.exit(0)
