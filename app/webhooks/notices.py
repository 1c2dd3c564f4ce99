"""Tells a tenant's admins that an endpoint was disabled."""

from typing import Final
from urllib.parse import urlsplit

import sqlalchemy as sa
import structlog

from app.db import db
from app.mail.models import MailKind
from app.mail.outbox import put_notice
from app.users.models import Membership, Role, User
from app.webhooks.lease import Claimed
from tenant_schemas.context import current_tenant
from tenant_schemas.flask import shared_side

log = structlog.get_logger(__name__)

REASONS: Final = {
    "gone": "it answered 410 (Gone)",
    "failing": "it has failed for five days",
    "trimmed": "it needs events that are older than the feed keeps",
}


def tell_admins(endpoint: Claimed) -> None:
    """Put a mail to each active admin of the bound tenant into the outbox; commits. The operators read the log. Called
    twice, it sends two mails.
    """
    tenant, reason = current_tenant(), endpoint.disabled_reason or ""
    log.error("webhook_disabled", tenant=tenant.slug, endpoint=str(endpoint.id), reason=reason)
    told = {"tenant": tenant.name, "host": urlsplit(endpoint.url).hostname or "", "reason": REASONS.get(reason, reason)}
    admins = (
        sa.select(User.id, User.email)
        .join(Membership, Membership.user_id == User.id)
        .where(Membership.tenant_id == tenant.id, Membership.role == Role.ADMIN, User.status == "active")
    )
    with shared_side():
        for user_id, email in db.session.execute(admins).all():
            put_notice(MailKind.WEBHOOK_DISABLED, email, user_id, **told)
        db.session.commit()
