"""Alembic's door into one schema. The engine opens it (`tenant_schemas.migrations.history`), with a connection whose
search_path is that schema alone; `alembic upgrade` typed by hand has no connection and is refused.
"""

from alembic import context
from alembic.util import CommandError

from tenant_schemas.migrations.history import comparison_options

attributes = context.config.attributes
if "connection" not in attributes:
    raise CommandError("Run `python -m scripts.migrate`: it binds one schema at a time and keeps the registry true.")

context.configure(
    connection=attributes["connection"],
    target_metadata=attributes.get("metadata"),
    **comparison_options(attributes["schema_name"]),
)
with context.begin_transaction():
    context.run_migrations()
