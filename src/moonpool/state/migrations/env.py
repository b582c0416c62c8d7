"""Alembic's entry: runs the steps on the connection that `state.schema` gives it. There is no alembic.ini."""

from alembic import context

from moonpool.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
