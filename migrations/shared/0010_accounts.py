"""Mails of accounts, invitations, the second factor, and the keeper of an API key."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute("ALTER TABLE shared.api_keys DROP COLUMN last_used_at, DROP COLUMN kept_by")
    op.execute("ALTER TABLE shared.sessions DROP COLUMN user_agent, DROP COLUMN second_factor_at")
    op.execute("DROP TABLE shared.recovery_codes, shared.second_factors, shared.account_mails, shared.invitations")
