"""The engine's tables of `shared` besides the registry, for the application's metadata. Its migrations create them."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from tenant_schemas.tenant import SHARED_SCHEMA


def engine_tables(metadata: sa.MetaData) -> None:
    """Runs of the migrator and their outcomes, retired schemas, fingerprints of reference schemas, stamps, and check
    values of secrets.
    """
    runs = sa.Table(
        "migration_runs",
        metadata,
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("started_by", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        schema=SHARED_SCHEMA,
    )
    sa.Index("migration_runs_started_at_idx", runs.c.started_at)
    sa.Table(
        "migration_outcomes",
        metadata,
        sa.Column("run_id", sa.ForeignKey(runs.c.id, ondelete="CASCADE"), primary_key=True),
        sa.Column("tenant_id", sa.Uuid, primary_key=True),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("schema_name", sa.Text, nullable=False),
        sa.Column("wave", sa.Integer, nullable=False),
        sa.Column("revision_before", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sqlstate", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("blocked_by", sa.Text),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        schema=SHARED_SCHEMA,
    )
    sa.Table(
        "spare_schemas",
        metadata,
        sa.Column("schema_name", sa.Text, primary_key=True),
        sa.Column("tenant_id", sa.Uuid, nullable=False),
        sa.Column("slug", sa.Text, nullable=False),
        sa.Column("role_name", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("drop_after", sa.DateTime(timezone=True), nullable=False),
        schema=SHARED_SCHEMA,
    )
    sa.Table(
        "schema_fingerprints",
        metadata,
        sa.Column("key", sa.LargeBinary, primary_key=True),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("objects", JSONB),
        schema=SHARED_SCHEMA,
    )
    sa.Table(
        "schema_stamps",
        metadata,
        sa.Column("schema_name", sa.Text, primary_key=True),
        sa.Column("stamp", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        schema=SHARED_SCHEMA,
    )
    sa.Table(
        "secret_checks",
        metadata,
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("check_value", sa.LargeBinary, nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        schema=SHARED_SCHEMA,
    )
