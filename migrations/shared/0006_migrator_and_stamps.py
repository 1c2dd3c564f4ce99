"""What the migrator calls in each tenant's db transaction, and stamps of the last look for drift."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute("DROP TABLE shared.schema_stamps")
    op.execute("DROP FUNCTION shared.migration_begin_v1(text, uuid, text, text, text, text, text)")
    op.execute("DROP FUNCTION shared.migration_done_v1(uuid, uuid, text)")
