"""Alembic's environment: runs the revisions on the connection, and inside the transaction, that it is given."""

from alembic import context

from holdfast.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
with context.begin_transaction():
    context.run_migrations()
