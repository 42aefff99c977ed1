"""The conductor: sweep -> plan -> execution -> records."""
