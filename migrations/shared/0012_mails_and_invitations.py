"""The mail to the present address of an account when another one is asked for; the age of tokens and invitations."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute("""
        DROP INDEX shared.invitations_over_at_idx;
        ALTER TABLE shared.account_mails DROP COLUMN token_made_at;
        DELETE FROM shared.account_mails WHERE kind = 'email_change_asked';
        ALTER TABLE shared.account_mails DROP CONSTRAINT account_mails_kind_known;
        ALTER TABLE shared.account_mails ADD CONSTRAINT account_mails_kind_known CHECK (kind IN ('invitation',
            'password_reset', 'email_change', 'no_password', 'password_changed', 'email_changed', 'second_factor_on',
            'second_factor_off'))""")
