"""Who former members of a tenant were, as the tenant knew them."""

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
    op.execute("""
        DROP VIEW shared.all_members;
        DROP TRIGGER memberships_note_former ON shared.memberships;
        DROP TRIGGER users_forget_anonymised ON shared.users;
        DROP FUNCTION shared.memberships_note_former_v1();
        DROP FUNCTION shared.users_forget_anonymised_v1();
        DROP TABLE shared.former_members""")
