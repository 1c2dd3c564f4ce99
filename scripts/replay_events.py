"""Publish what happened to a tenant once more, for consumers of the broker that have lost it or are new.

Movements that the feed keeps no longer are made again from the ledger: they have `replay` instead of `sequence`, and
else the same id and data. The rest comes from the feed as it was. All consumers that are bound to these events get
them, and take each `id` once. The relay may run meanwhile, and goes on as before.

Examples:
    python -m scripts.replay_events eur --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z
    python -m scripts.replay_events eur --from 2026-01-01T00:00:00Z --type wallet.payment.posted.v1

Prints how many events were published and, if it stopped before the end, the --from to go on with; then some events are
published twice.

Exit codes: 0 all are published; 1 it stopped before the end, for example because the broker is away; 2 bad arguments or
settings, or there is no tenant SLUG.
"""

from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import rich_click as click

from app import create_app
from app.brokers.connect import publisher_for
from app.brokers.publisher import BrokerMisconfigured, BrokerUnavailable, Publisher
from app.errors import ServiceError
from app.events.models import EVENT_TYPES
from app.relay.broker_replay import EventRefused, replay_to_broker
from scripts.support.console import BAD_ARGUMENTS, FAILED, exit_with, settings_or_exit
from scripts.support.script import Script
from tenant_schemas.flask import EXTENSION, tenant_context
from tenant_schemas.tenant import Tenant


class Moment(click.ParamType[datetime, Any]):
    """A moment with its offset from UTC, as RFC 3339 writes it."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            self.fail(f"{value!r} is no moment like 2026-01-31T12:00:00Z.", param, ctx)
        return moment


@click.command(cls=Script, help=__doc__)
@click.argument("slug")
@click.option("--from", "start", type=Moment(), required=True, help="At or after this moment.")
@click.option("--to", "end", type=Moment(), help="Before this moment. Default: now.")
@click.option("--type", "types", type=click.Choice(EVENT_TYPES), multiple=True, help="Only these. Default: all types.")
def main(*, slug: str, start: datetime, end: datetime | None, types: tuple[str, ...]) -> None:
    settings = settings_or_exit()
    if not settings.broker_url:
        exit_with("BROKER_URL is not set: set it to the URL of the broker.", BAD_ARGUMENTS)
    try:
        publisher = publisher_for(settings.broker_url)
    except BrokerMisconfigured as error:
        exit_with(str(error), BAD_ARGUMENTS)
    app = create_app(settings)
    connections = app.extensions[EXTENSION]
    with closing(publisher), closing(connections), app.app_context(), tenant_context(slug) as tenant:
        _replay(publisher, tenant, start, end or datetime.now(UTC), types)


def _replay(publisher: Publisher, tenant: Tenant, start: datetime, end: datetime, types: tuple[str, ...]) -> None:
    count, last = 0, start.isoformat()
    try:
        for event in replay_to_broker(publisher, tenant, start, end, types or None):
            count, last = count + 1, event.body["time"]
    except (BrokerUnavailable, EventRefused, ServiceError) as error:
        print(f"Published {count} events.")
        exit_with(f"{error} Go on with --from {last}", FAILED)
    print(f"Published {count} events.")


if __name__ == "__main__":
    main()
