"""What a restore does not bring back: objects in which the bundle's schema, or the living tenant's, differs from the
migrations. It makes the schema as the migrations do.
"""

from collections.abc import Set

from sqlalchemy import Connection

from tenant_schemas.backup.manifest import Manifest
from tenant_schemas.migrations.history import Migrations
from tenant_schemas.migrations.replay import VERSION_TABLE
from tenant_schemas.printable import printable
from tenant_schemas.schema_diff.compare import find_drift
from tenant_schemas.schema_diff.effects import DriftedObject, told
from tenant_schemas.tenant import Tenant

_NAMED_AT_MOST = 20


def left_out(manifest: Manifest, table_names: Set[str] | None = None) -> tuple[str, ...]:
    """The tables of a bundle that the migrations do not make, each with its rows and file, and the other objects that
    had drifted when it was taken. `table_names` are the tables of its revision; without them only those tables are
    found that the manifest names as drift.
    """
    drift = manifest.drift or ()
    extra = {
        file.name: file
        for file in manifest.tables
        if file.name != VERSION_TABLE
        and (f"relation {file.name}" in {each.name for each in drift} or file.name not in (table_names or {file.name}))
    }
    parts = {f"{kind} {name}" for name in extra for kind in ("relation", "rights on relation")}
    others = [each for each in drift if each.name not in parts and _table_of(each) not in extra]
    tables = [f"table {printable(file.name)} ({file.rows} rows, in {file.file})" for file in extra.values()]
    return (*tables, *([told(others, _NAMED_AT_MOST)] if others else []))


def _table_of(drifted: DriftedObject) -> str:
    """The table before the dot in the name of a column, constraint or trigger."""
    return drifted.name.partition(" ")[2].partition(".")[0]


def drift_today(connection: Connection, migrations: Migrations, living: Tenant) -> tuple[DriftedObject, ...]:
    """The objects in which the living tenant's schema differs from its revision, as far as it can be read now. Leaves
    the open db transaction bound to no schema.
    """
    return tuple(find_drift(connection, migrations, [living]).objects.get(living.schema_name, ()))
