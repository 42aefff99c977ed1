"""What Alembic runs to migrate: always on the open connection that `records.admin` hands over, never on a URL."""

from __future__ import annotations

from alembic import context

from orchestrator.records.schema import Base

connection = context.config.attributes["connection"]
# SQLite cannot alter columns in place; batch mode copies the table instead.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
