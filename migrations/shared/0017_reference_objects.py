"""The descriptions of a reference's objects beside its fingerprint."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute("ALTER TABLE shared.schema_fingerprints DROP COLUMN objects")
