"""Long-range (non-local) blocks: pure PyTorch modules, one file per paper, found through the registry."""

from blocks.configs import BlockConfig, Shape
from blocks.registry import (
    block_names,
    block_type,
    build,
    config_dict,
    config_type,
    parse_config,
    register_block,
)

__all__ = [
    "BlockConfig",
    "Shape",
    "block_names",
    "block_type",
    "build",
    "config_dict",
    "config_type",
    "parse_config",
    "register_block",
]
