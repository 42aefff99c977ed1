"""The ledger's schema over time, as Alembic revisions. A new one: change `schema.py`, raise `VERSION`, add a file."""
