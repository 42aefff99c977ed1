"""Numbers, no plotting: every figure and table is drawn from these."""
