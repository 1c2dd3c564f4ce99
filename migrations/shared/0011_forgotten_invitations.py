"""Invitations of people whom their tenant has forgotten are deleted."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A colon would start a bind parameter.
    op.execute(text(Path(__file__).with_suffix(".sql").read_text(encoding="utf-8").replace(":", "\\:")))


def downgrade() -> None:
    op.execute("""
        DROP TRIGGER former_members_erase ON shared.former_members;
        DROP TRIGGER users_erase_invitations ON shared.users;
        DROP FUNCTION shared.former_members_erase_v1();
        DROP FUNCTION shared.users_erase_invitations_v1();
        DROP INDEX shared.invitations_email_idx;
        DROP INDEX shared.invitations_accepted_by_idx""")
