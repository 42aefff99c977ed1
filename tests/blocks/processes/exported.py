"""Every block, with every choice it has, exports to one graph that gives the same output."""

import sys

import torch

from blocks import affinity, block_names, block_type, config_type
from blocks.cases import Case
from blocks.variants import fitting_shape, variants


def main() -> None:
    torch.set_num_threads(1)
    affinity._KEEP_SMALL_MAPS = False  # the evaluations of large maps, on maps that are quick
    failed = []
    for name in block_names():
        for config in variants(config_type(name)()):
            shape = fitting_shape(config)
            assert shape is not None
            case = Case(block_type(name), config, shape)
            block, x = case.build().eval(), case.clips()
            try:
                exported = torch.export.export(block, (x,)).module()
                torch.testing.assert_close(exported(x), block(x))
            except Exception as error:
                failed.append(f"{config}: {type(error).__name__}: {error}")
    print("\n".join(failed))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
