"""`flask webhooks …`: what operators do with the webhooks of a tenant, whose admins may have no access any more."""

from uuid import UUID

import click

from app.auth.actors import SYSTEM
from app.command_group import CommandGroup
from app.db import db
from app.webhooks.models import WebhookEndpoint
from app.webhooks.service import disable_webhook
from tenant_schemas.flask import tenant_context

webhooks = CommandGroup("webhooks", help="The webhooks of a tenant.")


@webhooks.command("disable")
@click.option("--tenant", "slug", required=True, help="The tenant's slug. Works for tenants of any status.")
@click.option("--id", "webhook_id", type=click.UUID, help="The id of one webhook. Default: all that are enabled.")
def disable_webhooks(slug: str, webhook_id: UUID | None) -> None:
    """Stop the deliveries to a tenant's webhooks. They keep their places in the feed; an admin can enable them again.

    Prints the id of each webhook that it has disabled.
    """
    with tenant_context(slug):
        ids = _enabled() if webhook_id is None else [webhook_id]
        for each in ids:
            disable_webhook(each, actor=SYSTEM)
        db.session.commit()
    for each in ids:
        click.echo(each)


def _enabled() -> list[UUID]:
    query = db.select(WebhookEndpoint.id).where(WebhookEndpoint.status == "enabled").order_by(WebhookEndpoint.id)
    return list(db.session.scalars(query))
