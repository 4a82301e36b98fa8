"""Alembic's entry: the address comes from the caller, the tables from worker.models."""

from alembic import context

from worker.models import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, compare_type=True, compare_server_default=False)
with context.begin_transaction():
    context.run_migrations()
