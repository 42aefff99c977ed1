"""Sweeps that draw their configurations: the space, what is drawn from it, its plan, and its run."""
