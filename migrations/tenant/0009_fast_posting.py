"""Postings in a third of the time: one entry in the movement's row, one CHECK for each table, HOT wallets."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    raise NotImplementedError("The movements' own ledger entries would be lost: restore a backup instead.")
