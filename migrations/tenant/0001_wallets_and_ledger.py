"""Wallets, their ledger in double entry, the functions that alone write them, and the audit log."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    raise NotImplementedError("The first revision is not taken back: restore a backup, or drop the schema.")
