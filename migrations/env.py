"""Alembic's environment for one schema. `tenant_schemas.migrations.history` runs it with a connection whose search_path
is that schema only. `alembic upgrade` on the command line passes no connection and is refused.
"""

from alembic import context
from alembic.util import CommandError

from tenant_schemas.migrations.history import comparison_options

attributes = context.config.attributes
if "connection" not in attributes:
    raise CommandError(
        "Run `python -m scripts.migrate` instead: it binds one schema at a time and updates the registry."
    )

context.configure(
    connection=attributes["connection"],
    target_metadata=attributes.get("metadata"),
    **comparison_options(attributes["schema_name"]),
)
with context.begin_transaction():
    context.run_migrations()
