"""What became of each tenant in each run of migrations, and the schemas that are no tenant's."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute(
        "DROP TABLE shared.schema_fingerprints, shared.spare_schemas, shared.migration_outcomes, shared.migration_runs"
    )
