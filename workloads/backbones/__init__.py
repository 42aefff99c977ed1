"""The networks that blocks go into: torch-free configs, one torch file per family, insertion, weights."""
